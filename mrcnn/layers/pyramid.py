"""The feature pyramid: C2..C5 -> P2..P6 (Feature Pyramid Networks, figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers


def feature_pyramid(features: Sequence[Any], width: int = 256) -> list[Any]:
    """Merge coarse, meaningful maps into fine ones.

    Args:
        features: C2, C3, C4, C5: [B, H, W, C], each half the size of the one before.
        width: channels of every level.

    Returns:
        [P2, P3, P4, P5, P6]; P6 is every second pixel of P5.
    """
    c2, c3, c4, c5 = features
    p5 = layers.Conv2D(width, 1, name="fpn_c5p5")(c5)
    merged = {5: p5}
    for level, feature in ((4, c4), (3, c3), (2, c2)):
        coarse = layers.UpSampling2D(2, name=f"fpn_p{level + 1}upsampled")(merged[level + 1])
        lateral = layers.Conv2D(width, 1, name=f"fpn_c{level}p{level}")(feature)
        merged[level] = layers.Add(name=f"fpn_p{level}add")([coarse, lateral])
    levels = [layers.Conv2D(width, 3, padding="same", name=f"fpn_p{level}")(merged[level]) for level in (2, 3, 4, 5)]
    return [*levels, layers.MaxPooling2D(1, strides=2, name="fpn_p6")(levels[-1])]
