"""What tests of the command line share."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from mrcnn.cli.running import Running, Stopwatch
from mrcnn.config import Config
from mrcnn.inference import Detector
from tests.shapes import ShapesConfig

# A network of 64 x 64 pixels that is built and run in seconds.
TINY = {
    name: value
    for name, value in ShapesConfig().to_dict().items()
    if value != Config().to_dict()[name] and name not in ("NAME", "NUM_CLASSES", "STEPS_PER_EPOCH", "VALIDATION_STEPS")
} | {"IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 64, "IMAGES_PER_GPU": 2, "DETECTION_MIN_CONFIDENCE": 0.0}  # fmt: skip


def settings(**more: object) -> list[str]:
    return [f"{name}={value}" for name, value in {**TINY, **more}.items()]


def error_line(capsys: pytest.CaptureFixture) -> str:
    """The one line on the error stream, notes left out."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("mrcnn: error", "Traceback"))]
    assert len(lines) == 1 and lines[0].startswith("mrcnn: error: "), lines
    return lines[0]


def write_weights(path: Path, classes: int = 4, kind: str = "mask_rcnn", **metadata: object) -> Path:
    """A weights file that tells of a network without holding one: a few small arrays of the right names."""
    layers = {"conv1": (7, 7, 3, 2)}
    layers |= {
        f"res{stage}{block}_branch2a": (1, 1, 2, 2)
        for stage, blocks in ((2, "ab"), (3, "ab"), (4, "a"), (5, "a"))
        for block in blocks
    }
    if kind == "mask_rcnn":
        layers |= {"fpn_c5p5": (1, 1, 2, 96), "fpn_p2": (3, 3, 96, 96), "rpn_class_raw": (1, 1, 4, 6)}
        layers |= {"mrcnn_class_logits": (8, classes), "mrcnn_bbox_fc": (8, 4 * classes)}
        layers["mrcnn_mask"] = (1, 1, 8, classes)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, shape in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()]
            group[f"{name}/kernel:0"] = np.zeros(shape, np.float32)
            group[f"{name}/bias:0"] = np.zeros(shape[-1], np.float32)
        if metadata:
            file.attrs["mrcnn_metadata"] = json.dumps(metadata)
    return path


class FindsOne:
    """An engine that finds one instance, of class 2, in rows 2 to 5 and columns 1 to 4 of every image."""

    name, precision, device, threads = "fake", "float32", "CPU", None

    def run(self, molded, metas, anchors):
        sides = np.array(molded.shape[1:3] * 2) - 1
        box = np.array([2, 1, 5, 4])
        corners = [np.tile(meta[7:9], 2) for meta in metas]  # of the image in its padding
        found = [np.concatenate([(corner + box) / sides, [2, 0.5]]) for corner in corners]
        return [(one.astype(np.float32)[None], np.ones((1, 28, 28), np.float32)) for one in found]


def running(engine: object = None, names: tuple[str, ...] = ("BG", "cat", "dog")) -> Running:
    """What the commands run: a detector with a stand-in for the network, that takes images as they are."""
    fields = {"NUM_CLASSES": len(names), "IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": None, "IMAGES_PER_GPU": 1}
    clock = Stopwatch(engine or FindsOne())
    return Running(Detector(clock, Config.from_dict(fields)), clock, names, True)
