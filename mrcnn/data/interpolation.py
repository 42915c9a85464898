"""Resizing as torchvision and detectron2 do it; the original's way is in `resizing.py`.

Letters: H, W input size; h, w output size; C channels. Pixel (0, 0) has its center at (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

# Channels that OpenCV's resize takes at a time.
_MOST_CHANNELS = 4


def interpolate(image: np.ndarray, output_shape: Sequence[int], antialias: bool = False) -> np.ndarray:
    """Bilinear resizing; outside the image its border goes on.

    Args:
        image: [H, W] or [H, W, C], whole numbers or floats.
        output_shape: (h, w).
        antialias: False: two taps in each direction, whatever the factor; nothing is rounded. True: as Pillow does it,
            shrinking averages all pixels that a new one covers, and 8-bit images stay such.

    Returns:
        [h, w] or [h, w, C], float32; uint8 of a uint8 image with `antialias`.
    """
    height, width = int(output_shape[0]), int(output_shape[1])
    if antialias:
        return _with_pillow(image, height, width)
    values = np.ascontiguousarray(image, np.float32)
    if image.ndim == 2 or image.shape[2] <= _MOST_CHANNELS:
        return cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR).reshape(
            height, width, *image.shape[2:]
        )
    planes = [interpolate(values[:, :, channel], (height, width)) for channel in range(image.shape[2])]
    return np.stack(planes, axis=2)


def _with_pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    if image.dtype == np.uint8 and (image.ndim == 2 or image.shape[2] == 3):
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    if image.ndim == 3:
        planes = [_with_pillow(image[:, :, channel], height, width) for channel in range(image.shape[2])]
        return np.stack(planes, axis=2)
    values = Image.fromarray(np.ascontiguousarray(image, np.float32))
    return np.asarray(values.resize((width, height), Image.Resampling.BILINEAR))
