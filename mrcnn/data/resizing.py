"""Sizes: bilinear resizing of images, the four resize modes, and the same done to masks.

Letters: H, W input size; h, w output size; C channels; N instances. Images are [H, W, C] (or [H, W]), masks
[H, W, N]. Everything is numpy; pixel (0, 0) has its center at (0.5, 0.5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mrcnn.config import MASK_GRIDS, RESIZE_MODES, SIZE_MULTIPLE, nearest_sizes
from mrcnn.data.interpolation import interpolate
from mrcnn.data.mask_boxes import empty_masks, sample_masks, three_axes
from mrcnn.data.resize_rules import ORIGINAL, Rules

Window = tuple[int, int, int, int]
Padding = list[tuple[int, int]]
Taps = Sequence[np.ndarray]

# Output values that are worked on at a time: a few arrays of this many doubles stay in a core's cache.
_BLOCK = 1 << 15

# So many bits behind the point may a weight have that is tried in float32, whose 24 hold a product with an 8-bit value.
_MOST_BITS = 16


def resize(image: np.ndarray, output_shape: Sequence[int], dtype: np.dtype | type | None = None) -> np.ndarray:
    """Bilinear resizing with half-pixel centers; values keep their range.

    Two taps in each direction, whatever the factor: shrinking does not average. legacy: outside the image lie
    zeros, so the outermost pixels darken when an image grows, down to its own smallest value and no further.
    The arithmetic is done in float64, in the order of the original's, for the cast to whole numbers cuts off:
    one last bit decides over a gray level wherever the exact value is whole, as in flat regions.

    Args:
        image: [H, W] or [H, W, C], any real or bool type, H and W at least 1.
        output_shape: (h, w, ...), at least 1 each; entries after the second are ignored.
        dtype: of the result; whole-number types cut the fraction off. None: float32 for float16 and float32
            images, float64 for others.

    Returns:
        [h, w] or [h, w, C].

    Raises:
        ValueError: a shape that cannot be resized.
    """
    image = np.asarray(image)
    height, width = int(output_shape[0]), int(output_shape[1])
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"An image to resize must be [H, W] or [H, W, C], not empty. Received shape: {image.shape}.")
    if height < 1 or width < 1:
        raise ValueError(f"output_shape must be at least (1, 1). Received: {tuple(output_shape)}.")
    if dtype is None:
        dtype = np.float32 if image.dtype in (np.float16, np.float32) else np.float64
    if image.shape[:2] == (height, width):
        return image.astype(dtype)
    return _bilinear(image, height, width, np.dtype(dtype))


def _bilinear(image: np.ndarray, height: int, width: int, dtype: np.dtype) -> np.ndarray:
    channels = math.prod(image.shape[2:])
    rows, row_weights = _taps(image.shape[0], height)
    columns, column_weights = _taps(image.shape[1], width)
    weigh = _weigh_by_axis if _exact_in_float32(image, row_weights, column_weights) else _weigh_in_order
    # Channels lie flat along the columns, so that every inner loop of numpy is long.
    columns = [(c[:, None] * channels + np.arange(channels)).ravel() for c in columns]
    column_weights = [np.repeat(w, channels) for w in column_weights]
    flat = image.reshape(image.shape[0], -1)
    low, high = float(image.min()), float(image.max())
    output = np.empty((height, width * channels), dtype)
    step = max(1, _BLOCK // output.shape[1])
    for top in range(0, height, step):
        block = slice(top, top + step)
        values = weigh(flat, [r[block] for r in rows], [w[block] for w in row_weights], columns, column_weights)
        np.clip(values, low, high, out=values)
        output[block] = values
    return output.reshape(height, width, *image.shape[2:])


def _weigh_in_order(flat: np.ndarray, rows: Taps, row_weights: Taps, columns: Taps, column_weights: Taps) -> np.ndarray:
    """The four taps of each value, weighted and added in float64 in the original's order."""
    grows = len(columns[0]) > flat.shape[1]
    total: np.ndarray | float = 0.0
    for row, row_weight in zip(rows, row_weights, strict=True):
        lines, weight = flat[row], row_weight[:, None]
        # Weighted rows before the columns are picked or after: the same numbers, fewer of them.
        if grows:
            lines = lines * weight
        for column, column_weight in zip(columns, column_weights, strict=True):
            values = lines.take(column, axis=1)
            values = np.multiply(values, column_weight if grows else weight, dtype=np.float64)
            if not grows:
                values *= column_weight
            total = np.add(values, total, out=values)
    return total


def _weigh_by_axis(flat: np.ndarray, rows: Taps, row_weights: Taps, columns: Taps, column_weights: Taps) -> np.ndarray:
    """The same along the columns first and then along the rows, in float32: for weights that leave no rounding."""
    used, place = np.unique(np.concatenate(rows), return_inverse=True)
    lines = flat[used]
    left, right = (
        np.multiply(lines.take(column, axis=1), weight.astype(np.float32), dtype=np.float32)
        for column, weight in zip(columns, column_weights, strict=True)
    )
    left += right
    upper, lower = (
        left[index] * weight[:, None].astype(np.float32)
        for index, weight in zip(np.split(place, 2), row_weights, strict=True)
    )
    upper += lower
    return upper


def _exact_in_float32(image: np.ndarray, row_weights: Taps, column_weights: Taps) -> bool:
    """Whether no sum of weighted values can need more than the 24 bits that float32 has: so it is for images of 8 bits
    where lengths are to each other as 5 to 8 (640 pixels to 1024), or 1 to 2."""
    if image.dtype != np.uint8:
        return False
    bits = 8
    for weights in (row_weights, column_weights):
        parts = np.concatenate(weights) * 2**_MOST_BITS
        whole = parts.astype(np.int64)
        if (whole != parts).any():
            return False
        common = int(np.bitwise_or.reduce(whole))
        bits += _MOST_BITS - (common & -common).bit_length() + 1
    return bits <= 24


def sample_positions(size: int, output_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where `resize` samples an axis: for each output index the source index below it, from -1 to size - 1, and the
    fraction of the way from there to the next."""
    position = (np.arange(output_size) + 0.5) * (size / output_size) - 0.5
    first = np.floor(position)
    return first.astype(np.intp), position - first


def _taps(size: int, output_size: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The two source indices of each output index, and their weights; outside the source the weight is 0."""
    first, fraction = sample_positions(size, output_size)
    weights = [np.where(first < 0, 0.0, 1 - fraction), np.where(first + 1 >= size, 0.0, fraction)]
    return [np.maximum(first, 0), np.minimum(first + 1, size - 1)], weights


@dataclass(frozen=True)
class Fitted:
    """An image at the size that the network takes it in, before anything is put around it.

    Attributes:
        image: [h, w, C] or [h, w], resized, or cut out; where nothing had to be done, the given array or a view.
        shape: (height, width) with the padding, in pixels, as are
        window: (y1, x1, y2, x2): where `image` lies in that, and
        crop: (y1, x1, height, width) in the scaled image in mode "crop", None in the others.
        scale: the factor of the resizing, always a float.
    """

    image: np.ndarray
    shape: tuple[int, int]
    window: Window
    scale: float
    crop: Window | None = None

    @property
    def padding(self) -> Padding:
        """[(top, bottom), (left, right), (0, 0)] in pixels."""
        (top, left, bottom, right), (height, width) = self.window, self.shape
        return [(top, height - bottom), (left, width - right), (0, 0)]


def resize_image(
    image: np.ndarray,
    min_dim: int | None = None,
    max_dim: int | None = None,
    min_scale: float | None = None,
    mode: str = "square",
    generator: np.random.Generator | None = None,
    size: Sequence[int] | None = None,
    rules: Rules = ORIGINAL,
) -> tuple[np.ndarray, Window, float, Padding, Window | None]:
    """Resize an image so that the network can take it.

    The scale brings the shorter side up to `min_dim` (never down), is at least `min_scale`, and in mode
    "square" is lowered again so that the longer side fits into `max_dim`. None or 0 sets no bound.

    Args:
        image: [H, W, C] or [H, W]; the result has its type, with the fraction cut off for whole numbers.
        min_dim: least length of the shorter side, in pixels; the side of the square in mode "crop".
        max_dim: the side of the square in mode "square", in pixels; not used otherwise.
        min_scale: least scale.
        mode: "none": nothing is done. "square": scale, then pad with zeros to [max_dim, max_dim]. "pad64":
            scale, then pad with zeros to multiples of 64. "crop": scale, then cut [min_dim, min_dim] out; for
            training. "shortest": scale the shorter side to `min_dim`, up or down, unless that takes the longer one
            beyond `max_dim`, then pad with zeros as `rules` say.
        generator: places the crop at random. None: the crop is taken from the center.
        size: (height, width) of a rectangle, in place of the square of modes "square" and "crop"; the others pay no
            attention to it.
        rules: how else.

    Returns:
        image: resized; where nothing had to be done, the given array or a view of it.
        window: (y1, x1, y2, x2) in pixels: the part of it that is not padding.
        scale: the factor of the resizing, always a float.
        padding: [(top, bottom), (left, right), (0, 0)] in pixels.
        crop: (y1, x1, height, width) in pixels of the scaled image in mode "crop", None in the others.

    Raises:
        ValueError: an unknown mode, a bound that the mode needs or cannot use, an image of another shape.
    """
    fitted = fit_image(image, min_dim, max_dim, min_scale, mode, generator, size, rules)
    image = fitted.image
    if fitted.shape != image.shape[:2]:
        top, left, bottom, right = fitted.window
        padded = np.zeros((*fitted.shape, *image.shape[2:]), image.dtype)
        padded[top:bottom, left:right] = image
        image = padded
    return image, fitted.window, fitted.scale, fitted.padding, fitted.crop


def fit_image(
    image: np.ndarray,
    min_dim: int | None = None,
    max_dim: int | None = None,
    min_scale: float | None = None,
    mode: str = "square",
    generator: np.random.Generator | None = None,
    size: Sequence[int] | None = None,
    rules: Rules = ORIGINAL,
) -> Fitted:
    """As `resize_image`, with the padding told but not made."""
    image = np.asarray(image)
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"An image must be [H, W, C] or [H, W], not empty. Received shape: {image.shape}.")
    _check_mode(mode, min_dim, max_dim, size)
    height, width = image.shape[:2]
    if mode == "none":
        return Fitted(image, (height, width), (0, 0, height, width), 1.0)

    scale = scale_of((height, width), min_dim, max_dim, min_scale, mode, size)
    if scale != 1:
        height, width = rules.scaled(height, scale), rules.scaled(width, scale)
        if rules.interpolation == "legacy":
            image = resize(image, (height, width), image.dtype)
        else:
            image = interpolate(image, (height, width), antialias=rules.interpolation == "antialias")

    if mode == "crop":
        rows, columns = (int(side) for side in size or (min_dim, min_dim))
        room_y, room_x = height - rows, width - columns
        if generator is None:
            y, x = room_y // 2, room_x // 2
        else:
            y, x = int(generator.integers(room_y + 1)), int(generator.integers(room_x + 1))
        image = image[y : y + rows, x : x + columns]
        return Fitted(image, (rows, columns), (0, 0, rows, columns), scale, (y, x, rows, columns))

    multiple = rules.multiple if mode == "shortest" else SIZE_MULTIPLE
    shape = tuple(-(-side // multiple) * multiple for side in (height, width))
    if mode == "square":
        shape = tuple(int(side) for side in size or (max_dim, max_dim))
    if mode == "shortest" and rules.canvas is not None:
        shape = _on_canvas(shape, rules.canvas)
    top, left = (0, 0) if rules.corner else ((shape[0] - height) // 2, (shape[1] - width) // 2)
    return Fitted(image, shape, (top, left, top + height, left + width), scale)


def _check_mode(mode: str, min_dim: int | None, max_dim: int | None, size: Sequence[int] | None) -> None:
    if mode not in RESIZE_MODES:
        raise ValueError(f"Resize mode must be one of {', '.join(RESIZE_MODES)}. Received: {mode!r}.")
    for name, value in (("min_dim", min_dim), ("max_dim", max_dim)):
        if value is not None and (not float(value).is_integer() or value < 0):
            raise ValueError(f"{name} must be a whole number of pixels, or None. Received: {value!r}.")
    if mode == "shortest" and not (min_dim and max_dim):
        raise ValueError(f"Mode 'shortest' needs min_dim and max_dim. Received: {min_dim} and {max_dim}.")
    if mode == "square" and not max_dim and size is None:
        raise ValueError(f"Mode 'square' needs max_dim, the side of the square. Received: {max_dim}.")
    if mode == "crop" and not min_dim and size is None:
        raise ValueError(f"Mode 'crop' needs min_dim, the side of the crop. Received: {min_dim}.")
    if mode == "pad64" and min_dim and min_dim % SIZE_MULTIPLE:
        raise ValueError(
            f"Mode 'pad64' needs IMAGE_MIN_DIM (min_dim) to be a multiple of {SIZE_MULTIPLE}. "
            f"Received: {min_dim}.{nearest_sizes(min_dim)}"
        )


def scale_of(
    shape: Sequence[int],
    min_dim: int | None,
    max_dim: int | None,
    min_scale: float | None,
    mode: str,
    size: Sequence[int] | None = None,
) -> float:
    """The factor that `resize_image` resizes an image of `shape` (height, width, ...) by; arguments as there."""
    if mode == "none":
        return 1.0
    height, width = int(shape[0]), int(shape[1])
    if mode == "shortest":
        return min(min_dim / min(height, width), max_dim / max(height, width))
    scale = 1.0
    if mode == "crop" and size is not None:
        scale = max(1.0, size[0] / height, size[1] / width)
    elif min_dim:
        scale = max(1.0, min_dim / min(height, width))
    if min_scale:
        scale = max(scale, float(min_scale))
    if mode == "square":
        rows, columns = size or (max_dim, max_dim)
        if round(height * scale) > rows or round(width * scale) > columns:
            scale = min(rows / height, columns / width)
    return float(scale)


def _on_canvas(shape: Sequence[int], canvas: Sequence[int]) -> tuple[int, int]:
    if shape[0] > canvas[0] or shape[1] > canvas[1]:
        raise ValueError(
            f"An image of {shape[0]} x {shape[1]} does not fit into the {canvas[0]} x {canvas[1]} of the training "
            "network (IMAGE_SHAPE). Leave IMAGE_RECTANGLE out, or make it larger."
        )
    return int(canvas[0]), int(canvas[1])


def resize_mask(
    mask: np.ndarray,
    scale: float,
    padding: Padding,
    crop: Window | None = None,
    grid: str = "legacy",
    rules: Rules = ORIGINAL,
) -> np.ndarray:
    """Do to masks, with nearest neighbors, what `resize_image` did to their image.

    Args:
        mask: [H, W, N], any type.
        scale: as `resize_image` returned it, and so are
        padding: [(top, bottom), (left, right), (0, 0)] and
        crop: (y1, x1, height, width), or None.
        grid: "legacy": the corner pixels of both sizes lie on each other, as in the original, which is off
            the image's grid by up to half a pixel of the larger one. "image": the same grid as the image's.
        rules: those that the image was resized by.

    Returns:
        [h, w, N], of the mask's type, a view of memory laid out [N, h, w].

    Raises:
        ValueError: an unknown grid, or a mask of another shape.
    """
    mask = three_axes(mask)
    if grid not in MASK_GRIDS:
        raise ValueError(f"grid must be one of {', '.join(MASK_GRIDS)}. Received: {grid!r}.")
    source_of = _nearest_legacy if grid == "legacy" else nearest
    sizes = [rules.scaled(side, scale) for side in mask.shape[:2]]
    sources = [source_of(side, size) for side, size in zip(mask.shape[:2], sizes, strict=True)]
    if crop is not None:
        y, x, height, width = crop
        sources = [sources[0][y : y + height], sources[1][x : x + width]]
        sizes = [height, width]
        padding = [(0, 0), (0, 0), (0, 0)]
    (top, bottom), (left, right) = padding[:2]
    output = empty_masks(top + sizes[0] + bottom, left + sizes[1] + right, mask.shape[2], mask.dtype)
    sample_masks(mask, *sources, output[top:, left:])
    return output


def _nearest_legacy(size: int, output_size: int) -> np.ndarray:
    """Source indices of scipy's zoom of order 0.

    legacy: where rounding takes the last position an ulp beyond the last pixel, that position counts as
    outside and has no source (about one size in thirty): the result is then one shorter, and the mask's last
    row stays empty.
    """
    step = (size - 1) / (output_size - 1) if output_size > 1 else 1.0
    position = np.arange(output_size) * step
    return np.floor(position[position <= size - 1] + 0.5).astype(np.intp)


def nearest(size: int, output_size: int) -> np.ndarray:
    """For each output index of an axis the source index whose pixel its center lies in."""
    return (2 * np.arange(output_size) + 1) * size // (2 * output_size)
