"""Random regions of interest, for training the heads apart from the RPN (USE_RPN_ROIS = False).

Boxes are (y1, x1, y2, x2) in *pixels* of the molded image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# This share of the ROIs lies around the objects, so that some overlap them well; the rest lie anywhere.
_SHARE_NEAR_OBJECTS = 0.9


def generate_random_rois(
    image_shape: Any,
    count: int,
    gt_class_ids: np.ndarray,
    gt_boxes: np.ndarray,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Random boxes, nine tenths of them near the objects, evenly shared between these.

    A box near an object has its corners within the object's box grown by the object's height upward and
    downward and by its width to both sides.

    Args:
        image_shape: (height, width, ...) of the molded image.
        count: how many.
        gt_class_ids: [G]; crowds (negative) and padding (0) attract no boxes.
        gt_boxes: [G, 4].
        rng: None: a generator with seed 0.

    Returns:
        [count, 4] int32, inside the image, each side at least one pixel long.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    height, width = int(image_shape[0]), int(image_shape[1])
    if height < 1 or width < 1:
        raise ValueError(f"image_shape must have a height and a width of at least 1. Received: {image_shape}.")
    objects = np.asarray(gt_boxes, np.float64).reshape(-1, 4)[np.asarray(gt_class_ids) > 0]

    regions = np.tile(np.array([0, 0, height, width], np.float64), (count, 1))
    if len(objects):
        near = int(_SHARE_NEAR_OBJECTS * count) // len(objects) * len(objects)
        sides = objects[:, 2:] - objects[:, :2]
        grown = np.concatenate([objects[:, :2] - sides, objects[:, 2:] + sides], axis=-1)
        regions[:near] = np.repeat(grown, near // len(objects), axis=0)
    limits = np.array([height, width])
    low = np.clip(np.floor(regions[:, :2]), 0, limits - 1).astype(np.int64)
    high = np.clip(np.ceil(regions[:, 2:]), low + 1, limits).astype(np.int64)

    # Two different whole numbers from low to high, both ends included: the second steps over the first.
    first = rng.integers(low, high, endpoint=True)
    second = rng.integers(low, high)
    second += second >= first
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=-1).astype(np.int32)
