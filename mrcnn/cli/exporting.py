"""`mrcnn export`: weights in, a folder for a runtime out."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrcnn.bundle import Bundle, file_sizes
from mrcnn.cli import CommandError, note
from mrcnn.cli.configuration import Network, annotated_images, find_weights, load_network
from mrcnn.cli.detecting import find_images
from mrcnn.data.dataset import number_classes
from mrcnn.data.images import read_image
from mrcnn.formats import FORMATS, check_export

if TYPE_CHECKING:
    from mrcnn.data.dataset import Dataset
    from mrcnn.engines.base import Engine
    from mrcnn.quantization import Comparison

# What this package itself can run again.
_OWN = ("openvino", "onnx")
_READ_WITH = {
    "saved_model": 'tf.saved_model.load("{path}").signatures["serving_default"](...)',
    "litert": 'ai_edge_litert.interpreter.Interpreter("{path}").get_signature_runner()(...)',
    "torch": 'torch.export.load("{path}").module()([...])',
}


def run(args: argparse.Namespace) -> int:
    """Export, and tell what was written and how it compares."""
    precision = check_export(args.format, args.precision, args.output)
    if find_weights(args.weights).is_dir():
        raise CommandError(f"{args.weights} is a folder. An export is made from weights: a .h5 or .weights.h5 file.")
    if args.image is not None:
        read_image(args.image)
    calibration = _calibration(args.calibration, precision)
    dataset = _annotated(args)
    _choose_backend(args.format)
    network = load_network(args.weights, args.config, args.classes, args.min_confidence, args.verbose)
    if dataset is not None:
        number_classes(dataset, network.class_names, args.annotations, f"the network of {args.weights}")

    from mrcnn.export import describe_checks, export_model

    told: list[Comparison] = []
    bundle = export_model(
        network.model.keras_model, network.model.config, args.output, args.format, precision,
        class_names=network.class_names if network.names_known else None, image=args.image, calibration=calibration,
        measure=None if dataset is None else lambda engine: _average_precision(network, engine, dataset, told),
    )  # fmt: skip
    size = sum(file_sizes(bundle.folder).values())
    print(f"wrote {bundle.folder}: {bundle.format}, {bundle.precision}, {size / 2**20:.1f} MB")
    print(describe_checks(bundle))
    for comparison in told:
        print(comparison)
    print(_usage(bundle))
    return 0


def _calibration(folder: str | None, precision: str) -> list[Path] | None:
    """The files of the calibration folder."""
    if (folder is not None) != (precision == "int8"):
        raise CommandError(
            "--precision int8 needs --calibration DIR: a folder of images like those to come, a hundred or so."
            if folder is None
            else f"--calibration is for --precision int8. Received: --precision {precision}."
        )
    if folder is None:
        return None
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"There is no folder {folder} (--calibration).")
    return find_images([folder])


def _annotated(args: argparse.Namespace) -> Dataset | None:
    """The images to measure average precision on, prepared."""
    if args.annotations is None and args.images is not None:
        raise CommandError("--images DIR, the folder of the annotated images, needs --annotations PATH.")
    if args.annotations is None:
        return None
    if args.format not in _OWN:
        raise CommandError(
            f"Average precision is measured of what this package runs: {' and '.join(_OWN)}. Received: --format "
            f"{args.format} with --annotations."
        )
    return annotated_images(args.annotations, args.images, args)


def _choose_backend(format: str) -> None:
    """Let Keras run on what it exports a format on. It fixes that when it is imported."""
    needed = FORMATS[format].backend
    if needed is None or os.environ.get("KERAS_BACKEND") == needed:
        return
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = needed
        note(f"Keras runs on {needed} for this format.")


def _average_precision(network: Network, engine: Engine, dataset: Dataset, told: list[Comparison]) -> dict[str, Any]:
    """Before and after, of the network as it is configured: what it scores below DETECTION_MIN_CONFIDENCE is not
    there, in the one as in the other."""
    from mrcnn.inference import Detector
    from mrcnn.quantization import compare

    before = Detector(network.model, engine="keras", precision="float32")
    comparison = compare(before, Detector(engine, network.model.config), dataset)
    told.append(comparison)
    pairs = {kind: (getattr(comparison.before, kind), getattr(comparison.after, kind)) for kind in ("box", "mask")}
    return {f"{kind}_ap": {"before": old.ap, "after": new.ap} for kind, (old, new) in pairs.items()}


def _usage(bundle: Bundle) -> str:
    if bundle.format in _OWN:
        return f"use it: mrcnn detect photo.jpg --weights {bundle.folder}"
    return f"use it: {_READ_WITH[bundle.format].format(path=bundle.path.as_posix())}; its inputs are in model.json"
