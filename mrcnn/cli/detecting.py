"""`mrcnn detect`: images in, pictures and a results file out."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.cli import CommandError, is_users, show_error
from mrcnn.cli.configuration import Network, find_weights, load_network
from mrcnn.coco_results import coco_boxes, encode_masks, write_results
from mrcnn.data.images import read_image
from mrcnn.drawing import save_instances
from mrcnn.files import require_folder

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")


def run(args: argparse.Namespace) -> int:
    """Detect; 1 if an image could not be read, and the others are done."""
    paths = find_images(args.images)
    find_weights(args.weights)  # what cannot work is told before anything is made
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    json_path = Path(args.json) if args.json else output / "detections.json"
    require_folder(json_path)
    network = load_network(args.weights, args.config, args.classes, args.min_confidence, args.verbose)

    entries: list[dict[str, Any]] = []
    failed, used = 0, set()
    width = max(len(str(path)) for path in paths)
    print(f"{'image':{width}}  instances  seconds  classes")
    for image_id, path in enumerate(paths, start=1):
        try:
            image = read_image(path)
            start = time.perf_counter()
            result = network.model.detect([image])[0]
            seconds = time.perf_counter() - start
            save_instances(output / _picture_name(path, used), image, result, network.class_names)
        except Exception as error:
            if not is_users(error):
                raise
            show_error(error, args.verbose, about=str(path))
            failed += 1
            continue
        entries += _entries(image_id, path, result, network)
        counts = Counter(network.class_names[class_id] for class_id in result["class_ids"].tolist())
        told = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        print(f"{path!s:{width}}  {len(result['class_ids']):9}  {seconds:7.2f}  {told or '-'}", flush=True)
    write_results(json_path, entries)
    failures = f", {failed} failed" if failed else ""
    print(f"{len(paths) - failed} of {len(paths)} images, {len(entries)} instances{failures}.")
    print(f"Pictures: {output}. Results: {json_path}.")
    return 1 if failed else 0


def find_images(names: Iterable[str]) -> list[Path]:
    """The image files that arguments stand for: files themselves, there or not, and folders' images by name.

    Raises:
        CommandError: a folder without images.
    """
    paths = []
    for name in names:
        path = Path(name)
        if not path.is_dir():
            paths.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
        if not inside:
            raise CommandError(f"The folder {path} holds no images ({', '.join(_SUFFIXES)}).")
        paths += inside
    return paths


def _picture_name(path: Path, used: set[str]) -> str:
    """`<stem>_detected.png`, or with a number where another image of this run has that name."""
    name, number = f"{path.stem}_detected.png", 1
    while name.lower() in used:
        number += 1
        name = f"{path.stem}_{number}_detected.png"
    used.add(name.lower())
    return name


def _entries(image_id: int, path: Path, result: dict[str, np.ndarray], network: Network) -> list[dict[str, Any]]:
    """COCO results of an image. Category ids are the network's class numbers; names and file are told beside them."""
    return [
        {
            "image_id": image_id,
            "file_name": str(path),
            "category_id": class_id,
            "category_name": network.class_names[class_id],
            "bbox": box,
            "score": float(score),
            "segmentation": rle,
        }
        for class_id, box, score, rle in zip(
            result["class_ids"].tolist(),
            coco_boxes(result["rois"]),
            result["scores"],
            encode_masks(result["masks"]),
            strict=True,
        )
    ]
