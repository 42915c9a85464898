"""Exporting a network: into a folder that detection runs without Keras, or that other programs run.

    export_model(model.keras_model, model.config, "cells-model", class_names=names)
    Detector("cells-model").detect([image])

Nothing is written that was not run: the exported file gets a real image, and what it finds is compared with what Keras
finds in it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn.agreement import Agreement, Tolerance, compare
from mrcnn.bundle import Bundle, write_bundle
from mrcnn.config import Config
from mrcnn.data.images import read_image
from mrcnn.data.molding import network_inputs
from mrcnn.engines.base import Engine, Raw
from mrcnn.engines.keras_engine import KerasEngine
from mrcnn.exporters import Job, bfloat16_engine, engine_of, exporter_of, input_shapes
from mrcnn.formats import ExportError, check_export
from mrcnn.slim import without_background

__all__ = ["ExportError", "export_model"]

# Formats that this package itself runs.
_PACKAGE_RUNS = ("openvino", "onnx")
# Of so many detections one may lie on a threshold (of score, of overlap, of the number of proposals); and one of any
# ten. A graph that is wrong somewhere is so for all of them.
_ONE_STRAY_IN, _ENOUGH_FOR_ONE = 20, 10
# What is left of float32's results: the share of detections that must be found again, and the median difference of
# their boxes as a share of a box's side. Wrong coordinates or a wrong scale of a layer go far beyond.
_REDUCED = {"bfloat16": (0.9, 0.03), "int8": (0.8, 0.05)}


@dataclass(frozen=True)
class _Trial:
    """What a network is tried on, and what Keras makes of it in float32."""

    name: str
    inputs: list[np.ndarray]
    expected: Raw

    @property
    def shape(self) -> tuple[int, int]:
        return self.inputs[0].shape[1:3]


def export_model(
    network: keras.Model,
    config: Config,
    folder: str | Path,
    format: str = "openvino",
    precision: str = "float32",
    class_names: Sequence[str] | None = None,
    image: str | Path | np.ndarray | None = None,
    calibration: Sequence[str | Path | np.ndarray] | None = None,
    measure: Callable[[Engine], dict[str, Any]] | None = None,
) -> Bundle:
    """Write a network as a folder, see `mrcnn.bundle`, whole or not at all.

    | format      | runs in                            | open sizes                   | precisions               |
    |-------------|------------------------------------|------------------------------|--------------------------|
    | openvino    | this package, OpenVINO             | images, height, width        | float32, bfloat16, int8  |
    | onnx        | this package, ONNX Runtime, others | images, height, width        | float32                  |
    | saved_model | TensorFlow                         | images, height, width        | float32, bfloat16        |
    | litert      | LiteRT (TensorFlow Lite)           | images, height, width        | float32                  |
    | torch       | PyTorch (`torch.export.load`)      | none: one image of `image`'s | float32                  |
    |             |                                    | molded size                  |                          |

    openvino and onnx hold the graph of `mrcnn.graph.network.network_graph`; the others that of
    `mrcnn.slim.slim_network`, as Keras writes it. Heights and widths are multiples of 64. The float32 file of openvino
    computes in bfloat16 too, where asked; that of precision bfloat16 is half as large.

    Args:
        network: of `build_network(config, "inference")`.
        config: what it was built from.
        folder: to be made; an exported model that is there is replaced.
        format: one of `mrcnn.formats.FORMATS`.
        precision: "float32", "bfloat16" or "int8".
        class_names: [K], the background's first; to be stored.
        image: a file or an array [H, W, C] to check the exported model with; best one with objects in it. None: of
            two pictures, a portrait and cells, that in which more is found.
        calibration: for int8: files or arrays of images like those to come; a hundred are plenty.
        measure: for openvino and onnx: called with the exported model as an engine when it has been checked. What it
            returns is stored with the checks.

    Returns:
        What was written; `checks` tells how far it lies from Keras.

    Raises:
        ExportError: a format that cannot be had here or in this precision, or a check that failed; nothing is written.
        EngineError: a layer that has no ONNX form.
        ImportError: a package is missing; the message says which.
        ImageError, FileNotFoundError: an image that cannot be read.
        FileExistsError: the folder is something else than an exported model.
        ValueError: an argument that cannot be.
    """
    precision = check_export(format, precision, folder)
    exporter = exporter_of(format)
    if (precision == "int8") != (calibration is not None):
        raise ValueError(f"calibration images go with precision int8, and it with them. Received: {precision!r}.")
    if measure is not None and format not in _PACKAGE_RUNS:
        raise ValueError(f"measure goes with what an engine runs: openvino, onnx. Received: format {format!r}.")
    names = None if class_names is None else tuple(class_names)
    if names is not None and len(names) != config.NUM_CLASSES:
        raise ValueError(f"class_names must be {config.NUM_CLASSES}, the background's first. Received: {len(names)}.")
    trial, found_nothing = _trial(network, config, image), False
    subject, subject_config = network, config
    if not len(trial.expected[0]):
        if precision != "float32":
            raise ExportError(
                f"The network finds nothing in {'the pictures that ship' if image is None else trial.name}, so what "
                f"{precision} costs cannot be seen. Give an image (image=, --image) with objects that it knows."
            )
        found_nothing = True
        subject, subject_config = without_background(network, config)
        trial = _run_keras(subject, subject_config, trial.name, trial.inputs)
    job = Job(network, config, precision, trial.inputs, names, calibration)

    def check(bundle: Bundle) -> dict[str, Any]:
        raw, ran = exporter.run(job, bundle.path)
        if found_nothing:
            if len(raw[0]):
                raise ExportError(f"Keras finds nothing in {trial.name}, and the exported model {len(raw[0])} objects.")
            with tempfile.TemporaryDirectory() as other:
                twin = Job(subject, subject_config, precision, trial.inputs, names, None)
                file = exporter.write(twin, Path(other))
                raw, ran = exporter.run(twin, Path(other) / file)
        agreement = _judge(trial, raw, precision, format)
        reduced = None
        if precision == "float32" and format in _PACKAGE_RUNS and not found_nothing:
            reduced = _in_bfloat16(trial, bundle)
        return {
            "image": trial.name,
            "molded_shape": list(trial.inputs[0].shape),
            "background_ruled_out": found_nothing,
            "ran_in": ran,
            "inputs": input_shapes(job, format),
            **agreement.to_dict(),
            **({} if reduced is None else {"bfloat16": reduced}),
            **({} if measure is None else measure(engine_of(job, bundle.path))),
        }

    return write_bundle(folder, format, precision, config, names, lambda there: exporter.write(job, there), check)


def describe_checks(bundle: Bundle) -> str:
    """What was checked, in a few lines."""
    checks = bundle.checks
    agree = "agree" if bundle.precision == "float32" else "are found again"
    size = " x ".join(str(side) for side in checks["molded_shape"][1:3])
    count = max(checks["expected"], checks["found"])
    lines = [
        f"checked against Keras with {checks['image']} ({size} pixels), run by {checks['ran_in']}:",
        f"  {checks['agreeing']} of {count} detections {agree}; {_apart(checks)}",
    ]
    strays = count - checks["agreeing"] - checks["border"]
    if strays:
        lines.append(
            f"  {strays} more that differ by more, boxes by up to {checks['worst_box']:.2g} pixels, or that only one "
            "of the two finds"
        )
    if checks["border"]:
        lines.append(
            f"  {checks['border']} more that end at the border of the image, where a rounding error decides, by up to "
            f"{checks['worst_box']:.2g} pixels"
        )
    reduced = checks.get("bfloat16")
    if reduced:
        told = "" if reduced["agrees"] else ": too few or too far off, so detection that may choose will choose float32"
        lines.append(
            f"  in bfloat16 {reduced['matched']} of {max(reduced['expected'], reduced['found'])} are found again; "
            f"{_apart(reduced)}{told}"
        )
    if checks["background_ruled_out"]:
        lines.append("  The network found nothing in it; a copy without background was exported and compared instead.")
    return "\n".join(lines)


def _apart(checks: Mapping[str, Any]) -> str:
    return (
        f"largest differences: boxes {checks['box']:.2g} pixels, scores {checks['score']:.2g}, masks "
        f"{checks['mask']:.2g}"
    )


def _judge(trial: _Trial, found: Raw, precision: str, format: str) -> Agreement:
    """Compare, and refuse what lies too far apart."""
    if precision == "float32":
        limit = Tolerance()
        agreement = compare(trial.expected, found, trial.shape, limit)
        allowed = max(agreement.count // _ONE_STRAY_IN, int(agreement.count >= _ENOUGH_FOR_ONE))
        good = agreement.agreeing > 0 and agreement.strays <= allowed
        rule = f"boxes {limit.box} pixels, scores {limit.score}, masks {limit.mask}"
    else:
        share, median = _REDUCED[precision]
        agreement = compare(trial.expected, found, trial.shape)
        good = _is_near(agreement, precision)
        rule = f"{share:.0%} of detections found again, boxes {median:.0%} of their side in the median"
    if not good:
        everything = compare(trial.expected, found, trial.shape)
        raise ExportError(
            f"The exported {format} model does not agree with Keras, and was not kept. In {trial.name} Keras finds "
            f"{agreement.expected} objects and it {agreement.found}, of which {agreement.matched} match and "
            f"{agreement.agreeing} agree; largest differences: boxes {everything.box:.3g} pixels "
            f"({agreement.median_box:.3g} of their side in the median), scores {everything.score:.3g}, masks "
            f"{everything.mask:.3g}. Allowed: {rule}."
        )
    return agreement


def _is_near(agreement: Agreement, precision: str) -> bool:
    share, median = _REDUCED[precision]
    return agreement.matched >= share * agreement.count and agreement.median_box <= median


def _in_bfloat16(trial: _Trial, bundle: Bundle) -> dict[str, Any] | None:
    """How far a float32 file lies from Keras when it computes in bfloat16, which a detector that may choose does where
    it is faster; None: not here."""
    engine = bfloat16_engine(bundle.path)
    if engine is None:
        return None
    agreement = compare(trial.expected, engine.run(*trial.inputs)[0], trial.shape)
    return {**agreement.to_dict(), "agrees": _is_near(agreement, "bfloat16")}


def _trial(network: keras.Model, config: Config, image: str | Path | np.ndarray | None) -> _Trial:
    """The image to check with, through Keras."""
    if image is None:
        pictures = {name: _with_channels(picture, config) for name, picture in _pictures().items()}
    else:
        array = image if isinstance(image, np.ndarray) else _with_channels(read_image(image), config)
        pictures = {"the given image" if isinstance(image, np.ndarray) else Path(image).name: array}
    trials = [_run_keras(network, config, name, network_inputs(picture, config)) for name, picture in pictures.items()]
    return max(trials, key=lambda trial: len(trial.expected[0]))


def _pictures() -> dict[str, np.ndarray]:
    """Pictures that are always there: the portrait that matplotlib carries (public domain), and cells under a
    microscope (Data Science Bowl 2018, CC0), with sides that are multiples of 64."""
    import matplotlib.cbook

    paths = {
        "a portrait": matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False),
        "a picture of cells": str(resources.files("mrcnn") / "assets" / "nuclei.jpg"),
    }
    pictures = {name: read_image(path) for name, path in paths.items()}
    return {name: picture[: len(picture) // 64 * 64] for name, picture in pictures.items()}


def _with_channels(image: np.ndarray, config: Config) -> np.ndarray:
    """An RGB image with as many channels as the network takes: what they mean there matters not for the check."""
    count = config.IMAGE_CHANNEL_COUNT
    if count == 1:
        return image.mean(axis=-1, keepdims=True).astype(image.dtype)
    return image[..., np.arange(count) % 3]


def _run_keras(network: keras.Model, config: Config, name: str, inputs: list[np.ndarray]) -> _Trial:
    return _Trial(name, inputs, KerasEngine(network, config).run(*inputs)[0])
