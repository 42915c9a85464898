"""Masks of instances: boxes around them, mini-masks for training, predicted ones pasted into the image.

Letters: H, W image size; N instances; h, w mini-mask size. Boxes are int (y1, x1, y2, x2) in *pixels*, y2 and
x2 one outside. Masks of an image are [H, W, N] bool.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np

from mrcnn.data.mask_boxes import extract_bboxes, three_axes
from mrcnn.data.resizing import resize, sample_positions

__all__ = [
    "MASK_THRESHOLD",
    "cropped_masks",
    "expand_mask",
    "extract_bboxes",
    "mask_in_box",
    "minimize_mask",
    "paste_masks",
    "polygons_of_crop",
    "unmold_mask",
]

# A pixel belongs to a predicted instance from this probability on, in float32: a double half-way to the next
# lower float32 rounds up to it. So pixels of exactly one half do not hang on the last bit of a sum.
MASK_THRESHOLD = 0.5
_THRESHOLD = MASK_THRESHOLD - 2.0**-26

# Pixels that a box's side counts as at least, so that nothing is divided by 0.
_LEAST_SIDE = 1e-6

# From so many pixels in a strip on, one strip is worked on at a time.
_LARGE_STRIP = 1 << 13


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
    mask = three_axes(mask)
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
    mini_mask = three_axes(mini_mask)
    _same_count(bbox, mini_mask)
    masks = np.zeros((mini_mask.shape[2], *image_shape[:2]), bool)
    for n, box in enumerate(np.asarray(bbox)[:, :4].tolist()):
        (target, source), (height, width) = _visible(box, masks.shape[1:]), (box[2] - box[0], box[3] - box[1])
        if target is not None:
            masks[n][target] = (resize(mini_mask[:, :, n].astype(bool), (height, width)) > 0.5)[source]
    return np.moveaxis(masks, 0, -1)


def mask_in_box(mask: np.ndarray, height: int, width: int, rows: slice = slice(None)) -> np.ndarray:
    """A predicted mask at the size of its box of whole pixels, and no larger: what to keep when memory matters.

    Bilinear as `mrcnn.data.resizing.resize` is.

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
    # legacy: at the border values sink towards the zeros outside the mask, but never below its smallest.
    if mask.min() >= _THRESHOLD:
        return np.ones((len(first), width), bool)
    return _sampled_mask(mask, (first, fraction), sample_positions(mask.shape[1], width))


def _sampled_mask(
    mask: np.ndarray, rows: tuple[np.ndarray, np.ndarray], columns: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Where a mask reaches the threshold at some rows and columns, between zeros all around it.

    No matrix product: a threaded one of this size, beside other work
    that keeps all cores busy, was measured to take 30 to 90 times as long.

    Args:
        mask: [h, w] float64, probabilities.
        rows: of each row wanted, rising, the row of the mask below it, from -1 to h - 1, and the fraction of the way
            from there to the next.
        columns: likewise.

    Returns:
        [rows, columns] bool.
    """
    (first, fraction), (column, column_fraction) = rows, columns
    padded = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2))
    padded[1:-1, 1:-1] = mask
    lines = padded.take(column + 1, axis=1) * (1 - column_fraction)
    lines += padded.take(column + 2, axis=1) * column_fraction
    # Output rows between the same two lines of the mask go together, as a strip: with these lines a and b, a row is
    # inside where a + fraction x (b - a) reaches the threshold.
    starts = np.flatnonzero(np.concatenate([[True], first[1:] != first[:-1]])) if len(first) else first
    upper = lines[first[starts] + 1]
    slope, needed = lines[first[starts] + 2] - upper, _THRESHOLD - upper
    return _strips_inside(fraction, starts, slope, needed)


def _strips_inside(fraction: np.ndarray, starts: np.ndarray, slope: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """Where fraction x slope >= needed, of rows [h] in S strips that begin at `starts` and share `slope` and `needed`
    [S, w] each -> [h, w] bool."""
    counts = np.diff(starts, append=len(fraction))
    height, width, tallest = len(fraction), slope.shape[1], max(counts, default=0)
    if tallest * width > _LARGE_STRIP:
        inside = np.empty((height, width), bool)
        for start, count, rise, limit in zip(starts, counts, slope, needed, strict=True):
            of_strip = slice(start, start + count)
            np.greater_equal(fraction[of_strip, None] * rise, limit, out=inside[of_strip])
        return inside
    # Strips of a small box cost more in calls than in sums: all get as many rows as the tallest and are worked on
    # together; the rows that are none are left out in the end.
    slot = np.repeat(np.arange(len(starts)) * tallest - starts, counts) + np.arange(height)
    fractions = np.zeros((len(starts), tallest, 1))
    fractions.ravel()[slot] = fraction
    inside = fractions * slope[:, None] >= needed[:, None]
    return inside.reshape(-1, width).take(slot, axis=0)


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


def paste_masks(masks: np.ndarray, boxes: np.ndarray, image_shape: Sequence[int], paste: str = "legacy") -> np.ndarray:
    """Predicted masks at their places in the image, touching no pixel outside their boxes.

    The result is asked for as zeroed memory, which the system maps where it is written to.

    Args:
        masks: [N, h, w] float, probabilities.
        boxes: [N, 4] int. What lies outside the image is left out.
        image_shape: (H, W, ...).
        paste: see `cropped_masks`.

    Returns:
        [N, H, W] bool.
    """
    return paste_crops(cropped_masks(masks, boxes, image_shape, paste), len(masks), image_shape)


def paste_crops(crops: Iterable[tuple[np.ndarray, int, int]], count: int, image_shape: Sequence[int]) -> np.ndarray:
    """Parts of masks at their places in the image, in zeroed memory as in `paste_masks`.

    Args:
        crops: `count` of them: the part [h, w] bool, which lies within the image, and its first row and column there.
        count: N.
        image_shape: (H, W, ...).

    Returns:
        [N, H, W] bool.
    """
    output = np.zeros((count, int(image_shape[0]), int(image_shape[1])), bool)
    for full, (crop, top, left) in zip(output, crops, strict=True):
        full[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return output


def cropped_masks(
    masks: np.ndarray, boxes: np.ndarray, image_shape: Sequence[int], paste: str = "legacy"
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Predicted masks without the image around them, one after the other.

    Args:
        masks: [N, h, w] float, probabilities.
        boxes: [N, 4], int for "legacy". What lies outside the image is left out.
        image_shape: (H, W, ...).
        paste: "legacy": see `mask_in_box`. "aligned": the mask covers its box of fractions of pixels, and a pixel takes
            the value at its center, as in detectron2. "torchvision": mask and box are enlarged by a cell on each side,
            the box is cut to whole pixels and made one pixel larger, as in torchvision.

    Yields:
        N times: the part of the mask [h', w'] bool that lies in the image, its first row and its first column there.
        Without rows and columns where a box lies outside.
    """
    if paste != "legacy":
        yield from (_PLACED[paste](mask, box, image_shape) for mask, box in zip(masks, boxes, strict=True))
        return
    for mask, box in zip(masks, np.asarray(boxes).tolist(), strict=True):
        target, source = _visible(box, image_shape[:2])
        if target is None:
            yield np.zeros((0, 0), bool), 0, 0
        else:
            crop = mask_in_box(mask, box[2] - box[0], box[3] - box[1], rows=source[0])[:, source[1]]
            yield crop, target[0].start, target[1].start


def _aligned(mask: np.ndarray, box: Sequence[float], image_shape: Sequence[int]) -> tuple[np.ndarray, int, int]:
    """See `cropped_masks`."""
    mask = np.asarray(mask, np.float64)
    samples, starts = [], []
    for axis in (0, 1):
        low, high, cells = float(box[axis]), float(box[axis + 2]), mask.shape[axis]
        start, end = max(0, math.floor(low)), min(int(image_shape[axis]), math.ceil(high))
        position = (np.arange(start, end) + 0.5 - low) * (cells / max(high - low, _LEAST_SIDE)) - 0.5
        samples.append(_below(position, cells))
        starts.append(start)
    if not len(samples[0][0]) or not len(samples[1][0]):
        return np.zeros((0, 0), bool), 0, 0
    return _sampled_mask(mask, *samples), *starts


def _torchvision(mask: np.ndarray, box: Sequence[float], image_shape: Sequence[int]) -> tuple[np.ndarray, int, int]:
    """See `cropped_masks`."""
    mask = np.asarray(mask, np.float64)
    corners = np.asarray(box, np.float32)
    samples, starts = [], []
    for axis in (0, 1):
        cells = mask.shape[axis] + 2
        center = (corners[axis + 2] + corners[axis]) * np.float32(0.5)
        reach = (corners[axis + 2] - corners[axis]) * np.float32(0.5) * np.float32(cells / mask.shape[axis])
        low, high = int(center - reach), int(center + reach)  # towards 0
        side = max(high - low + 1, 1)
        start, end = max(low, 0), min(high + 1, int(image_shape[axis]))
        position = ((np.arange(start, end) - low) + 0.5) * (cells / side) - 1.5
        samples.append(_below(position, mask.shape[axis]))
        starts.append(start)
    if not len(samples[0][0]) or not len(samples[1][0]):
        return np.zeros((0, 0), bool), 0, 0
    return _sampled_mask(mask, *samples), *starts


def _below(position: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """The cell before each position, from -1 to cells - 1, and the fraction of the way to the next. What lies further
    out than the zeros around a mask is taken to be there."""
    position = position.clip(-1, cells)
    first = np.minimum(np.floor(position), cells - 1)
    return first.astype(np.intp), position - first


_PLACED = {"aligned": _aligned, "torchvision": _torchvision}


def polygons_of_crop(crop: np.ndarray, top: int, left: int) -> list[np.ndarray]:
    """The outlines of a mask.

    They run along the centers of the outermost pixels, and around a hole along those of the pixels that bound it.
    Filled together by the even-odd rule, as `cv2.fillPoly(image, polygons, 1)` does it, they are the mask again,
    exactly, holes and all. Filled one by one, as COCO fills polygons, holes are filled up.

    Args:
        crop: [h, w] bool: the part of the image that the mask lies in.
        top: first row of the crop in the image.
        left: its first column.

    Returns:
        For each part, and each hole, its corners [M, (x, y)] int32 in pixels of the image; one or two of them where
        the part is as small as that.
    """
    if crop.size == 0:
        return []
    pixels = np.ascontiguousarray(crop, bool).view(np.uint8)
    contours, _ = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top))
    return [contour[:, 0] for contour in contours]


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


def _same_count(bbox: np.ndarray, mask: np.ndarray) -> None:
    if np.ndim(bbox) != 2 or len(bbox) != mask.shape[2] or np.shape(bbox)[1] < 4:
        raise ValueError(f"{mask.shape[2]} masks need boxes [{mask.shape[2]}, 4]. Received: {np.shape(bbox)}.")
