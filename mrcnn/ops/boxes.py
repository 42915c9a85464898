"""Box arithmetic: one formula each, for numpy arrays and for the backend's tensors alike.

Letters: N, M boxes. Boxes are (y1, x1, y2, x2) in the last axis; y2, x2 lie one outside in pixels. *Normalized*
boxes are, on the "legacy" grid, (pixels - [0, 0, 1, 1]) / ([h, w, h, w] - 1), and on the "image" grid pixels /
[h, w, h, w] (see Config.BOX_GRID). Every function takes any leading axes unless it says otherwise, and gives numpy for
numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Of a box's growth by deltas, e^40.
MAX_LOG_SCALE = 40.0

# Added to a pyramid level that is rounded down, for boxes that are to a rounding error as large as one of the next.
LEVEL_SLACK = 1e-6

# What normalized boxes are shares of.
GRIDS = ("legacy", "image")


def _namespace(*arrays: Any) -> Any:
    """numpy where all arrays are numpy's (or plain numbers), else `keras.ops`; Keras is not imported for numpy."""
    if all(isinstance(a, np.ndarray | np.generic | float | int | list | tuple) for a in arrays):
        return np
    import keras

    return keras.ops


def box_area(boxes: Any) -> Any:
    """Areas [...] of boxes [..., 4]. A box with swapped corners may come out negative."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def compute_overlaps(boxes1: Any, boxes2: Any) -> Any:
    """Intersection over union of all pairs.

    Args:
        boxes1: [..., N, 4], in the units of `boxes2`.
        boxes2: [..., M, 4].

    Returns:
        [..., N, M], from 0 to 1; 0 where both boxes are empty.
    """
    ops = _namespace(boxes1, boxes2)
    a, b = boxes1[..., :, None, :], boxes2[..., None, :, :]
    height = ops.minimum(a[..., 2], b[..., 2]) - ops.maximum(a[..., 0], b[..., 0])
    width = ops.minimum(a[..., 3], b[..., 3]) - ops.maximum(a[..., 1], b[..., 1])
    intersection = ops.maximum(height, 0) * ops.maximum(width, 0)
    union = box_area(a) + box_area(b) - intersection
    return ops.where(union > 0, intersection / ops.where(union > 0, union, 1), 0)


def encode_deltas(boxes: Any, gt_boxes: Any) -> Any:
    """Deltas (dy, dx, log dh, log dw) that take `boxes` [..., 4] to `gt_boxes` [..., 4] (Fast R-CNN, appendix C of
    R-CNN). Both must have an area; units cancel."""
    ops = _namespace(boxes, gt_boxes)
    height, width = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    center_y, center_x = boxes[..., 0] + 0.5 * height, boxes[..., 1] + 0.5 * width
    gt_height, gt_width = gt_boxes[..., 2] - gt_boxes[..., 0], gt_boxes[..., 3] - gt_boxes[..., 1]
    gt_center_y, gt_center_x = gt_boxes[..., 0] + 0.5 * gt_height, gt_boxes[..., 1] + 0.5 * gt_width
    return ops.stack(
        [
            (gt_center_y - center_y) / height,
            (gt_center_x - center_x) / width,
            ops.log(gt_height / height),
            ops.log(gt_width / width),
        ],
        axis=-1,
    )


def decode_deltas(boxes: Any, deltas: Any, log_limit: float = MAX_LOG_SCALE) -> Any:
    """Boxes [..., 4] moved and scaled by `deltas` [..., 4], the inverse of `encode_deltas`; the last two of the deltas
    count `log_limit` at most."""
    ops = _namespace(boxes, deltas)
    height, width = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    center_y = boxes[..., 0] + 0.5 * height + deltas[..., 0] * height
    center_x = boxes[..., 1] + 0.5 * width + deltas[..., 1] * width
    # The limit is far beyond any image; without it a network gone wild gives infinity, and minus infinity, and NaN.
    height = height * ops.exp(ops.minimum(deltas[..., 2], log_limit))
    width = width * ops.exp(ops.minimum(deltas[..., 3], log_limit))
    y1, x1 = center_y - 0.5 * height, center_x - 0.5 * width
    return ops.stack([y1, x1, y1 + height, x1 + width], axis=-1)


def clip_boxes(boxes: Any, window: Any) -> Any:
    """Boxes [..., 4] cut to `window` (y1, x1, y2, x2), [4] or with leading axes that broadcast."""
    ops = _namespace(boxes, window)
    window = np.asarray(window, boxes.dtype) if ops is np else ops.convert_to_tensor(window, boxes.dtype)
    low = ops.concatenate([window[..., :2], window[..., :2]], axis=-1)
    high = ops.concatenate([window[..., 2:], window[..., 2:]], axis=-1)
    return ops.maximum(ops.minimum(boxes, high), low)


def large_enough(boxes: Any, min_size: float, shape: Any) -> Any:
    """Which of normalized boxes [..., 4] have an area, and sides of at least `min_size` pixels, [...] bool, in images
    of `shape` [..., 2] (height, width), on the "image" grid."""
    ops = _namespace(boxes, shape)
    sides = boxes[..., 2:] - boxes[..., :2]
    return ops.all(ops.logical_and(sides > 0, sides * shape >= min_size), axis=-1)


def normalize_boxes(boxes: Any, shape: Any, grid: str = "legacy") -> Any:
    """Pixel boxes [..., 4] to normalized float32 ones, in an image of `shape` (height, width): numbers, or a tensor
    [..., 2] that broadcasts against the boxes."""
    ops = _namespace(boxes, shape)
    scale, shift = _normalization(ops, shape, grid)
    if ops is np:
        return ((boxes - shift) / scale).astype(np.float32)
    return (ops.cast(boxes, "float32") - shift) / scale


def denormalize_boxes(boxes: Any, shape: Any, grid: str = "legacy") -> Any:
    """Normalized boxes [..., 4] to pixel ones, rounded half to even, int32. `shape` as for `normalize_boxes`."""
    ops = _namespace(boxes, shape)
    scale, shift = _normalization(ops, shape, grid)
    pixels = ops.round(boxes * scale + shift)
    return pixels.astype(np.int32) if ops is np else ops.cast(pixels, "int32")


def _normalization(ops: Any, shape: Any, grid: str) -> tuple[Any, Any]:
    """What boxes in pixels are divided by, after what is subtracted."""
    if grid not in GRIDS:
        raise ValueError(f"grid must be one of {', '.join(GRIDS)}. Received: {grid!r}.")
    less = 1 if grid == "legacy" else 0
    if ops is np:
        return np.array([shape[0], shape[1], shape[0], shape[1]]) - less, np.array([0, 0, less, less])
    shift = ops.convert_to_tensor([0.0, 0.0, float(less), float(less)])
    if isinstance(shape, tuple | list | np.ndarray):
        shape = ops.convert_to_tensor([float(shape[0]), float(shape[1])])
    shape = ops.cast(shape, "float32")
    return ops.concatenate([shape, shape], axis=-1) - float(less), shift
