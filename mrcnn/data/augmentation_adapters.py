"""Augmenters of other libraries in the form of `mrcnn.data.augmentation`: imgaug's, and callables as albumentations
has them. Neither library is imported.

Letters: H, W sides in pixels, C channels, N instances.
"""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]

# Those of imgaug's augmenters that masks follow; what is derived from imgaug's own follows too (Rotate from Affine).
GEOMETRIC_AUGMENTERS = frozenset(
    (
        "Sequential",
        "SomeOf",
        "OneOf",
        "Sometimes",
        "Fliplr",
        "Flipud",
        "CropAndPad",
        "Affine",
        "PiecewiseAffine",
    )
)
# Those that move pixels too, in any release. All others change colors, which masks must not follow.
_MOVES_PIXELS = re.compile(
    "(Center)?(Crop|Pad)(To[A-Z].*)?|(Rotate|Resize|Scale|Translate|Shear)[XY]?|Rot90|AffineCv2|(Horizontal|Vertical)Flip|"
    "PerspectiveTransform|ElasticTransform(ation)?|Jigsaw|WithPolarWarping|KeepSizeByResize|Transpose"
)
# OpenCV takes 512 channels at most, and memory is to stay small.
_MASKS_AT_ONCE = 32


class AugmentationError(ValueError):
    """An augmentation that cannot be used, or gave back something other than an image with its masks."""


class _OneAtATime:
    """Has a lock, which does not go into pickles."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())


class ImgaugAugmentation(_OneAtATime):
    """An imgaug augmenter, or anything with its methods `to_deterministic` and `augment_image`, as an augmentation.

    Masks follow only the augmenters of `GEOMETRIC_AUGMENTERS` and those derived from imgaug's own of them; the
    augmenter is told so by the hooks that imgaug has for this. What the others do to the image must leave objects in
    their places: those that are known to move pixels are refused. Where `augment_image` takes no hooks, masks go
    through all of it. The augmenter is seeded anew for each image where it has a way to be (`seed_`, or `reseed` in
    older releases).

    `legacy:` the image comes resized and padded, as in the original: sizes in pixels mean pixels of the network's
    input.

    Raises:
        AugmentationError: an augmenter that masks cannot follow; it is named.
        TypeError: no `augment_image`.
    """

    after_resizing = True

    def __init__(self, augmenter: Any) -> None:
        if not callable(getattr(augmenter, "augment_image", None)):
            raise TypeError(
                "An augmenter with to_deterministic must have augment_image(image, hooks=...) too, as imgaug's have. "
                f"Received: {augmenter!r}."
            )
        _refuse_lost_masks(augmenter)
        self.augmenter = augmenter
        self.__name__ = type(augmenter).__name__
        self._options = {"hooks": _GeometryOnly()} if _accepts(augmenter.augment_image, None, hooks=None) else {}
        super().__init__()  # the lock, for making it deterministic moves the augmenter's own random state

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        seed = int(rng.integers(1, 2**31 - 1))
        with self._lock:
            fixed = self.augmenter.to_deterministic()
            if hasattr(fixed, "seed_"):
                fixed.seed_(seed, deterministic_too=True)
            elif hasattr(fixed, "reseed"):
                fixed.reseed(seed, deterministic_too=True)
        new_image = np.asarray(fixed.augment_image(image))
        count = masks.shape[2]
        parts = [
            self._move(fixed, masks[..., first : first + _MASKS_AT_ONCE]) for first in range(0, count, _MASKS_AT_ONCE)
        ]
        return new_image, np.concatenate(parts, axis=-1) if parts else np.zeros((*new_image.shape[:2], 0), bool)

    def _move(self, fixed: Any, masks: np.ndarray) -> np.ndarray:
        """masks [H, W, n] bool where the image's pixels went."""
        # Two masks more, an empty and a full one: what is nearer to the full one is object. Interpolation comes down to
        # the nearest side of the outline so, what comes in from outside (`cval=255`) is no object, and a change of
        # colors is none of shape.
        count = masks.shape[2]
        layers = np.zeros((*masks.shape[:2], count + 2), np.uint8)
        layers[..., :count] = masks * np.uint8(255)
        layers[..., -1] = 255
        moved = np.asarray(fixed.augment_image(layers, **self._options)).astype(np.int16)
        return np.abs(moved[..., :count] - moved[..., -1:]) < np.abs(moved[..., :count] - moved[..., -2:-1])


class KeywordAugmentation(_OneAtATime):
    """A callable `(image=[H, W, C], masks=list of N [H, W] uint8) -> dict` of the same names, as albumentations has
    them, as an augmentation.

    It is seeded for each image where it has a way to be (`set_random_seed`, which albumentations 2 has). One call
    runs at a time, for its random state is its own.

    Raises:
        AugmentationError: it wants boxes, or gave back something else than an image and a mask for each mask.
    """

    def __init__(self, transform: Callable[..., Mapping[str, Any]]) -> None:
        # Each of these wants to be given what it processes.
        wanted = [name for name in ("bboxes", "keypoints") if name in (getattr(transform, "processors", None) or {})]
        if wanted:
            raise AugmentationError(
                f"An augmentation is given an image and masks, and this {_name(transform)} wants {_listed(wanted)}. "
                "Make it without bbox_params and keypoint_params: boxes are made from the masks."
            )
        self.transform = transform
        self.__name__ = getattr(transform, "__name__", _name(transform))
        super().__init__()

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        count = masks.shape[2]
        # Some cannot do with an empty list: an image without objects comes with an empty mask.
        given = [masks[..., index].astype(np.uint8) for index in range(count)] or [np.zeros(image.shape[:2], np.uint8)]
        seed = int(rng.integers(1, 2**31 - 1))
        with self._lock:
            if hasattr(self.transform, "set_random_seed"):
                self.transform.set_random_seed(seed)
            result = self.transform(image=np.array(image), masks=given)
        if not isinstance(result, Mapping) or not {"image", "masks"} <= set(result):
            found = f"keys {_listed(map(str, result))}" if isinstance(result, Mapping) else type(result).__name__
            raise AugmentationError(
                f"Augmentation {self.__name__} is called as (image=..., masks=[...]) and must return a dict of these "
                f"names. Received: {found}."
            )
        moved = [np.asarray(mask) for mask in result["masks"]]
        shapes = {mask.shape for mask in moved}
        if len(moved) != len(given) or len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise AugmentationError(
                f"Augmentation {self.__name__} must return {len(given)} masks [H, W] of one size. Received: "
                f"{len(moved)} of {' and '.join(map(str, sorted(shapes))) or 'no size'}."
            )
        return np.asarray(result["image"]), np.stack(moved, axis=-1)[..., :count] != 0


def is_imgaug_like(augmentation: Any) -> bool:
    """Whether an object is to be taken for one of imgaug's augmenters."""
    return hasattr(augmentation, "to_deterministic")


def takes_keywords(augmentation: Callable[..., Any]) -> bool:
    """Whether a callable is of albumentations' form: (image=, masks=), and no generator."""
    try:
        parameters = inspect.signature(augmentation).parameters
    except (TypeError, ValueError):  # some built-in callables have none
        return False
    return "rng" not in parameters and _accepts(augmentation, image=None, masks=None)


class _GeometryOnly:
    """imgaug's hooks: which augmenters touch the array at hand."""

    def is_activated(self, images: Any, augmenter: Any, parents: Any, default: bool) -> bool:
        return default and _follows(augmenter)

    def is_propagating(self, images: Any, augmenter: Any, parents: Any, default: bool) -> bool:
        return default

    def preprocess(self, images: Any, augmenter: Any, parents: Any) -> Any:
        return images

    def postprocess(self, images: Any, augmenter: Any, parents: Any) -> Any:
        return images


def _refuse_lost_masks(augmenter: Any) -> None:
    lost = []
    for part, holders in _parts(augmenter):
        blocking = next((holder for holder in holders if not _follows(holder)), None)
        if _follows(part):
            # Nothing inside of what masks do not go through reaches them.
            if blocking is not None and not _only_holds(part):
                lost.append(f"{_name(part)} inside {_name(blocking)}")
        elif any(_MOVES_PIXELS.fullmatch(name) for name in _kinds(part)):
            lost.append(_name(part))
    if lost:
        raise AugmentationError(
            f"Masks cannot follow {_listed(lost)}: their image would move without them. They follow "
            f"{', '.join(sorted(GEOMETRIC_AUGMENTERS))} and what imgaug derives from these. Use those, "
            "mrcnn.data.augmentation's own (Flip, Rotate90, Affine, ScaleJitter), albumentations, or a callable "
            "(image, masks, rng) -> (image, masks)."
        )


def _parts(augmenter: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """An augmenter and all that it is made of, each with those that it is inside of."""
    waiting, seen = [(augmenter, ())], set()
    while waiting:
        part, holders = waiting.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part, holders
            waiting += [(child, (*holders, part)) for child in reversed(_children(part))]


def _children(augmenter: Any) -> list[Any]:
    """What an augmenter runs, whatever it keeps it as: in a list, in attributes, or being a list itself."""
    values = list(augmenter) if isinstance(augmenter, list | tuple) else []
    for value in getattr(augmenter, "__dict__", {}).values():
        if isinstance(value, Mapping):
            values += value.values()
        else:
            values += value if isinstance(value, list | tuple) else [value]
        # imgaug's Sometimes keeps a Sequential, which is a list and an augmenter.
        if isinstance(value, list | tuple) and hasattr(value, "augment_image"):
            values.append(value)
    return [value for value in values if hasattr(value, "augment_image")]


def _follows(augmenter: Any) -> bool:
    """Whether masks go through an augmenter."""
    return any(name in GEOMETRIC_AUGMENTERS for name in _kinds(augmenter))


def _only_holds(augmenter: Any) -> bool:
    """Whether an augmenter that masks go through moves nothing but by what it holds."""
    return any(name in ("Sequential", "SomeOf", "OneOf", "Sometimes") for name in _kinds(augmenter))


def _kinds(augmenter: Any) -> list[str]:
    """The name of an augmenter's class, and of those of imgaug's that it is derived from."""
    kind, *bases = type(augmenter).__mro__
    return [kind.__name__, *(base.__name__ for base in bases if base.__module__.startswith("imgaug"))]


def _accepts(function: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    """Whether a call with these arguments fits; yes where a function does not tell."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _name(thing: Any) -> str:
    return type(thing).__name__


def _listed(names: Any) -> str:
    return ", ".join(dict.fromkeys(names))
