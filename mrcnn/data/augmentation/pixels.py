"""OpenCV's functions for images of any type and number of channels, and for masks by their boxes.

Letters: H, W sides in pixels, h, w those of the result, C channels, N instances. An affine matrix [2, 3] takes the
center (x, y) of a pixel to where it goes; pixel (0, 0) has its center at (0, 0).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from mrcnn.data.augmentation_adapters import Pair
from mrcnn.data.mask_boxes import empty_masks, extract_bboxes, instances_first

# What OpenCV computes with, and as many channels as it takes at a time.
_TYPES = (np.uint8, np.uint16, np.int16, np.float32, np.float64)
_CHANNELS = 4


def greatest(dtype: np.dtype) -> float:
    """The greatest value of an image's type; 255 for floats."""
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 255.0


def through_opencv(image: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`function`, which takes [H, W, 1 to 4] of the types that OpenCV has, for an image [H, W, C] of any real type.

    Returns:
        [h, w, C] of the image's type, rounded and kept within it.
    """
    values = image if image.dtype in _TYPES else image.astype(np.float64)
    parts = [
        function(np.ascontiguousarray(values[..., first : first + _CHANNELS]))
        for first in range(0, image.shape[2], _CHANNELS)
    ]
    parts = [part.reshape(*part.shape[:2], -1) for part in parts]  # OpenCV leaves the axis of a single channel out
    result = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
    if result.dtype == image.dtype:
        return result
    if np.issubdtype(image.dtype, np.integer):
        limits = np.iinfo(image.dtype)
        result = np.clip(np.rint(result), limits.min, limits.max)
    return result.astype(image.dtype)


def linear(image: np.ndarray, factor: float | np.ndarray, shift: float) -> np.ndarray:
    """Values times `factor`, plus `shift`, kept within the image's type; floats are not cut off.

    Args:
        image: [H, W, C].
        factor: a number, or a matrix [C, C] with C of 1 to 4 that mixes the channels.
        shift: a number.
    """
    if np.ndim(factor) == 0:  # all channels alike: they lie flat along the columns
        matrix, values = np.array([[factor, shift]]), image.reshape(len(image), -1, 1)
    else:
        matrix, values = np.column_stack([factor, np.full(len(factor), shift)]), image
    return through_opencv(values, lambda part: cv2.transform(part, matrix)).reshape(image.shape)


def mean(image: np.ndarray) -> float:
    """Of all values of an image [H, W, C]."""
    if image.dtype in _TYPES:
        return float(cv2.mean(np.ascontiguousarray(image).reshape(len(image), -1))[0])
    return float(image.mean())


def mirror(image: np.ndarray, upside_down: bool, sideways: bool) -> np.ndarray:
    """[H, W, C] with its rows, or its columns, or both the other way round."""
    if image.dtype in _TYPES and (upside_down or sideways):  # several times as fast as numpy
        return through_opencv(image, lambda part: cv2.flip(part, -1 if upside_down and sideways else int(sideways)))
    return image[:: -1 if upside_down else 1, :: -1 if sideways else 1]


def turn(image: np.ndarray, turns: int) -> np.ndarray:
    """[H, W, C] turned counterclockwise by so many right angles, 0 to 3."""
    if image.dtype in _TYPES and turns:
        code = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)[turns - 1]
        return through_opencv(image, lambda part: cv2.rotate(part, code))
    return np.rot90(image, turns)


def warp(image: np.ndarray, masks: np.ndarray, matrix: np.ndarray, height: int, width: int) -> Pair:
    """An affine map of an image, bilinear, and of its masks, by nearest neighbors, into a frame. What comes in from
    outside is black and no object.

    Args:
        image: [H, W, C].
        masks: [H, W, N] bool.
        matrix: [2, 3].
        height, width: of the frame.

    Returns:
        [height, width, C] and [height, width, N].
    """
    moved = through_opencv(image, lambda part: cv2.warpAffine(part, matrix, (width, height), flags=cv2.INTER_LINEAR))
    return moved, _warp_masks(masks, matrix, height, width)


def _warp_masks(masks: np.ndarray, matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    output = empty_masks(height, width, masks.shape[2])
    boxes = extract_bboxes(masks).tolist()
    for (y1, x1, y2, x2), source, target in zip(boxes, instances_first(masks), np.moveaxis(output, -1, 0), strict=True):
        edges = np.array([[x, y, 1.0] for y in (y1 - 0.5, y2 - 0.5) for x in (x1 - 0.5, x2 - 0.5)]) @ matrix.T
        left, top = np.clip(np.floor(edges.min(axis=0)), 0, (width, height)).astype(int)
        right, bottom = np.clip(np.ceil(edges.max(axis=0)) + 1, 0, (width, height)).astype(int)
        if y1 == y2 or left >= right or top >= bottom:
            continue
        moved = matrix.copy()
        moved[:, 2] = matrix @ (x1, y1, 1) - (left, top)
        crop = np.ascontiguousarray(source[y1:y2, x1:x2]).view(np.uint8)
        size = (int(right - left), int(bottom - top))
        target[top:bottom, left:right] = cv2.warpAffine(crop, moved, size, flags=cv2.INTER_NEAREST).view(bool)
    return output
