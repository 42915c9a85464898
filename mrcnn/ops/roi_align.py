"""Features cut out of maps for boxes: bilinear crops, and the choice of a pyramid level.

Letters: B images, R boxes, C channels. Boxes (y1, x1, y2, x2), *normalized*.

`legacy:` the sampling grid is TensorFlow's crop-and-resize, one bilinear sample a bin with the corners of the box on
the centers of the outermost samples, and 0 outside the map. A box that ends on the very border of the map is decided
there by the last bit of a float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mrcnn.ops.boxes import LEVEL_SLACK
from mrcnn.ops.nms import is_portable


def pyramid_levels(boxes: Any, image_area: Any, first: int = 2, last: int = 5, rule: str = "round") -> Any:
    """The pyramid level of each box (Feature Pyramid Networks, equation 1, with k0 = 4 at 224 pixels).

    Args:
        boxes: [B, R, 4] normalized.
        image_area: [B, 1], height x width in pixels of the molded images.
        rule: "round": to the nearest level (`legacy:` on normalized sizes); "floor": down, as the paper has it.

    Returns:
        [B, R] int32, from `first` to `last`; boxes without area go to `first`.
    """
    if rule == "floor":
        height, width = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
        ratio = ops.sqrt(height * width * image_area) / 224.0
        level = ops.log(ops.where(ratio > 1e-30, ratio, 1e-30)) / math.log(2.0)  # NaN gives a level too
        return ops.cast(ops.clip(ops.floor(4 + level + LEVEL_SLACK), first, last), "int32")
    height, width = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    ratio = ops.sqrt(height * width) / (224.0 / ops.sqrt(image_area))
    # Written so that NaN, the sign of a training that diverged, gives a level too, for the losses to report it.
    level = ops.round(ops.log(ops.where(ratio > 1e-30, ratio, 1e-30)) / math.log(2.0)) + 4
    return ops.cast(ops.clip(level, first, last), "int32")


def crop_bilinear(
    values: Any,
    offsets: Any,
    heights: Any,
    widths: Any,
    boxes: Any,
    crop_size: Sequence[int],
    stride: Any = 1,
) -> Any:
    """Bilinear crops out of maps that lie one after the other in memory, each box out of a map of its own.

    Args:
        values: [V, C], the pixels of all maps, each map row by row. Booleans are read as 0 and 1, float32.
        offsets: [...] int32, where the map of each box begins in `values`.
        heights, widths: [...] int32, the size of each box's map.
        boxes: [..., 4] float32, normalized to their map. They get no gradient.
        crop_size: (height, width) of the crops.
        stride: steps in `values` from a pixel of a map to its neighbor: above 1 where maps lie interleaved.

    Returns:
        [..., crop height, crop width, C] of the dtype of `values`, float32 for booleans.
    """
    boxes = ops.stop_gradient(boxes)
    rows = _grid(boxes[..., 0], boxes[..., 2], heights, crop_size[0])
    columns = _grid(boxes[..., 1], boxes[..., 3], widths, crop_size[1])
    return sample_bilinear(values, offsets, widths, rows, columns, stride)


# Of a number of samples along one axis: the pixel before, the pixel after, the share of the latter, and whether the
# sample counts; each [..., count].
Samples = tuple[Any, Any, Any, Any]


def sample_bilinear(values: Any, offsets: Any, widths: Any, rows: Samples, columns: Samples, stride: Any = 1) -> Any:
    """As `crop_bilinear`, at given rows and columns [..., count] of each box's map."""
    (top, bottom, y_share, y_inside), (left, right, x_share, x_inside) = rows, columns
    width, offset = widths[..., None, None], offsets[..., None, None]
    dtype = keras.backend.standardize_dtype(values.dtype)
    dtype = "float32" if dtype == "bool" else dtype

    def at(row: Any, column: Any) -> Any:
        index = (row[..., :, None] * width + column[..., None, :]) * stride + offset
        return ops.cast(ops.take(values, index, axis=0), dtype)

    y_share = ops.cast(y_share, dtype)[..., :, None, None]
    x_share = ops.cast(x_share, dtype)[..., None, :, None]
    upper_left, lower_left = at(top, left), at(bottom, left)
    upper = upper_left + (at(top, right) - upper_left) * x_share
    lower = lower_left + (at(bottom, right) - lower_left) * x_share
    inside = ops.logical_and(y_inside[..., :, None], x_inside[..., None, :])[..., None]
    return ops.where(inside, upper + (lower - upper) * y_share, ops.zeros((), dtype))


def _grid(start: Any, end: Any, size: Any, count: int) -> Samples:
    """Samples along one axis, which count where they lie in the map. float32 throughout, in the order of TensorFlow's
    kernel."""
    last = ops.cast(size - 1, "float32")
    if count > 1:
        step = (end - start) * last / (count - 1)
        position = (start * last)[..., None] + ops.arange(count, dtype="float32") * step[..., None]
    else:
        position = (0.5 * (start + end) * last)[..., None]
    last = last[..., None]
    inside = ops.logical_and(position >= 0, position <= last)
    position = ops.where(inside, position, 0.0)
    before = ops.floor(position)
    return ops.cast(before, "int32"), ops.cast(ops.ceil(position), "int32"), position - before, inside


def pyramid_roi_align(
    boxes: Any, image_area: Any, feature_maps: Sequence[Any], crop_size: Sequence[int], image: Any = None
) -> Any:
    """Crop each box out of the pyramid level of its size, `legacy` grid.

    Args:
        boxes: [B, R, 4] normalized.
        image_area: [B, 1] pixels.
        feature_maps: P2, P3, ...: [B, H, W, C] each.
        crop_size: (height, width).
        image: None: the boxes of row b lie in image b. Or [..., R] int32, the image of each box of `boxes` [..., R, 4];
            `image_area` is then [..., R] too, or broadcasts to it.

    Returns:
        [B, R, crop height, crop width, C].
    """
    levels = pyramid_levels(boxes, image_area, first=2, last=1 + len(feature_maps)) - 2
    if image is None:
        image = each_its_own(feature_maps)
    if keras.backend.backend() == "tensorflow" and not is_portable():
        return crop_tensorflow(boxes, image, levels, feature_maps, crop_size)
    return _gathered(boxes, image, levels, feature_maps, crop_size)


def each_its_own(feature_maps: Sequence[Any]) -> Any:
    """The image of the boxes of each row: [B, 1] int32."""
    return ops.arange(ops.shape(feature_maps[0])[0], dtype="int32")[:, None]


def _gathered(boxes: Any, image: Any, levels: Any, feature_maps: Sequence[Any], crop_size: Sequence[int]) -> Any:
    """`levels` [B, R] from 0 on, the place of each box's map in `feature_maps`; the rest as for `pyramid_roi_align`."""
    offsets, heights, widths = placed(image, levels, [ops.shape(feature_map) for feature_map in feature_maps])
    return crop_bilinear(pixels_of(feature_maps), offsets, heights, widths, boxes, crop_size)


def pixels_of(feature_maps: Sequence[Any]) -> Any:
    """The pixels of all maps [B, H, W, C], one after the other: [V, C]."""
    channels = feature_maps[0].shape[-1]
    return ops.concatenate([ops.reshape(feature_map, (-1, channels)) for feature_map in feature_maps], axis=0)


def placed(image: Any, levels: Any, shapes: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Where each box's map begins among the pixels of all maps, its height and its width, [B, R] each. `shapes`: the
    maps'."""
    starts, start = [], 0
    for shape in shapes:
        starts.append(start)
        start = start + shape[0] * shape[1] * shape[2]
    heights = ops.take(ops.stack([ops.cast(s[1], "int32") for s in shapes]), levels)
    widths = ops.take(ops.stack([ops.cast(s[2], "int32") for s in shapes]), levels)
    offsets = ops.take(ops.stack([ops.cast(s, "int32") for s in starts]), levels) + image * heights * widths
    return offsets, heights, widths


def _spread(
    crops: Any, boxes: Any, offsets: Any, heights: Any, widths: Any, crop_size: Sequence[int], count: Any
) -> Any:
    """The gradient of `crop_bilinear`, TensorFlow's: what `crops` [..., crop height, crop width, C] say, added up for
    each of the `count` pixels of all maps, [count, C] float32."""
    import tensorflow as tf

    top, bottom, y_share, y_inside = _grid(boxes[..., 0], boxes[..., 2], heights, crop_size[0])
    left, right, x_share, x_inside = _grid(boxes[..., 1], boxes[..., 3], widths, crop_size[1])
    y_inside, x_inside = tf.cast(y_inside, "float32"), tf.cast(x_inside, "float32")
    total = tf.zeros((), "float32")
    for row, y_weight in ((top, y_inside * (1.0 - y_share)), (bottom, y_inside * y_share)):
        for column, x_weight in ((left, x_inside * (1.0 - x_share)), (right, x_inside * x_share)):
            index = row[..., :, None] * widths[..., None, None] + column[..., None, :] + offsets[..., None, None]
            weight = y_weight[..., :, None, None] * x_weight[..., None, :, None]
            with tf.control_dependencies([total]):  # one after the other: each is as large as the crops
                shares = tf.cast(crops, "float32") * weight
            total = total + tf.math.unsorted_segment_sum(shares, index, count)
    return total


def crop_tensorflow(boxes: Any, image: Any, levels: Any, feature_maps: Sequence[Any], crop_size: Sequence[int]) -> Any:
    """As `_gathered`, by TensorFlow's C++ kernel, a call for each level. On 2 cores, it took 35 ms for 1000 crops of
    7 x 7 x 256 and the gather 102 (32 if compiled with XLA, which rounds the grid otherwise); in bfloat16, which the
    kernel does not know, 36 against 68 (and 46)."""
    import tensorflow as tf

    shape = tf.shape(levels)
    # NaN, of a training that diverged, lies nowhere. The kernel would read wherever it points to.
    rows = tf.reshape(tf.where(tf.math.is_nan(boxes), -1.0, boxes), (-1, 4))
    images, row_levels = tf.reshape(tf.broadcast_to(image, shape), (-1,)), tf.reshape(levels, (-1,))

    # The kernel's own gradient is wrong on more than one core: its threads add to one pixel without waiting for each
    # other (seen: off by a tenth of the largest, and otherwise each time).
    @tf.custom_gradient
    def cut(*maps: Any) -> tuple[Any, Any]:
        crops, places = [], []
        for level, feature_map in enumerate(maps):
            place = tf.where(row_levels == level)[:, 0]
            places.append(place)
            crops.append(
                tf.image.crop_and_resize(
                    tf.cast(feature_map, "float32"), tf.gather(rows, place), tf.gather(images, place), crop_size
                )
            )
        order = tf.math.invert_permutation(tf.cast(tf.concat(places, axis=0), "int32"))
        cropped = tf.cast(tf.gather(tf.concat(crops, axis=0), order), maps[0].dtype)

        def gradient(upstream: Any) -> Any:
            sizes = [tf.shape(feature_map) for feature_map in maps]
            counts = [tf.reduce_prod(size[:3]) for size in sizes]
            values = _spread(upstream, boxes, *placed(image, levels, sizes), crop_size, tf.add_n(counts))
            parts = tf.split(values, counts)
            return [
                tf.cast(tf.reshape(part, size), feature_map.dtype)
                for part, size, feature_map in zip(parts, sizes, maps, strict=True)
            ]

        return tf.reshape(cropped, tf.concat([shape, tf.shape(cropped)[1:]], axis=0)), gradient

    return cut(*feature_maps)
