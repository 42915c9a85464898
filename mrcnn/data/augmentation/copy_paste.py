"""Objects of another image pasted into this one.

Letters: H, W sides in pixels, h, w those of an object's box, C channels, N instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mrcnn.data.augmentation.arguments import probability
from mrcnn.data.augmentation.protocol import Another, Labeled, as_augmentation, augment
from mrcnn.data.augmentation_adapters import AugmentationError, Pair
from mrcnn.data.mask_boxes import empty_masks, extract_bboxes

Window = tuple[slice, slice]


class CopyPaste:
    """Paste objects of another image of the dataset, some or all of them, as they lie there: Ghiasi et al., "Simple
    Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation" (2021), section 3.

    What pasted objects cover no longer belongs to those under them, and objects of which hardly anything is left are no
    longer objects. Where sizes differ, the other image is laid over this one at a random place. Crowds are not pasted.

    It needs class ids and another image, so it works through `load_image_gt`, `BatchLoader` and training, also inside
    of `Compose` and `Sometimes`.

    Args:
        p: probability that something is pasted.
        other: augmentation of the other image, which may change its size. None: it is as it is.
        most: so many objects at most. None: any number of them.
        min_visible: objects of which a smaller share is left, from 0 to 1, are dropped: those that are covered, and of
            those to be pasted the ones that reach out of the frame.

    Raises:
        ValueError: a number that cannot work.
    """

    def __init__(self, p: float = 0.5, other: Any = None, most: int | None = None, min_visible: float = 0.1) -> None:
        self.p = probability("p", p)
        self.other = as_augmentation(other)
        if most is not None and (not isinstance(most, int | np.integer) or isinstance(most, bool) or most < 1):
            raise ValueError(f"most must be None or a whole number of at least 1. Received: {most!r}.")
        self.most = most
        self.min_visible = probability("min_visible", min_visible)

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        raise AugmentationError(
            "CopyPaste needs class ids and another image, which a call (image, masks, rng) does not give. Give it to "
            "MaskRCNN.train, BatchLoader or load_image_gt, by itself or inside of Compose and Sometimes."
        )

    def with_classes(
        self, image: np.ndarray, masks: np.ndarray, class_ids: np.ndarray, rng: np.random.Generator, another: Another
    ) -> Labeled:
        """See `mrcnn.data.augmentation`."""
        if rng.random() >= self.p:
            return image, masks, class_ids
        other_image, other_masks, other_ids = another(rng)
        if other_image.dtype != image.dtype or other_image.shape[2] != image.shape[2]:
            raise AugmentationError(
                "CopyPaste needs images of one type and number of channels. Received: "
                + " and ".join(f"{one.dtype} with {one.shape[2]}" for one in (image, other_image))
                + "."
            )
        if self.other is not None:
            other_image, other_masks = augment(self.other, other_image, other_masks, rng)
        place = [
            int(rng.integers(min(0, room), max(0, room) + 1))
            for room in (here - there for here, there in zip(image.shape[:2], other_image.shape[:2], strict=True))
        ]
        pieces = [piece for piece in self._visible(other_masks, place, image.shape) if other_ids[piece.number] > 0]
        if not pieces:
            return image, masks, class_ids
        count = int(rng.integers(min(len(pieces), self.most or len(pieces)))) + 1
        pasted = [pieces[i] for i in sorted(rng.choice(len(pieces), count, replace=False))]

        image, covered = image.copy(), np.zeros(image.shape[:2], bool)
        for piece in pasted:
            np.copyto(image[piece.here], other_image[piece.there], where=piece.shape[..., None])
            covered[piece.here] |= piece.shape
        left = self._visible(masks, (0, 0), image.shape, covered)
        new_masks = empty_masks(*image.shape[:2], len(left) + len(pasted))
        for number, piece in enumerate([*left, *pasted]):
            new_masks[..., number][piece.here] = piece.shape
        kept, added = ([piece.number for piece in some] for some in (left, pasted))
        return image, new_masks, np.concatenate([class_ids[kept], other_ids[added]]).astype(np.int32)

    def _visible(
        self, masks: np.ndarray, place: Sequence[int], frame: Sequence[int], covered: np.ndarray | None = None
    ) -> list[_Piece]:
        """Of each instance of an image that lies at `place` (y, x) in a frame (height, width, ...) what is within that
        and not covered [height, width], if it is enough of the whole."""
        pieces = []
        for number, box in enumerate(extract_bboxes(masks).tolist()):
            here, there = [], []
            for low, high, start, length in zip(box[:2], box[2:], place, frame, strict=False):
                first, last = max(low + start, 0), max(min(high + start, length), 0)
                here.append(slice(first, max(first, last)))
                there.append(slice(first - start, max(first, last) - start))
            shape = masks[(*there, number)]
            if covered is not None:
                shape = shape & ~covered[tuple(here)]
            visible = np.count_nonzero(shape)
            whole = np.count_nonzero(masks[box[0] : box[2], box[1] : box[3], number])
            if visible and visible >= self.min_visible * whole:
                pieces.append(_Piece(number, tuple(here), tuple(there), shape))
        return pieces


class _Piece(NamedTuple):
    """What is seen of an instance.

    Attributes:
        number: of the instance in its image.
        here: rows and columns in the frame; `there`: in its own image.
        shape: [h, w] bool, its pixels among these.
    """

    number: int
    here: Window
    there: Window
    shape: np.ndarray
