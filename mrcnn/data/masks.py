"""Masks of instances: boxes around them, mini-masks for training, predicted ones pasted into the image.

Letters: H, W image size; N instances; h, w mini-mask size. Boxes are int (y1, x1, y2, x2) in *pixels*, y2 and
x2 one outside. Masks of an image are [H, W, N] bool.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mrcnn.data.resizing import resize, sample_positions

# A pixel belongs to a predicted instance from this probability on, in float32: a double half-way to the next
# lower float32 rounds up to it. So pixels of exactly one half do not hang on the last bit of a sum.
MASK_THRESHOLD = 0.5
_THRESHOLD = MASK_THRESHOLD - 2.0**-26


def extract_bboxes(mask: np.ndarray) -> np.ndarray:
    """The tightest boxes around masks.

    Args:
        mask: [H, W, N]; what is not 0 belongs to the instance.

    Returns:
        [N, 4] int32; zeros for an empty mask.
    """
    mask = _three_axes(mask)
    boxes = np.zeros((mask.shape[2], 4), np.int32)
    if mask.strides[2] == mask.itemsize:
        rows, columns = _any_of_columns(mask).T, mask.any(axis=0).T
    else:
        rows = [mask[:, :, n].any(axis=1) for n in range(len(boxes))]
        columns = [mask[:, :, n].any(axis=0) for n in range(len(boxes))]
    for box, row, column in zip(boxes, rows, columns, strict=True):
        y, x = np.flatnonzero(row), np.flatnonzero(column)
        if len(y):
            box[:] = y[0], x[0], y[-1] + 1, x[-1] + 1
    return boxes


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


def minimize_mask(bbox: np.ndarray, mask: np.ndarray, mini_shape: Sequence[int]) -> np.ndarray:
    """Cut each mask to its box and resize it: a small stand-in for the whole. `expand_mask` is the way back.

    Args:
        bbox: [N, 4 or more], boxes within the image.
        mask: [H, W, N].
        mini_shape: (h, w).

    Returns:
        [h, w, N] bool. A value of exactly one half counts as outside.

    Raises:
        ValueError: a box without a pixel in the image.
    """
    mask = _three_axes(mask)
    _same_count(bbox, mask)
    mini_mask = np.zeros((*mini_shape[:2], mask.shape[2]), bool)
    for n, (y1, x1, y2, x2) in enumerate(np.asarray(bbox)[:, :4].tolist()):
        inside = mask[y1:y2, x1:x2, n].astype(bool)
        if inside.size == 0:
            raise ValueError(
                f"Box {n} has no pixel in the image of {mask.shape[0]} x {mask.shape[1]} (height x width): "
                f"(y1, x1, y2, x2) = {(y1, x1, y2, x2)}. Drop instances with empty masks first."
            )
        mini_mask[:, :, n] = resize(inside, mini_shape) > 0.5
    return mini_mask


def expand_mask(bbox: np.ndarray, mini_mask: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Mini-masks back at their places in the image; what `minimize_mask` rounded away stays lost.

    Args:
        bbox: [N, 4 or more]. What lies outside the image is left out.
        mini_mask: [h, w, N].
        image_shape: (H, W, ...).

    Returns:
        [H, W, N] bool.
    """
    mini_mask = _three_axes(mini_mask)
    _same_count(bbox, mini_mask)
    masks = np.zeros((mini_mask.shape[2], *image_shape[:2]), bool)
    for n, box in enumerate(np.asarray(bbox)[:, :4].tolist()):
        (target, source), (height, width) = _visible(box, masks.shape[1:]), (box[2] - box[0], box[3] - box[1])
        if target is not None:
            masks[n][target] = (resize(mini_mask[:, :, n].astype(bool), (height, width)) > 0.5)[source]
    return np.moveaxis(masks, 0, -1)


def mask_in_box(mask: np.ndarray, height: int, width: int, rows: slice = slice(None)) -> np.ndarray:
    """A predicted mask at the size of its box, and no larger: what to keep when memory matters.

    Bilinear as `mrcnn.data.resizing.resize` is. No matrix product: a threaded one of this size, beside other work
    that keeps all cores busy, was measured to take 30 to 90 times as long.

    Args:
        mask: [h, w] float, probabilities.
        height: of the box, in pixels, at least 1.
        width: of the box.
        rows: of the box, without a step; the others are not computed.

    Returns:
        [height (or as many as `rows` picks), width] bool.
    """
    mask = np.asarray(mask, np.float64)
    first, fraction = (values[rows] for values in sample_positions(mask.shape[0], height))
    inside = np.empty((len(first), width), bool)
    # legacy: at the border values sink towards the zeros outside the mask, but never below its smallest.
    if mask.min() >= _THRESHOLD:
        inside[...] = True
        return inside
    column, column_fraction = sample_positions(mask.shape[1], width)
    mask = np.pad(mask, 1)
    lines = mask[:, column + 1] * (1 - column_fraction) + mask[:, column + 2] * column_fraction
    # Output rows between the same two lines of the mask go together: with these lines a and b, a row is inside
    # where a + fraction x (b - a) reaches the threshold.
    starts = np.flatnonzero(np.diff(first, prepend=-2)) if len(first) else first
    for start, end in zip(starts, [*starts[1:], len(first)], strict=True):
        upper, lower = lines[first[start] + 1], lines[first[start] + 2]
        rise = fraction[start:end, None] * (lower - upper)
        np.greater_equal(rise, _THRESHOLD - upper, out=inside[start:end])
    return inside


def unmold_mask(mask: np.ndarray, bbox: Sequence[int], image_shape: Sequence[int]) -> np.ndarray:
    """One predicted mask at its place in the image.

    Args:
        mask: [h, w] float, probabilities.
        bbox: (y1, x1, y2, x2). What lies outside the image is left out.
        image_shape: (H, W, ...).

    Returns:
        [H, W] bool.
    """
    return paste_masks(np.asarray(mask)[None], np.asarray(bbox)[None], image_shape)[0]


def paste_masks(masks: np.ndarray, boxes: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Predicted masks at their places in the image, touching no pixel outside their boxes.

    The result is asked for as zeroed memory, which the system maps where it is written to.

    Args:
        masks: [N, h, w] float, probabilities.
        boxes: [N, 4] int. What lies outside the image is left out.
        image_shape: (H, W, ...).

    Returns:
        [N, H, W] bool.
    """
    output = np.zeros((len(masks), int(image_shape[0]), int(image_shape[1])), bool)
    for mask, box, full in zip(masks, np.asarray(boxes).tolist(), output, strict=True):
        y1, x1, y2, x2 = box
        target, source = _visible(box, full.shape)
        if target is not None:
            full[target] = mask_in_box(mask, y2 - y1, x2 - x1, rows=source[0])[:, source[1]]
    return output


def _visible(
    box: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | tuple[None, None]:
    """Slices of the image and of the box where both lie; (None, None) where they share no pixel."""
    y1, x1, y2, x2 = box
    top, left, bottom, right = max(y1, 0), max(x1, 0), min(y2, shape[0]), min(x2, shape[1])
    if top >= bottom or left >= right:
        return None, None
    return (
        (slice(top, bottom), slice(left, right)),
        (slice(top - y1, bottom - y1), slice(left - x1, right - x1)),
    )


def _three_axes(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 3:
        raise ValueError(f"Masks must be [H, W, N]. Received shape: {mask.shape}.")
    return mask


def _same_count(bbox: np.ndarray, mask: np.ndarray) -> None:
    if np.ndim(bbox) != 2 or len(bbox) != mask.shape[2] or np.shape(bbox)[1] < 4:
        raise ValueError(f"{mask.shape[2]} masks need boxes [{mask.shape[2]}, 4]. Received: {np.shape(bbox)}.")
