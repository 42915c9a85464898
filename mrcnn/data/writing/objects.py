"""The lines of a dataset's objects, whose masks are COCO's polygons or run lengths.

Letters: H, W image size; M points, (x, y) in *pixels*. Polygons go through as they are; run lengths become lines
through the outermost pixels, see `mrcnn.data.outlines`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.data.outlines import joined, one_outline, part_outlines
from mrcnn.data.rle import decode_crop


def part_lines(segmentation: Any) -> list[np.ndarray]:
    """The parts of an object as lines [M, 2]: its polygons; of run lengths those of the mask, none if it is empty."""
    if isinstance(segmentation, list):
        return [_points(polygon) for polygon in segmentation]
    return part_outlines(*decode_crop(segmentation))


def one_line(segmentation: Any, height: int, width: int) -> tuple[np.ndarray, bool]:
    """An object as one line within the image.

    A polygon goes through as it is. Several are joined by seams if they lie apart; where they may overlap, and where
    one leaves the image, the mask is filled as COCO does it and its own line is taken.

    Returns:
        The points [M, 2], none for an object without a pixel; and whether it is no longer exactly what it was.
    """
    if isinstance(segmentation, list):
        polygons = [_points(polygon) for polygon in segmentation]
        boxes = np.array([[*points.min(axis=0), *points.max(axis=0)] for points in polygons])
        inside = boxes.min() >= 0 and boxes[:, 2].max() <= width and boxes[:, 3].max() <= height
        if inside and len(polygons) == 1:
            return polygons[0], False
        if inside and _apart(boxes):
            return joined(polygons), True
    line, parts = one_outline(*decode_crop(run_lengths_of(segmentation, height, width)))
    return line, parts != 1 or isinstance(segmentation, list)


def run_lengths_of(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """A segmentation as compressed run lengths {"size": [H, W], "counts": str}, polygons filled as COCO does it."""
    from pycocotools import mask as coco_mask

    if isinstance(segmentation, list):
        polygons = [_points(polygon).ravel().tolist() for polygon in segmentation]
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
    if isinstance(segmentation["counts"], list):
        rle = coco_mask.frPyObjects(dict(segmentation), height, width)
        return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
    return segmentation


def _points(polygon: Sequence[float]) -> np.ndarray:
    return np.asarray(polygon, np.float64).reshape(-1, 2)


def _apart(boxes: np.ndarray) -> bool:
    """Whether no two of the boxes [N, (x1, y1, x2, y2)] touch."""
    ordered = boxes[boxes[:, 0].argsort()]
    for n, (_, y1, x2, y2) in enumerate(ordered):
        later = ordered[n + 1 :]
        if ((later[:, 0] <= x2) & (later[:, 1] <= y2) & (later[:, 3] >= y1)).any():
            return False
    return True
