"""`mrcnn evaluate`: average precision on annotated images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.cli import CommandError, note
from mrcnn.cli.configuration import annotated_images
from mrcnn.cli.running import open_detector, tiling
from mrcnn.config import Config
from mrcnn.data.dataset import number_classes
from mrcnn.files import atomic_path, require_folder
from mrcnn.inference import Detector

# Average precision is the area below a curve of precision over recall: detections of low scores belong to it.
_MIN_CONFIDENCE = 0.05


@dataclass(frozen=True)
class _InTiles:
    """A detector that looks at images tile by tile."""

    detector: Detector
    tiles: Mapping[str, Any]

    @property
    def config(self) -> Config:
        return self.detector.config

    def detect(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        return self.detector.detect(images, masks="rle", **self.tiles)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the figures and write what was asked for."""
    for path in (args.json, args.results):
        if path is not None:
            require_folder(path)
    tiles = tiling(args)
    dataset = annotated_images(args.annotations, args.images, args)
    # Measured is what was trained, unless it is asked for otherwise.
    network = open_detector(args, _MIN_CONFIDENCE, engine="keras", precision="float32")
    if network.names_known:
        number_classes(dataset, network.class_names, args.annotations, f"the network of {args.weights}")
    elif len(dataset.class_info) == len(network.class_names):
        note(
            f"{args.weights} does not name its classes: they are taken for those of {args.annotations}, in the order "
            "of its category ids."
        )
    else:
        raise CommandError(
            f"{args.weights} has {len(network.class_names) - 1} classes without names, {args.annotations} has "
            f"{len(dataset.class_info) - 1}. Name those of the network with --classes."
        )
    from mrcnn.evaluation import evaluate

    image_ids = dataset.image_ids if args.limit is None else dataset.image_ids[: args.limit]
    result = evaluate(
        _InTiles(network.detector, tiles) if tiles else network.detector,
        dataset,
        image_ids,
        max_detections=args.max_detections,
        results_path=args.results,
    )
    print(result)
    if args.json is not None:
        engine = network.detector.engine
        figures = {**result.to_dict(), "engine": engine.name, "precision": engine.precision, **tiles}
        with atomic_path(args.json) as temporary:
            Path(temporary).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0
