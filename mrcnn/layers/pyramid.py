"""The feature pyramid: C2..C5 -> P2..P6 (Feature Pyramid Networks, figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers

from mrcnn.layers.normalization import NO_NORM, Norm


def feature_pyramid(
    features: Sequence[Any], width: int = 256, norm: Norm = NO_NORM, use_bias: bool = True
) -> list[Any]:
    """Merge coarse, meaningful maps into fine ones.

    Args:
        features: C2, C3, C4, C5: [B, H, W, C], each half the size of the one before.
        width: channels of every level.
        norm: the normalization behind each convolution, named like it with `_bn` behind.
        use_bias: whether the convolutions have a bias.

    Returns:
        [P2, P3, P4, P5, P6]; P6 is every second pixel of P5.
    """

    def conv(x: Any, size: int, name: str) -> Any:
        x = layers.Conv2D(width, size, padding="same", use_bias=use_bias, name=name)(x)
        return norm.after(x, f"{name}_bn")

    c2, c3, c4, c5 = features
    p5 = conv(c5, 1, "fpn_c5p5")
    merged = {5: p5}
    for level, feature in ((4, c4), (3, c3), (2, c2)):
        coarse = layers.UpSampling2D(2, name=f"fpn_p{level + 1}upsampled")(merged[level + 1])
        lateral = conv(feature, 1, f"fpn_c{level}p{level}")
        merged[level] = layers.Add(name=f"fpn_p{level}add")([coarse, lateral])
    levels = [conv(merged[level], 3, f"fpn_p{level}") for level in (2, 3, 4, 5)]
    return [*levels, layers.MaxPooling2D(1, strides=2, name="fpn_p6")(levels[-1])]
