"""ROIAlign as the paper has it (Mask R-CNN, section 3): each bin is the mean of some bilinear samples in it.

Letters: B images, R boxes, N boxes of all images, C channels. Boxes (y1, x1, y2, x2), *normalized* on the "image" grid.

Outside a map its border goes on for one cell; samples beyond count as 0, as in torchvision. The first sample of every
bin is a crop, so is the second, and these are added up: no more memory is taken than for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from mrcnn.ops.nms import is_portable
from mrcnn.ops.roi_align import (
    Samples,
    crop_tensorflow,
    each_its_own,
    pixels_of,
    placed,
    pyramid_levels,
    sample_bilinear,
)

# Where the number of samples cannot depend on the boxes, there are so many along each axis of a bin at most: enough for
# a box of 56 cells and 7 bins. A longer one, whose shape is extreme, has samples more than a cell apart.
MOST_SAMPLES = 8

# Crops of boxes: (which of the N, or None for all; where in their bins the rows lie, and the columns) ->
# [those, crop height, crop width, C] float32. A place is from 0 to 1, a number or [those].
_Crop = Callable[[Any, Any, Any], Any]


def sampled_roi_align(
    boxes: Any,
    image_area: Any,
    feature_maps: Sequence[Any],
    crop_size: Sequence[int],
    image: Any = None,
    *,
    aligned: bool = True,
    sampling_ratio: int = 2,
    level_rule: str = "floor",
) -> Any:
    """Crop each box out of the pyramid level of its size.

    Args:
        boxes, image_area, feature_maps, crop_size, image: see `pyramid_roi_align`.
        aligned: True: the centers of cells lie at halves. False: at whole numbers, and boxes are at least a cell wide,
            as in the first implementations.
        sampling_ratio: samples in each bin along each axis; 0: as many as it has cells, on JAX and in what is portable
            MOST_SAMPLES at most.
        level_rule: see `pyramid_levels`.

    Returns:
        [B, R, crop height, crop width, C].
    """
    boxes = ops.stop_gradient(boxes)
    levels = pyramid_levels(boxes, image_area, first=2, last=1 + len(feature_maps), rule=level_rule) - 2
    shape = ops.shape(levels)
    image = each_its_own(feature_maps) if image is None else image
    image = ops.reshape(ops.broadcast_to(image, shape), (-1,))
    levels, boxes = ops.reshape(levels, (-1,)), ops.reshape(boxes, (-1, 4))
    offsets, heights, widths = placed(image, levels, [ops.shape(feature_map) for feature_map in feature_maps])
    tall = _Bins(boxes[:, 0], boxes[:, 2], heights, crop_size[0], aligned)
    wide = _Bins(boxes[:, 1], boxes[:, 3], widths, crop_size[1], aligned)

    if keras.backend.backend() == "tensorflow" and not is_portable():
        maps = [_with_border(feature_map) for feature_map in feature_maps]

        def crop(chosen: Any, row: Any, column: Any) -> Any:
            rows, columns = tall.only(chosen), wide.only(chosen)
            (top, bottom), (left, right) = rows.in_map_with_border(row), columns.in_map_with_border(column)
            corners = ops.stack([top, left, bottom, right], axis=-1)
            found = crop_tensorflow(corners, _only(image, chosen), _only(levels, chosen), maps, crop_size)
            return ops.cast(found, "float32")
    else:
        values = pixels_of(feature_maps)

        def crop(chosen: Any, row: Any, column: Any) -> Any:
            rows, columns = tall.only(chosen).samples(row), wide.only(chosen).samples(column)
            found = sample_bilinear(values, _only(offsets, chosen), _only(widths, chosen), rows, columns)
            return ops.cast(found, "float32")

    if sampling_ratio:
        places = [(index + 0.5) / sampling_ratio for index in range(sampling_ratio)]
        total = sum(crop(None, row, column) for row in places for column in places) / sampling_ratio**2
    else:
        total = _adaptive()(crop, tall.cells_in_a_bin(), wide.cells_in_a_bin(), (*crop_size, feature_maps[0].shape[-1]))
    return ops.cast(ops.reshape(total, (*shape, *crop_size, feature_maps[0].shape[-1])), feature_maps[0].dtype)


class _Bins:
    """The bins of boxes along one axis, in cells of their maps.

    Args:
        start, end: [N] of the boxes, normalized.
        size: [N] int32, cells of each box's map.
        count: bins.
        aligned: see `sampled_roi_align`.
    """

    def __init__(self, start: Any, end: Any, size: Any, count: int, aligned: bool) -> None:
        cells = ops.cast(size, "float32")
        extent = (end - start) * cells
        self.start = start * cells - (0.5 if aligned else 0.0)
        self.step = (extent if aligned else ops.maximum(extent, 1.0)) / count
        self.size, self.count = size, count

    def only(self, chosen: Any) -> _Bins:
        """Those of some of the boxes."""
        if chosen is None:
            return self
        few = object.__new__(_Bins)
        few.start, few.step, few.size = (_only(x, chosen) for x in (self.start, self.step, self.size))
        few.count = self.count
        return few

    def cells_in_a_bin(self) -> Any:
        """[N] int32, rounded up, at least 1. NaN, of a training that diverged, is 1."""
        return ops.cast(ops.where(self.step > 1.0, ops.ceil(self.step), 1.0), "int32")

    def samples(self, place: Any) -> Samples:
        """The samples that lie at `place`, from 0 to 1, in each bin."""
        first = self.start + place * self.step
        position = first[..., None] + ops.arange(self.count, dtype="float32") * self.step[..., None]
        cells = ops.cast(self.size, "float32")[..., None]
        inside = ops.logical_and(position >= -1.0, position <= cells)
        position = ops.where(inside, ops.clip(position, 0.0, cells - 1.0), 0.0)
        before = ops.cast(ops.floor(position), "int32")
        after = ops.minimum(before + 1, self.size[..., None] - 1)
        return before, after, position - ops.cast(before, "float32"), inside

    def in_map_with_border(self, place: Any) -> tuple[Any, Any]:
        """Where TensorFlow's crop has to begin and end for these samples, in a map with a border of one cell."""
        first = self.start + place * self.step + 1.0
        last = ops.cast(self.size, "float32") + 1.0
        return first / last, (first + (self.count - 1) * self.step) / last


def _only(values: Any, chosen: Any) -> Any:
    return values if chosen is None else ops.take(values, chosen, axis=0)


def _with_border(feature_map: Any) -> Any:
    """A map [B, H, W, C] with its outermost cells repeated on all sides."""
    return ops.pad(feature_map, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="symmetric")


def _adaptive() -> Callable[[_Crop, Any, Any, Sequence[int]], Any]:
    """The mean of tall x wide samples in each bin, which differ from box to box: (crop, tall [N], wide [N], shape of a
    crop) -> [N, *shape]."""
    backend = keras.backend.backend()
    if is_portable() or backend == "jax":
        return _adaptive_static
    return _adaptive_tensorflow if backend == "tensorflow" else _adaptive_torch


def _adaptive_static(crop: _Crop, tall: Any, wide: Any, shape: Sequence[int]) -> Any:
    """All boxes take part in every sample; in those that they have not, with no weight."""
    tall, wide = ops.minimum(tall, MOST_SAMPLES), ops.minimum(wide, MOST_SAMPLES)
    rows, columns = ops.cast(tall, "float32"), ops.cast(wide, "float32")

    def add(index: Any, total: Any) -> Any:
        row, column = index // MOST_SAMPLES, index % MOST_SAMPLES
        has = ops.logical_and(row < tall, column < wide)
        weight = ops.where(has, 1.0 / (rows * columns), 0.0)[:, None, None, None]
        places = ((ops.cast(x, "float32") + 0.5) / count for x, count in ((row, rows), (column, columns)))
        return total + weight * crop(None, *places)

    if keras.backend.backend() == "jax":
        import jax

        add = jax.checkpoint(add)
    return ops.fori_loop(0, MOST_SAMPLES**2, add, ops.zeros((ops.shape(tall)[0], *shape), "float32"))


def _adaptive_torch(crop: _Crop, tall: Any, wide: Any, shape: Sequence[int]) -> Any:
    import torch

    total = torch.zeros((len(tall), *shape), device=tall.device)
    if not len(tall):
        return total
    for row in range(int(tall.max())):
        for column in range(int(wide.max())):
            chosen = torch.nonzero((tall > row) & (wide > column))[:, 0]
            if len(chosen):
                rows, columns = tall[chosen], wide[chosen]
                found = crop(chosen, (row + 0.5) / rows, (column + 0.5) / columns)
                total = total.index_add(0, chosen, found / (rows * columns)[:, None, None, None])
    return total


def _adaptive_tensorflow(crop: _Crop, tall: Any, wide: Any, shape: Sequence[int]) -> Any:
    import tensorflow as tf

    across = tf.maximum(tf.reduce_max(wide), 1)
    rows, columns = tf.cast(tall, "float32"), tf.cast(wide, "float32")

    def add(index: Any, total: Any) -> tuple[Any, Any]:
        row, column = index // across, index % across
        chosen = tf.cast(tf.where((tall > row) & (wide > column))[:, 0], "int32")
        own_rows, own_columns = tf.gather(rows, chosen), tf.gather(columns, chosen)
        found = crop(
            chosen, (tf.cast(row, "float32") + 0.5) / own_rows, (tf.cast(column, "float32") + 0.5) / own_columns
        )
        found = found / (own_rows * own_columns)[:, None, None, None]
        return index + 1, tf.tensor_scatter_nd_add(total, chosen[:, None], found)

    count = tf.maximum(tf.reduce_max(tall), 1) * across
    start = (tf.constant(0), tf.zeros((tf.shape(tall)[0], *shape)))
    _, total = tf.while_loop(lambda index, total: index < count, add, start, parallel_iterations=1)
    return total
