"""What an augmentation is, how it is called, and those that call others. See the package's docstring.

Letters: H, W sides in pixels, C channels, N instances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mrcnn.data.augmentation.arguments import probability
from mrcnn.data.augmentation_adapters import (
    AugmentationError,
    ImgaugAugmentation,
    KeywordAugmentation,
    Pair,
    is_imgaug_like,
    takes_keywords,
)

Augmentation = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
# An image [H, W, C], its masks [H, W, N] and class ids [N].
Labeled = tuple[np.ndarray, np.ndarray, np.ndarray]
Another = Callable[[np.random.Generator], Labeled]


def as_augmentation(augmentation: Any) -> Augmentation | None:
    """What users pass as `augmentation`, as a callable of the form this package tells.

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
        hint = " (recipe(name) makes one of a name.)" if isinstance(augmentation, str) else ""
        raise TypeError(
            "augmentation must be None, a callable (image, masks, rng) -> (image, masks) or (image=, masks=) -> dict, "
            f"or an imgaug augmenter. Received: {augmentation!r}.{hint}"
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
    result = augmentation(image, masks, rng)
    new_image, new_masks = _arrays(augmentation, result, ("image", "masks"))
    return _checked(augmentation, image, new_image, new_masks, masks.shape[2], keep_size)


def augment_labeled(
    augmentation: Augmentation,
    image: np.ndarray,
    masks: np.ndarray,
    class_ids: np.ndarray,
    rng: np.random.Generator,
    another: Another,
    keep_size: bool = False,
) -> Labeled:
    """As `augment`, for augmentations that change which instances there are too.

    Args:
        augmentation, image, masks, rng, keep_size: see `augment`.
        class_ids: [N] integers, negative for crowds.
        another: loads another image.

    Returns:
        image: [H', W', C], masks: [H', W', N'] bool, class_ids: [N'] int32.

    Raises:
        AugmentationError: as `augment`.
    """
    if not hasattr(augmentation, "with_classes"):
        return *augment(augmentation, image, masks, rng, keep_size), class_ids
    result = augmentation.with_classes(image, masks, class_ids, rng, another)
    new_image, new_masks, new_ids = _arrays(augmentation, result, ("image", "masks", "class_ids"))
    if new_ids.ndim != 1 or (new_ids.size and new_ids.dtype.kind not in "iu"):
        raise AugmentationError(
            f"Augmentation {_name(augmentation)} must return class_ids as whole numbers [N]. Received: "
            f"{new_ids.dtype}, shape {new_ids.shape}."
        )
    pair = _checked(augmentation, image, new_image, new_masks, len(new_ids), keep_size)
    return *pair, new_ids.astype(np.int32, copy=False)


def _arrays(augmentation: Any, result: Any, names: Sequence[str]) -> tuple[np.ndarray, ...]:
    if not isinstance(result, tuple | list) or len(result) != len(names):
        raise AugmentationError(
            f"Augmentation {_name(augmentation)} must return ({', '.join(names)}). Received: {type(result).__name__}."
        )
    return tuple(np.asarray(part) for part in result)


def _checked(
    augmentation: Any, image: np.ndarray, new_image: np.ndarray, new_masks: np.ndarray, count: int, keep_size: bool
) -> Pair:
    name = _name(augmentation)
    if new_image.ndim != 3 or new_image.shape[2] != image.shape[2] or 0 in new_image.shape:
        raise AugmentationError(
            f"Augmentation {name} must return an image [H, W, {image.shape[2]}]. Received shape: {new_image.shape}."
        )
    if keep_size and new_image.shape != image.shape:
        raise AugmentationError(
            f"Augmentation {name} must keep the size of its image, which is that of the network's input. "
            f"Received: {new_image.shape[0]} x {new_image.shape[1]} for {image.shape[0]} x {image.shape[1]} pixels."
        )
    if new_masks.shape != (*new_image.shape[:2], count):
        raise AugmentationError(
            f"Augmentation {name} must return masks of shape {(*new_image.shape[:2], count)}, to go with its image and "
            f"the {count} instances. Received shape: {new_masks.shape}."
        )
    if new_image.dtype != image.dtype:
        raise AugmentationError(
            f"Augmentation {name} must keep the image's type {image.dtype}. Received: {new_image.dtype}. "
            "(Normalization comes later, by itself: leave it out.)"
        )
    return new_image, new_masks.astype(bool, copy=False)


def _name(augmentation: Any) -> str:
    return getattr(augmentation, "__name__", type(augmentation).__name__)


class Compose:
    """One augmentation after another."""

    def __init__(self, augmentations: Sequence[Any]) -> None:
        self.augmentations = [as_augmentation(a) for a in augmentations]

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        for augmentation in self.augmentations:
            if augmentation is not None:
                image, masks = augment(augmentation, image, masks, rng)
        return image, masks

    def with_classes(
        self, image: np.ndarray, masks: np.ndarray, class_ids: np.ndarray, rng: np.random.Generator, another: Another
    ) -> Labeled:
        for augmentation in self.augmentations:
            if augmentation is not None:
                image, masks, class_ids = augment_labeled(augmentation, image, masks, class_ids, rng, another)
        return image, masks, class_ids


class Sometimes:
    """`augmentation` with probability `p`, else nothing."""

    def __init__(self, p: float, augmentation: Any) -> None:
        self.p = probability("p", p)
        self.augmentation = as_augmentation(augmentation)

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        if self.augmentation is None or rng.random() >= self.p:
            return image, masks
        return augment(self.augmentation, image, masks, rng)

    def with_classes(
        self, image: np.ndarray, masks: np.ndarray, class_ids: np.ndarray, rng: np.random.Generator, another: Another
    ) -> Labeled:
        if self.augmentation is None or rng.random() >= self.p:
            return image, masks, class_ids
        return augment_labeled(self.augmentation, image, masks, class_ids, rng, another)
