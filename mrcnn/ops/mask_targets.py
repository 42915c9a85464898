"""What a mask is inside of boxes, cell by cell: the share of each cell that it covers, by ROIAlign with as many samples
as a cell has pixels.

Letters: N boxes, M masks, h, w size of a mask. Boxes (y1, x1, y2, x2), *normalized* to their mask, on the "image" grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

# Samples lie more than half a pixel apart, where there are several; so many can lie within a pixel of one.
_NEAR = 4


def covered_shares(masks: Any, chosen: Any, boxes: Any, size: Sequence[int], aligned: bool, border: bool = True) -> Any:
    """Crops of masks.

    Args:
        masks: [M, h, w], bool or 0 and 1.
        chosen: [N] int32, the mask of each box.
        boxes: [N, 4] float32.
        size: (height, width) of the crops.
        aligned: whether the centers of pixels lie at halves; else at whole numbers, and boxes are a pixel wide at
            least.
        border: whether outside of a mask its border goes on for a pixel, or there is nothing.

    Returns:
        [N, height, width] float32, from 0 to 1. No gradient flows.
    """
    boxes = ops.stop_gradient(boxes)
    height, width = ops.shape(masks)[1:3]

    def crop(arguments: tuple[Any, Any]) -> Any:
        index, box = arguments
        mask = ops.cast(ops.take(masks, index, axis=0), "float32")
        rows = _weights(box[0], box[2], height, size[0], aligned, border)
        columns = _weights(box[1], box[3], width, size[1], aligned, border)
        return ops.matmul(ops.matmul(rows, mask), ops.transpose(columns))

    return ops.map(crop, (chosen, boxes))


def _weights(start: Any, end: Any, pixels: Any, count: int, aligned: bool, border: bool) -> Any:
    """How much each pixel along an axis counts in each of `count` cells between two scalars: [count, pixels]."""
    extent = (end - start) * ops.cast(pixels, "float32")
    start = start * ops.cast(pixels, "float32") - (0.5 if aligned else 0.0)
    cell = (extent if aligned else ops.maximum(extent, 1.0)) / count
    samples = ops.maximum(ops.ceil(cell), 1.0)
    step = cell / samples
    first = (start + ops.arange(count, dtype="float32") * cell)[:, None]  # where the cells begin
    pixel = ops.cast(ops.arange(pixels, dtype="int32"), "float32")[None]
    # The first sample of a cell that is less than a pixel away.
    nearest = ops.maximum(ops.ceil((pixel - 1.0 - first) / ops.maximum(step, 1e-6) - 0.5), 0.0)
    total = ops.zeros_like(nearest)
    last = ops.cast(pixels, "float32") - 1.0
    for offset in range(_NEAR):
        sample = nearest + offset
        position = first + (sample + 0.5) * step
        weight = ops.maximum(1.0 - ops.abs(position - pixel), 0.0)
        if border:
            beyond = ops.logical_or(
                ops.logical_and(pixel == 0, position < 0), ops.logical_and(pixel == last, position > last)
            )
            weight = ops.where(ops.logical_and(beyond, ops.abs(position - pixel) <= 1.0), 1.0, weight)
        total = total + ops.where(sample < samples, weight, 0.0)
    return total / samples
