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
    feature_stride: float | Sequence[float],
    anchor_stride: int,
    rounded: bool = False,
) -> np.ndarray:
    """Anchors of one pyramid level.

    Args:
        scales: sides in pixels, of the square anchors.
        ratios: width / height; the area stays that of the square.
        shape: (height, width) of the feature map.
        feature_stride: pixels between neighboring cells: one number, or of rows and of columns.
        anchor_stride: anchors at every cell (1), every second one (2), ...
        rounded: whether the distances of an anchor's sides from its center are whole pixels.

    Returns:
        [A, 4] float64; row by row, column by column, then ratio by ratio with the scales inside.
    """
    scale, ratio = np.meshgrid(np.asarray(scales, float).ravel(), np.asarray(ratios, float).ravel())
    scale, root = scale.ravel(), np.sqrt(ratio.ravel())
    sizes = np.stack([scale / root, scale * root], axis=-1)  # (height, width)
    reach = np.round(0.5 * sizes) if rounded else 0.5 * sizes
    row_stride, column_stride = np.broadcast_to(feature_stride, 2)
    rows = np.arange(0, shape[0], anchor_stride) * row_stride
    columns = np.arange(0, shape[1], anchor_stride) * column_stride
    centers = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    return np.concatenate([centers - reach, centers + reach], axis=-1).reshape(-1, 4)


def generate_pyramid_anchors(
    scales: Sequence[float],
    ratios: Sequence[float],
    feature_shapes: Any,
    feature_strides: Sequence[Any],
    anchor_stride: int,
    rounded: bool = False,
) -> np.ndarray:
    """Anchors of as many levels as there are scales, one for each, finest level first: [A, 4] float64."""
    count = len(scales)
    levels = zip(scales, feature_shapes[:count], feature_strides[:count], strict=True)
    return np.concatenate(
        [generate_anchors(scale, ratios, shape, stride, anchor_stride, rounded) for scale, shape, stride in levels]
    )


def anchor_arguments(config: Any, image_shape: Sequence[int]) -> dict[str, Any]:
    """What `config` (a `Config`) says about the anchors of a molded image of `image_shape` (height, width, ...), as
    arguments of `generate_pyramid_anchors`."""
    shapes, strides = np.asarray(config.backbone_shapes(image_shape)), list(config.BACKBONE_STRIDES)
    if config.RPN_ANCHORS_ROUNDED:  # steps that whole maps make, which in an odd P6 are less than its stride
        strides = (np.asarray(image_shape[:2]) // shapes).tolist()
    return {
        "scales": list(config.RPN_ANCHOR_SCALES),
        "ratios": list(config.RPN_ANCHOR_RATIOS),
        "feature_shapes": shapes.tolist(),
        "feature_strides": strides,
        "anchor_stride": config.RPN_ANCHOR_STRIDE,
        "rounded": bool(config.RPN_ANCHORS_ROUNDED),
    }


def pyramid_anchors(config: Any, image_shape: Sequence[int]) -> np.ndarray:
    """The anchors [A, 4] that `config` (a `Config`) lays over a molded image of `image_shape` (height, width, ...)."""
    return generate_pyramid_anchors(**anchor_arguments(config, image_shape))
