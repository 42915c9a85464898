"""Masks by their boxes: hardly any pixel of an image belongs to a given instance, so most need not be looked at.

Letters: H, W image size; N instances. Boxes are int (y1, x1, y2, x2) in *pixels*, y2 and x2 one outside. Masks of an
image are [H, W, N]; work goes instance by instance and is fast where the memory below is laid out [N, H, W].
"""

from __future__ import annotations

import cv2
import numpy as np


def instances_first(mask: np.ndarray) -> np.ndarray:
    """Masks [H, W, N] as [N, H, W] whose rows lie in one piece, forward or backward: a view where that can be.

    Raises:
        ValueError: not three axes.
    """
    mask = three_axes(mask)
    height, width, count = mask.shape
    turned = np.moveaxis(mask, -1, 0)
    if mask.size == 0 or abs(mask.strides[1]) == mask.itemsize:
        return turned
    if mask.itemsize == 1 and mask.flags.c_contiguous:  # twice as fast as numpy
        flat = mask.reshape(height * width, count).view(np.uint8)
        return cv2.transpose(flat).view(mask.dtype).reshape(count, height, width)
    return np.ascontiguousarray(turned)


def empty_masks(height: int, width: int, count: int, dtype: np.dtype | type = bool) -> np.ndarray:
    """Masks [height, width, count] of zeros, laid out [count, height, width]: memory that the system maps where it is
    written to."""
    return np.moveaxis(np.zeros((count, height, width), dtype), 0, -1)


def extract_bboxes(mask: np.ndarray) -> np.ndarray:
    """The tightest boxes around masks.

    Args:
        mask: [H, W, N]; what is not 0 belongs to the instance.

    Returns:
        [N, 4] int32; zeros for an empty mask.
    """
    mask = three_axes(mask)
    boxes = np.zeros((mask.shape[2], 4), np.int32)
    if mask.strides[2] != mask.itemsize:
        for box, one in zip(boxes, np.moveaxis(mask, -1, 0), strict=True):
            box[:] = _box(one)
        return boxes
    for box, row, column in zip(boxes, _any_of_columns(mask).T, mask.any(axis=0).T, strict=True):
        y, x = np.flatnonzero(row), np.flatnonzero(column)
        if len(y):
            box[:] = y[0], x[0], y[-1] + 1, x[-1] + 1
    return boxes


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The box of one mask [H, W]."""
    # A mirrored mask is looked at as it lies in memory: numpy is ten times as fast forward.
    back_y, back_x = (stride < 0 for stride in mask.strides)
    mask = mask[:: -1 if back_y else 1, :: -1 if back_x else 1]
    y = np.flatnonzero(mask.any(axis=1))
    if not len(y):
        return 0, 0, 0, 0
    y1, y2 = int(y[0]), int(y[-1]) + 1
    x = np.flatnonzero(mask[y1:y2].any(axis=0))
    x1, x2 = int(x[0]), int(x[-1]) + 1
    if back_y:
        y1, y2 = mask.shape[0] - y2, mask.shape[0] - y1
    if back_x:
        x1, x2 = mask.shape[1] - x2, mask.shape[1] - x1
    return y1, x1, y2, x2


def _any_of_columns(mask: np.ndarray) -> np.ndarray:
    """mask.any(axis=1) of [H, W, N]. numpy would make H x W short loops over the N values; halves laid over
    each other make few long ones, ten times as fast for a handful of instances."""
    mask = mask.astype(bool, copy=False)
    while mask.shape[1] > 1:
        half = mask.shape[1] // 2
        folded = mask[:, :half] | mask[:, half : 2 * half]
        if mask.shape[1] % 2:
            folded[:, 0] |= mask[:, -1]
        mask = folded
    return mask.any(axis=1)


def take_masks(mask: np.ndarray, boxes: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Some of the masks: mask[:, :, chosen], of which only what lies in their boxes is copied.

    Args:
        mask: [H, W, N].
        boxes: [N, 4] of `extract_bboxes`.
        chosen: [n] numbers of instances.

    Returns:
        [H, W, n], a view of memory laid out [n, H, W].
    """
    output = empty_masks(*mask.shape[:2], len(chosen), mask.dtype)
    for target, number in enumerate(chosen):
        y1, x1, y2, x2 = boxes[number]
        output[y1:y2, x1:x2, target] = mask[y1:y2, x1:x2, number]
    return output


def sample_masks(mask: np.ndarray, rows: np.ndarray, columns: np.ndarray, output: np.ndarray) -> None:
    """output[y, x] = mask[rows[y], columns[x]], of each instance where it has its box.

    Args:
        mask: [H, W, N].
        rows: [h] indices, ascending (each may come several times).
        columns: [w], likewise.
        output: [h or more, w or more, N] zeros, to be written to.
    """
    for source, target in zip(instances_first(mask), np.moveaxis(output, -1, 0), strict=True):
        y1, x1, y2, x2 = _box(source)
        inside_y = slice(*np.searchsorted(rows, (y1, y2)))
        inside_x = slice(*np.searchsorted(columns, (x1, x2)))
        lines = source[y1:y2, x1:x2].take(rows[inside_y] - y1, axis=0)
        target[inside_y, inside_x] = lines.take(columns[inside_x] - x1, axis=1)


def three_axes(mask: np.ndarray) -> np.ndarray:
    """`mask` as an array, if it has the axes [H, W, N].

    Raises:
        ValueError: it has not.
    """
    mask = np.asarray(mask)
    if mask.ndim != 3:
        raise ValueError(f"Masks must be [H, W, N]. Received shape: {mask.shape}.")
    return mask
