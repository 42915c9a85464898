"""Augmentation: random changes of an image and its masks together.

Letters: H, W sides in pixels, C channels, N instances.

An augmentation is any callable `(image [H, W, C], masks bool [H, W, N], rng: numpy.random.Generator) ->
(image, masks)`. The sides may change, but not the number of instances or channels. It draws all chance from
`rng`, so that equal seeds give equal images, and it must leave its input arrays as they are. Several threads
call it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mrcnn.data.augmentation_adapters import (
    AugmentationError,
    ImgaugAugmentation,
    KeywordAugmentation,
    Pair,
    is_imgaug_like,
    takes_keywords,
)

Augmentation = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def as_augmentation(augmentation: Any) -> Augmentation | None:
    """What users pass as `augmentation`, as a callable of the form this module tells.

    Args:
        augmentation: None; such a callable; a callable `(image=, masks=) -> dict` as albumentations has them; or an
            imgaug augmenter (known by its `to_deterministic`).

    Raises:
        AugmentationError: an augmenter that masks cannot follow, or that wants more than an image and masks.
        TypeError: anything else.
    """
    if is_imgaug_like(augmentation):
        return ImgaugAugmentation(augmentation)
    if isinstance(augmentation, type) or not (augmentation is None or callable(augmentation)):
        raise TypeError(
            "augmentation must be None, a callable (image, masks, rng) -> (image, masks) or (image=, masks=) -> dict, "
            f"or an imgaug augmenter. Received: {augmentation!r}."
        )
    if augmentation is not None and takes_keywords(augmentation):
        return KeywordAugmentation(augmentation)
    return augmentation


def augment(
    augmentation: Augmentation,
    image: np.ndarray,
    masks: np.ndarray,
    rng: np.random.Generator,
    keep_size: bool = False,
) -> Pair:
    """Apply an augmentation and check what it gives back.

    Args:
        augmentation: what `as_augmentation` gave.
        image: [H, W, C].
        masks: [H, W, N] bool.
        rng: what it draws from.
        keep_size: refuse an image of another height or width.

    Returns:
        image: [H', W', C] of the given image's type.
        masks: [H', W', N] bool.

    Raises:
        AugmentationError: the result does not fit the input, or the image and masks do not fit each other.
    """
    name = getattr(augmentation, "__name__", type(augmentation).__name__)
    result = augmentation(image, masks, rng)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise AugmentationError(f"Augmentation {name} must return (image, masks). Received: {type(result).__name__}.")
    new_image, new_masks = np.asarray(result[0]), np.asarray(result[1])
    if new_image.ndim != 3 or new_image.shape[2] != image.shape[2] or 0 in new_image.shape:
        raise AugmentationError(
            f"Augmentation {name} must return an image [H, W, {image.shape[2]}]. Received shape: {new_image.shape}."
        )
    if keep_size and new_image.shape != image.shape:
        raise AugmentationError(
            f"Augmentation {name} must keep the size of its image, which is that of the network's input. "
            f"Received: {new_image.shape[0]} x {new_image.shape[1]} for {image.shape[0]} x {image.shape[1]} pixels."
        )
    if new_masks.shape != (*new_image.shape[:2], masks.shape[2]):
        raise AugmentationError(
            f"Augmentation {name} must return masks of shape {(*new_image.shape[:2], masks.shape[2])}, to "
            "go with its "
            f"image and the {masks.shape[2]} instances. Received shape: {new_masks.shape}."
        )
    if new_image.dtype != image.dtype:
        raise AugmentationError(
            f"Augmentation {name} must keep the image's type {image.dtype}. Received: {new_image.dtype}. "
            "(Normalization comes later, by itself: leave it out.)"
        )
    return new_image, new_masks.astype(bool, copy=False)


class Compose:
    """One augmentation after another."""

    def __init__(self, augmentations: Sequence[Any]) -> None:
        self.augmentations = [as_augmentation(a) for a in augmentations]

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        for augmentation in self.augmentations:
            if augmentation is not None:
                image, masks = augment(augmentation, image, masks, rng)
        return image, masks


class Sometimes:
    """`augmentation` with probability `p`, else nothing."""

    def __init__(self, p: float, augmentation: Any) -> None:
        self.p = _probability("p", p)
        self.augmentation = as_augmentation(augmentation)

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        if self.augmentation is None or rng.random() >= self.p:
            return image, masks
        return augment(self.augmentation, image, masks, rng)


class Flip:
    """Mirror left-right with probability `horizontal`, top-bottom with probability `vertical`."""

    def __init__(self, horizontal: float = 0.5, vertical: float = 0.0) -> None:
        self.horizontal = _probability("horizontal", horizontal)
        self.vertical = _probability("vertical", vertical)

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        flip_x, flip_y = rng.random() < self.horizontal, rng.random() < self.vertical
        step = (
            slice(None, None, -1) if flip_y else slice(None),
            slice(None, None, -1) if flip_x else slice(None),
        )
        return image[step], masks[step]


class Rotate90:
    """Turn by 0, 90, 180 or 270 degrees, all equally likely. Height and width change places for 90 and
    270."""

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        turns = int(rng.integers(4))
        return np.rot90(image, turns), np.rot90(masks, turns)


class Brightness:
    """Add the same amount to all pixels, drawn evenly from -`limit` to `limit`.

    Args:
        limit: as a share of the type's greatest value (255 for floats); 0.2 is a visible change.
    """

    def __init__(self, limit: float = 0.2) -> None:
        self.limit = _probability("limit", limit)

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        shift = rng.uniform(-self.limit, self.limit) * _greatest(image.dtype)
        return _map_values(image, lambda values: values + shift), masks


class Contrast:
    """Stretch values away from the image's mean, or pull them in, by a factor drawn evenly from 1 - `limit`
    to 1 + `limit`."""

    def __init__(self, limit: float = 0.2) -> None:
        self.limit = _probability("limit", limit)

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        factor = rng.uniform(1 - self.limit, 1 + self.limit)
        mean = float(image.mean())
        return _map_values(image, lambda values: (values - mean) * factor + mean), masks


class Affine:
    """Scale and rotate about the center, within the same frame; what comes in from outside is black and no
    object.

    Args:
        scale: a factor, or (low, high) to draw it evenly from.
        rotate: degrees counterclockwise, or (low, high) to draw them evenly from.
    """

    def __init__(self, scale: float | Sequence[float] = 1.0, rotate: float | Sequence[float] = 0.0) -> None:
        self.scale = _range("scale", scale)
        self.rotate = _range("rotate", rotate)
        if self.scale[0] <= 0:
            raise ValueError(f"scale must be above 0. Received: {scale}.")

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        import cv2

        scale, angle = rng.uniform(*self.scale), rng.uniform(*self.rotate)
        if scale == 1 and angle == 0:
            return image, masks
        height, width = image.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
        # Nearest neighbors move values whole: eight masks travel as the bits of one channel.
        packed = _warp(np.packbits(masks, axis=-1), matrix, cv2.INTER_NEAREST)
        new_masks = np.unpackbits(packed, axis=-1, count=masks.shape[2]).view(bool)
        return _warp(image, matrix, cv2.INTER_LINEAR), new_masks


def _warp(array: np.ndarray, matrix: np.ndarray, interpolation: int) -> np.ndarray:
    """cv2.warpAffine for any number of channels (it takes four at a time), zeros outside."""
    import cv2

    height, width, channels = array.shape
    output = np.zeros_like(array)
    for start in range(0, channels, 4):
        some = np.ascontiguousarray(array[..., start : start + 4])
        warped = cv2.warpAffine(some, matrix, (width, height), flags=interpolation)
        output[..., start : start + 4] = warped.reshape(some.shape)
    return output


def _map_values(image: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    values = function(image.astype(np.float32))
    if np.issubdtype(image.dtype, np.integer):
        values = np.clip(np.round(values), 0, _greatest(image.dtype))
    return values.astype(image.dtype)


def _greatest(dtype: np.dtype) -> float:
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 255.0


def _probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1. Received: {value}.")
    return float(value)


def _range(name: str, value: float | Sequence[float]) -> tuple[float, float]:
    low, high = (value, value) if np.ndim(value) == 0 else value
    if not low <= high:
        raise ValueError(f"{name} must be a number or (low, high) with low <= high. Received: {value}.")
    return float(low), float(high)
