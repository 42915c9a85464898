"""Files of keras.applications' ResNet50, ResNet101 and ResNet152 as weights of this package's layers; numpy and h5py
only.

These networks have the original's stride (in a block's first 1x1) and biases, padding alike on both sides as PyTorch
has it, an epsilon of their own, and were trained on blue, green, red without a standard deviation. Here images are
red, green, blue in every recipe, so the first kernel's channels are turned round.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.weights.contents import (
    KERAS3,
    Contents,
    StoredWeight,
    WeightsError,
    keras3_names,
    listed,
    open_weights,
    read_array,
    read_contents,
)
from mrcnn.weights.conversion import Conversion, Fate, block_letters
from mrcnn.weights.info import RESNETS

_CONV = ("kernel", "bias")
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_BRANCHES = {"0": "1", "1": "2a", "2": "2b", "3": "2c"}
_BLOCK = re.compile(r"conv([2-5])_block(\d+)_([0-3])_(conv|bn)")
_FIRST = "conv1_conv"

# What these networks compute, where it is not the default.
_FIELDS: dict[str, Any] = {
    "RESNET_STRIDE_IN_3X3": False,
    "SYMMETRIC_PADDING": True,
    "CONV_BIAS": True,
    "NORM": "batch",
    "NORM_EPSILON": 1.001e-5,
    "MEAN_PIXEL": [123.68, 116.779, 103.939],
    "STD_PIXEL": [1.0],
    "IMAGE_CHANNEL_ORDER": "rgb",
}


def is_keras_applications(path: str | Path) -> bool:
    """Whether a file is one of keras.applications' ResNets, or of a network with names like theirs (a ResNetV2, a
    DenseNet), which `convert` has a message for. False of what cannot be read."""
    try:
        with open_weights(path) as file:
            layers = read_contents(file).layers
    except (WeightsError, OSError):
        return False
    return _FIRST in layers and "conv2_block1_1_conv" in layers and "fpn_c5p5" not in layers


def convert(path: str | Path) -> Conversion:
    """Map a file of keras.applications' ResNet50, ResNet101 or ResNet152, with or without its top.

    Args:
        path: in the layout of Keras 2 (as they are released) or 3.

    Returns:
        The conversion: its `fields` are those of `Config` that compute what the network does, and its `preset` is None.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: it cannot be read, is of another network, or lacks weights.
    """
    path = Path(path)
    found = Conversion(source="a ResNet classifier of keras.applications")
    with open_weights(path) as file:
        contents = read_contents(file)
        backbone = _backbone(path, contents)
        for layer, weights in contents.layers.items():
            target = _target(layer)
            for weight, stored in _named(contents, layer, weights).items():
                name = f"{layer}/{weight}"
                if target is None:
                    found.fates.append(Fate(name, stored.shape, None, "the classifier's last layer"))
                    continue
                array, how = read_array(file, stored), "as it is"
                if layer == _FIRST and weight == "kernel" and array.shape[2] == 3:
                    array, how = array[:, :, ::-1], "blue, green, red to red, green, blue"
                found.arrays.setdefault(target, {})[weight] = np.ascontiguousarray(array, np.float32)
                found.fates.append(Fate(name, stored.shape, f"{target}/{weight}", how))
    channels = found.arrays["conv1"]["kernel"].shape[2]
    found.fields = {"BACKBONE": backbone, "IMAGE_CHANNEL_COUNT": channels, **_FIELDS}
    if channels != 3:  # the means are those of ImageNet's three
        del found.fields["MEAN_PIXEL"]
    return found


def _backbone(path: Path, contents: Contents) -> str:
    """The name of the network that a file is of, which is seen to be whole."""
    layers = {name: set(_named(contents, name, weights)) for name, weights in contents.layers.items() if weights}
    if "conv2_block1_preact_bn" in layers:
        raise WeightsError(
            f"{path} is of a ResNet V2, which normalizes before it convolves. It is no ResNet of this package: use "
            "BACKBONE 'keras:ResNet50V2' (or 101, 152) and its weights 'imagenet'."
        )
    places = [match for match in map(_BLOCK.fullmatch, layers) if match]
    blocks = Counter(int(match[1]) for match in places if match[3] == "1" and match[4] == "conv")
    counts = tuple(blocks[stage] for stage in (2, 3, 4, 5))
    backbone = RESNETS.get((counts, True, 1, 64))
    if backbone is None or _FIRST not in layers:
        raise WeightsError(
            f"{path} is no file of keras.applications' ResNet50, ResNet101 or ResNet152. It holds the layers "
            f"{listed(sorted(layers)) or '(none)'}. Other networks of keras.applications are backbones by name, as "
            "BACKBONE 'keras:DenseNet121'."
        )
    wanted = {_FIRST: set(_CONV), "conv1_bn": set(_NORM)}
    for stage, count in blocks.items():
        for block in range(1, count + 1):
            for branch in "0123" if block == 1 else "123":
                name = f"conv{stage}_block{block}_{branch}"
                wanted |= {f"{name}_conv": set(_CONV), f"{name}_bn": set(_NORM)}
    lacking = [f"{name}/{weight}" for name in wanted for weight in sorted(wanted[name] - layers.get(name, set()))]
    if lacking:
        raise WeightsError(f"{path} is not whole: it lacks {listed(lacking)}.")
    strange = [name for name in layers if name not in wanted and not _is_top(contents.layers[name])]
    if strange:
        raise WeightsError(f"{path}: no layer of a {backbone} takes these: {listed(strange)}.")
    return backbone


def _target(layer: str) -> str | None:
    """The layer here that one of theirs is; None of the classifier's."""
    if layer in (_FIRST, "conv1_bn"):
        return "conv1" if layer == _FIRST else "bn_conv1"
    match = _BLOCK.fullmatch(layer)
    if match is None:
        return None
    kind = "res" if match[4] == "conv" else "bn"
    return f"{kind}{block_letters(int(match[1]), int(match[2]) - 1)}_branch{_BRANCHES[match[3]]}"


def _named(contents: Contents, layer: str, weights: dict[str, StoredWeight]) -> dict[str, StoredWeight]:
    """A layer's weights by name, which the layout of Keras 3 does not store."""
    if contents.layout != KERAS3:
        return weights
    return keras3_names(_NORM if layer.endswith("_bn") else _CONV, weights)


def _is_top(weights: dict[str, StoredWeight]) -> bool:
    """Whether these are of a dense layer, the only one of which is the classifier."""
    return max(len(weight.shape) for weight in weights.values()) == 2
