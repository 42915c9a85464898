"""Masks and label images as files hold them, brought to numbers.

Letters: H, W sides of an image in pixels, C channels.
"""

from __future__ import annotations

import numpy as np

from mrcnn.data.images import ImageError

# Where a mask has shades, as JPEG or a soft brush leaves them, most of it must be clearly in or clearly out.
_SHADES = 0.5


def label_values(values: np.ndarray, name: str, grays_are_colors: bool = False) -> np.ndarray:
    """The values of a label image as [H, W] integers.

    Args:
        values: [H, W] or [H, W, C]. Colors become the numbers 65536 red + 256 green + blue; alpha is dropped.
        name: of the file, for messages.
        grays_are_colors: whether an image of three channels that holds grays only is a color image too. Otherwise grays
            are the numbers.

    Raises:
        ImageError: numbers that are not whole, or channels that are no colors.
    """
    if values.ndim == 3:
        values = values[..., : 3 if values.shape[2] >= 3 else 1]
        if values.shape[2] == 1 or (not grays_are_colors and (values == values[..., :1]).all()):
            values = values[..., 0]
        elif values.dtype == np.uint8:
            red, green, blue = (values[..., channel].astype(np.int32) for channel in range(3))
            values = red << 16 | green << 8 | blue
        else:
            raise ImageError(
                f"{name} has colors of {values.dtype}. A label image has one channel, or colors of 8 bits."
            )
    if values.ndim != 2:
        raise ImageError(f"{name} is no label image: it is of shape {values.shape}.")
    if values.dtype == bool:
        return values.view(np.uint8)
    if values.dtype.kind == "f":
        # Beyond these, float32 does not hold all whole numbers.
        if not (np.abs(values) <= 2**24).all() or (values != np.rint(values)).any():
            raise ImageError(f"{name} holds numbers that are not whole. Those of a label image name instances.")
        return values.astype(np.int32)
    return values


def binary_mask(values: np.ndarray, name: str) -> np.ndarray:
    """The mask [H, W] bool of a file that holds one.

    Args:
        values: [H, W] or [H, W, C]; what is more than half as bright as the brightest is in.
        name: of the file, for messages.

    Raises:
        ImageError: it holds more than in and out.
    """
    if values.ndim == 3:
        values = values[..., : 3 if values.shape[2] >= 3 else 1].max(axis=2)
    if values.ndim != 2:
        raise ImageError(f"{name} is no mask: it is of shape {values.shape}.")
    if values.dtype == bool:
        return values
    highest = values.max(initial=0)
    if not np.isfinite(highest) or highest <= 0:
        return np.zeros(values.shape, bool)
    shares = values / highest
    between = int(((shares > 0.25) & (shares < 0.75)).sum())
    if between > _SHADES * int((shares >= 0.75).sum()):
        raise ImageError(
            f"{name} holds more values than those of one mask. If it is a label image, it must be the only one of its "
            "image."
        )
    return shares > 0.5
