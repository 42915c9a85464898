"""Networks of keras.applications as backbones, by name (`BACKBONE = "keras:EfficientNetV2B0"`), and the range of values
that each was trained on. Needs no framework."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PREFIX = "keras:"
_SUGGESTED = 3


@dataclass(frozen=True)
class Pixels:
    """What a network makes of an image before its first convolution: (value - mean) / std, of values 0..255.

    Attributes:
        mean, std: a number for all channels, or one each for red, green and blue.
        blue_first: whether the first convolution takes blue, green, red.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    blue_first: bool = False


_IMAGENET = Pixels((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_UNIT = Pixels((127.5,), (127.5,))
_EIGHT_BITS = Pixels((128.0,), (128.0,))
_CAFFE = Pixels((123.68, 116.779, 103.939), (1.0,), blue_first=True)

APPLICATIONS: dict[str, Pixels] = {
    **dict.fromkeys(("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19"), _CAFFE),
    **dict.fromkeys(
        (
            "ResNet50V2", "ResNet101V2", "ResNet152V2", "MobileNet", "MobileNetV2", "MobileNetV3Small",
            "MobileNetV3Large", "NASNetMobile", "NASNetLarge", "InceptionV3", "InceptionResNetV2", "Xception",
        ),
        _UNIT,
    ),
    **dict.fromkeys(
        (
            "DenseNet121", "DenseNet169", "DenseNet201",
            *(f"EfficientNetB{number}" for number in range(8)),
            *(f"EfficientNetV2B{number}" for number in range(4)),
            *(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")),
        ),
        _IMAGENET,
    ),
    **dict.fromkeys(("EfficientNetV2S", "EfficientNetV2M", "EfficientNetV2L"), _EIGHT_BITS),
}  # fmt: skip


def application_of(backbone: Any) -> str | None:
    """ "ResNet50" of the BACKBONE "keras:ResNet50"; None of one that is not of keras.applications."""
    return backbone.removeprefix(PREFIX) if isinstance(backbone, str) and backbone.startswith(PREFIX) else None


def pixel_fields(application: str, channels: int) -> dict[str, np.ndarray]:
    """MEAN_PIXEL and STD_PIXEL for an application, of images of so many channels: where these are not three, one number
    for all, the mean over red, green and blue.

    Raises:
        KeyError: there is no such application.
    """
    pixels = APPLICATIONS[application]
    fields = {"MEAN_PIXEL": np.array(pixels.mean), "STD_PIXEL": np.array(pixels.std)}
    return fields if channels == 3 else {name: np.mean(value, keepdims=True) for name, value in fields.items()}


def suggestions(backbone: str, others: Sequence[str] = ()) -> list[str]:
    """Backbones with a name like one that there is not, the nearest first.

    Args:
        backbone: with or without "keras:" before it.
        others: names of backbones that are not of keras.applications.
    """
    names = {name.lower(): PREFIX + name for name in APPLICATIONS}
    wanted = backbone.lower()
    if not wanted.startswith(PREFIX):
        names |= {name.lower(): name for name in others}
    wanted = wanted.removeprefix(PREFIX).strip()
    return [names[near] for near in difflib.get_close_matches(wanted, names, n=_SUGGESTED)]
