"""COCO's segmentations, checked and turned into masks: polygons, or run lengths, compressed or not.

Letters: H, W sides of an image in pixels. The format: https://cocodataset.org/#format-data, "object detection".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.data.content import Kind, short
from mrcnn.data.rle import decode_crop, decompress, encode_masks

# Polygon points may lie outside the image, but the time to fill a polygon grows with its outline.
_FARTHEST = 10


class SegmentationError(ValueError):
    """A segmentation that is not well formed, or is for another size. `kind` tells which of `Kind` it is."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple:
        """As it goes from one process to another."""
        return type(self), (self.kind, str(self))


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A mask [height, width] bool from COCO's polygons (filled as pycocotools does) or run lengths,
    compressed or not.

    Raises:
        SegmentationError: a segmentation that is not well formed, or is for another size.
    """
    crop, top, left = segmentation_crop(segmentation, height, width)
    mask = np.zeros((height, width), bool)
    mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return mask


def segmentation_crop(segmentation: Any, height: int, width: int) -> tuple[np.ndarray, int, int]:
    """The part of that mask that its pixels lie in, made without the rest.

    Returns:
        The mask [h, w] bool within its tightest box, the box's first row and its first column. Without rows and columns
        where the mask is empty.

    Raises:
        SegmentationError: as `decode_segmentation`.
    """
    check_segmentation(segmentation, height, width)
    if isinstance(segmentation, dict):
        return decode_crop(segmentation)
    from pycocotools import mask as coco_mask

    # Where pycocotools rounds hangs on a point's place in the image, so they are given to it as they are. It is its
    # decoding that takes the time, of all pixels of the image.
    polygons = [np.asarray(polygon, np.float64) for polygon in segmentation]
    return decode_crop(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))


def check_segmentation(segmentation: Any, height: int, width: int) -> None:
    """Raise SegmentationError, with what is wrong, unless `segmentation` is one of an image of this size.

    Polygons may be lists or arrays of numbers.
    """
    if isinstance(segmentation, dict):
        run_lengths(segmentation, height, width)
        return
    if not isinstance(segmentation, list):
        raise SegmentationError(
            Kind.ANNOTATION, f"must be a list of polygons or a run-length dict. Received: {short(segmentation)}."
        )
    if not segmentation:
        raise SegmentationError(Kind.EMPTY, "is an empty list. An instance needs a mask, a box is not enough.")
    if isinstance(segmentation[0], int | float):
        raise SegmentationError(
            Kind.ANNOTATION, "is a flat list of numbers. It must be a list of polygons: [[x1, y1, x2, y2, ...], ...]."
        )
    for polygon in segmentation:
        if isinstance(polygon, np.ndarray):
            polygon = polygon.tolist()  # sums of short lists are faster than numpy's
        if not isinstance(polygon, list) or not _all_numbers(polygon):
            raise SegmentationError(
                Kind.COORDINATES, f"has a polygon that is no list of finite numbers: {short(polygon)}."
            )
        if len(polygon) < 6 or len(polygon) % 2:
            raise SegmentationError(
                Kind.POINTS, f"has a polygon of {len(polygon)} numbers. It must be x, y of three points or more."
            )
        x, y = polygon[::2], polygon[1::2]
        farthest = max(max(x) / width, -min(x) / width, max(y) / height, -min(y) / height)
        if farthest > _FARTHEST:
            raise SegmentationError(
                Kind.COORDINATES,
                f"has a polygon that reaches {farthest:.0f} image sizes away. Are its points in pixels of this image "
                f"({width} wide, {height} high)?",
            )


def compact_segmentation(segmentation: Any) -> Any:
    """Polygons as arrays, which take a quarter of the memory of lists of numbers; all else as it is.

    What is no list of polygons is left for `check_segmentation` to complain of.
    """
    if not isinstance(segmentation, list):
        return segmentation
    return [compact_numbers(polygon) for polygon in segmentation]


def compact_numbers(values: Any) -> Any:
    """A list of finite numbers as an array; all else as it is."""
    if not isinstance(values, list) or not _all_numbers(values):
        return values
    return np.array(values, np.float64)


def join_segmentations(segmentations: Sequence[Any], height: int, width: int) -> Any:
    """One segmentation of all the pixels of several.

    Raises:
        SegmentationError: one is not well formed, or is for another size.
    """
    if all(isinstance(segmentation, list) for segmentation in segmentations):
        return [polygon for segmentation in segmentations for polygon in segmentation]
    joined = np.zeros((height, width), bool)
    for segmentation in segmentations:
        joined |= decode_segmentation(segmentation, height, width)
    return encode_masks(joined[:, :, None])[0]


def run_lengths(rle: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Lengths of the runs, of 0s and 1s in turn, down the columns, of run lengths that cover an image of this size.

    Raises:
        SegmentationError: they are not well formed.
    """
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, Sequence) or list(size) != [height, width]:
        raise SegmentationError(
            Kind.RUNS, f"has run lengths for size {short(size)}. Its image is [{height}, {width}] (height, width)."
        )
    if isinstance(counts, str | bytes):
        try:
            counts = decompress(counts)
        except ValueError:
            message = f"has compressed run lengths that cannot be read, or break off: {short(counts)}."
            raise SegmentationError(Kind.RUNS, message) from None
        is_fine, total = ((counts >= 0) & (counts <= height * width)).all(), int(counts.sum())
    elif isinstance(counts, list) and all(isinstance(c, int) and not isinstance(c, bool) for c in counts):
        is_fine, total = all(0 <= count <= height * width for count in counts), sum(counts)
    else:
        raise SegmentationError(
            Kind.RUNS, f"has run lengths that are no list of whole numbers or text: {short(counts)}."
        )
    if not is_fine or total != height * width:
        raise SegmentationError(
            Kind.RUNS,
            f"has run lengths that do not cover its image: they must be 0 or more and sum to {height * width}. "
            f"Received: {len(counts)} of them, sum {short(total)}.",
        )
    return np.asarray(counts, np.int64)


def _all_numbers(values: Any) -> bool:
    """Whether all are finite numbers; by one sum, for large files hold tens of millions of them."""
    try:
        return math.isfinite(sum(values))
    except (TypeError, OverflowError):
        return False
