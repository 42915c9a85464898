"""Objects that can be told in the image itself, to see whether masks go where the image goes."""

from __future__ import annotations

import cv2
import numpy as np

MOST = {np.uint8: 255, np.uint16: 65535, np.float32: 1.0}


def painted(rng, height=60, width=90, count=5, channels=3, dtype=np.uint8):
    """A black image [H, W, C] with `count` ellipses that do not touch, object n at the type's greatest value in channel
    n % C, and their masks [H, W, N]."""
    taken = np.zeros((height, width), np.uint8)
    image, masks = np.zeros((height, width, channels), dtype), np.zeros((height, width, count), bool)
    for n in range(count):
        for _ in range(100):
            y, x = (int(v) for v in rng.integers(0, (height, width)))
            mask = np.zeros((height, width), np.uint8)
            cv2.ellipse(
                mask, (x, y), [int(v) for v in rng.integers(5, 12, 2)], float(rng.uniform(0, 180)), 0, 360, 1, -1
            )
            if not (mask & taken).any():
                break
        else:
            continue
        taken |= cv2.dilate(mask, np.ones((5, 5), np.uint8))
        masks[..., n] = mask
        image[mask == 1, n % channels] = MOST[dtype]
    return image, masks


def follows(image, masks, exact):
    """Whether masks are where their objects are in an image of `painted`: everywhere, or but for the pixels beside
    their outlines."""
    channels = image.shape[2]
    for channel in range(channels):
        shown = image[..., channel] > MOST[image.dtype.type] / 2
        mask = masks[..., channel::channels].any(axis=2)
        if exact and (shown != mask).any():
            return False
        kernel, values = np.ones((3, 3), np.uint8), mask.astype(np.uint8)
        # Beyond the frame objects may go on: eroding must not begin there.
        inner = cv2.erode(values, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1).astype(bool)
        outer = cv2.dilate(values, kernel).astype(bool)
        if (inner & ~shown).any() or (shown & ~outer).any():
            return False
    return True
