"""Anchor grids, in numpy: they depend on the image's shape alone and are made once for each.

Letters: A anchors; boxes (y1, x1, y2, x2) in *pixels* of the molded image, not clipped to it. Faster R-CNN, section
3.1.1, on the levels of a feature pyramid (FPN, section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def generate_anchors(
    scales: float | Sequence[float],
    ratios: float | Sequence[float],
    shape: Sequence[int],
    feature_stride: float,
    anchor_stride: int,
) -> np.ndarray:
    """Anchors of one pyramid level.

    Args:
        scales: sides in pixels, of the square anchors.
        ratios: width / height; the area stays that of the square.
        shape: (height, width) of the feature map.
        feature_stride: pixels between neighboring cells.
        anchor_stride: anchors at every cell (1), every second one (2), ...

    Returns:
        [A, 4] float64; row by row, column by column, then ratio by ratio with the scales inside.
    """
    scale, ratio = np.meshgrid(np.asarray(scales, float).ravel(), np.asarray(ratios, float).ravel())
    scale, root = scale.ravel(), np.sqrt(ratio.ravel())
    sizes = np.stack([scale / root, scale * root], axis=-1)  # (height, width)
    rows = np.arange(0, shape[0], anchor_stride) * feature_stride
    columns = np.arange(0, shape[1], anchor_stride) * feature_stride
    centers = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    return np.concatenate([centers - 0.5 * sizes, centers + 0.5 * sizes], axis=-1).reshape(-1, 4)


def generate_pyramid_anchors(
    scales: Sequence[float],
    ratios: Sequence[float],
    feature_shapes: Any,
    feature_strides: Sequence[float],
    anchor_stride: int,
) -> np.ndarray:
    """Anchors of as many levels as there are scales, one for each, finest level first: [A, 4] float64."""
    count = len(scales)
    levels = zip(scales, feature_shapes[:count], feature_strides[:count], strict=True)
    return np.concatenate(
        [generate_anchors(scale, ratios, shape, stride, anchor_stride) for scale, shape, stride in levels]
    )


def pyramid_anchors(config: Any, image_shape: Sequence[int]) -> np.ndarray:
    """The anchors [A, 4] that `config` (a `Config`) lays over a molded image of `image_shape` (height, width, ...)."""
    return generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        config.backbone_shapes(image_shape),
        config.BACKBONE_STRIDES,
        config.RPN_ANCHOR_STRIDE,
    )
