"""Our networks with torchvision's weights, and what they compute for its photos."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np

from mrcnn import presets
from mrcnn.config import Config
from mrcnn.data.molding import network_inputs
from mrcnn.network import build_network
from mrcnn.weights import detectron2, torchvision
from mrcnn.weights.conversion import Conversion
from mrcnn.weights.variables import model_layers
from tests.running import call
from tests.torchvision.kept import thin
from tests.torchvision.peer import DETECTRON2_CASES, KEPT_CASES, KEPT_DETECTIONS, MAX_SIZE, MIN_SIZE, PROPOSALS


@cache
def conversion(folder: Path, case: str) -> Conversion:
    convert = detectron2.convert if case in DETECTRON2_CASES else torchvision.convert
    with np.load(folder / f"{case}_weights.npz") as file:
        return convert({name: file[name] for name in file.files})


@cache
def arrays(folder: Path, case: str) -> dict[str, np.ndarray]:
    with np.load(folder / f"{case}.npz") as file:
        return {name: file[name] for name in file.files}


def recorded_of(folder: Path, case: str, photo: int) -> SimpleNamespace:
    """What torchvision computed for a photo."""
    found = arrays(folder, case)
    start = f"{photo}/"
    return SimpleNamespace(**{name[len(start) :]: value for name, value in found.items() if name.startswith(start)})


def config_of(found: Conversion, **changes: Any) -> Config:
    """The configuration that computes what the peer does."""
    base = presets.subclass(Config, found.preset)
    values = {
        **found.fields, "IMAGE_MIN_DIM": MIN_SIZE, "IMAGE_MAX_DIM": MAX_SIZE, "POST_NMS_ROIS_INFERENCE": PROPOSALS,
        **changes,
    }  # fmt: skip
    return base.from_dict(values)


def take(network: Any, found: Conversion) -> None:
    """Give a network converted weights: all of them, and nothing is left over."""
    layers = model_layers(network)
    assert {(layer, weight) for layer, weights in layers.items() for weight in weights} == {
        (layer, weight) for layer, weights in found.arrays.items() for weight in weights
    }
    for layer, weights in layers.items():
        for weight, variable in weights.items():
            array = found.arrays[layer][weight]
            assert tuple(variable.shape) == array.shape, (layer, weight)
            variable.assign(array)


def build(folder: Path, case: str) -> tuple[Config, Any]:
    """Configuration and inference network of a case."""
    found = conversion(folder, case)
    config = config_of(found, **({"DETECTION_MAX_INSTANCES": KEPT_DETECTIONS} if case in KEPT_CASES else {}))
    network = build_network(config, "inference")
    take(network, found)
    return config, network


# The last blocks of stages 2 to 5.
_LAST = {"resnet18": "bbbb", "resnet50": "cdfc", "resnet101": "cdwc", "resnext50_32x4d": "cdfc"}


def run(config: Config, network: Any, photo: np.ndarray) -> SimpleNamespace:
    """All that our network computes for a photo, by the names of `peer.record`."""
    tops = {f"C{stage}": f"res{stage}{last}_out" for stage, last in enumerate(_LAST[config.BACKBONE], start=2)}
    outputs = {name: network.get_layer(layer).output for name, layer in tops.items()}
    pooling = network.get_layer("roi_align_classifier")
    _, _, *pyramid = pooling._inbound_nodes[0].input_tensors
    outputs |= {f"P{level}": tensor for level, tensor in zip((2, 3, 4, 5), pyramid, strict=True)}
    outputs |= {
        "P6": network.get_layer("fpn_p6").output, "objectness": network.get_layer("rpn_class_logits").output,
        "deltas": network.outputs[6], "proposals": network.outputs[4], "pooled": pooling.output,
        "logits": network.get_layer("mrcnn_class_logits").output, "box_deltas": network.outputs[2],
        "detections": network.outputs[0], "all_masks": network.outputs[3],
    }  # fmt: skip
    model = keras.Model(network.inputs, list(outputs.values()))
    inputs = network_inputs(photo, config)
    values = dict(zip(outputs, call(model, inputs), strict=True))
    return SimpleNamespace(inputs=inputs, **values)


def real(found: SimpleNamespace) -> tuple[np.ndarray, np.ndarray]:
    """Detections [N, 6] and masks [N, 28, 28] of what `run` gave: as an engine tells it."""
    rows = found.detections[0]
    count = int((rows[:, 4] > 0).sum())
    return rows[:count], found.all_masks[0][np.arange(count), :, :, rows[:count, 4].astype(int)]


def as_kept(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """`actual`, thinned where `expected` is."""
    return thin(actual) if actual.shape != expected.shape else actual


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a share of the largest value. `expected` may be thinned."""
    actual = as_kept(actual, expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
