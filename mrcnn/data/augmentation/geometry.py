"""Augmentations that move pixels, the masks' with the image's.

Letters: H, W sides in pixels, C channels, N instances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from mrcnn.data.augmentation.arguments import between, probability, sides
from mrcnn.data.augmentation.pixels import mirror, through_opencv, turn, warp
from mrcnn.data.augmentation_adapters import Pair
from mrcnn.data.mask_boxes import empty_masks, extract_bboxes, sample_masks
from mrcnn.data.resizing import nearest


class Flip:
    """Mirror left-right with probability `horizontal`, top-bottom with probability `vertical`."""

    def __init__(self, horizontal: float = 0.5, vertical: float = 0.0) -> None:
        self.horizontal = probability("horizontal", horizontal)
        self.vertical = probability("vertical", vertical)

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        flip_x, flip_y = rng.random() < self.horizontal, rng.random() < self.vertical
        return mirror(image, flip_y, flip_x), masks[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


class Rotate90:
    """Turn by 0, 90, 180 or 270 degrees, all equally likely. Height and width change places for 90 and
    270."""

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        turns = int(rng.integers(4))
        return turn(image, turns), _turned(masks, turns)


def _turned(masks: np.ndarray, turns: int) -> np.ndarray:
    """np.rot90(masks, turns), of the parts in their boxes."""
    if turns == 0:
        return masks
    height, width, count = masks.shape
    output = empty_masks(*((width, height) if turns % 2 else (height, width)), count)
    for number, (y1, x1, y2, x2) in enumerate(extract_bboxes(masks).tolist()):
        top, left = {1: (width - x2, y1), 2: (height - y2, width - x2), 3: (x1, height - y2)}[turns]
        part = np.rot90(masks[y1:y2, x1:x2, number], turns)
        output[top : top + part.shape[0], left : left + part.shape[1], number] = part
    return output


class Affine:
    """Scale and rotate about the center, within the same frame; what comes in from outside is black and no
    object.

    Args:
        scale: a factor, or (low, high) to draw it evenly from.
        rotate: degrees counterclockwise, or (low, high) to draw them evenly from.
    """

    def __init__(self, scale: float | Sequence[float] = 1.0, rotate: float | Sequence[float] = 0.0) -> None:
        self.scale = between("scale", scale, above=0)
        self.rotate = between("rotate", rotate)

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        scale, angle = rng.uniform(*self.scale), rng.uniform(*self.rotate)
        return _about_the_center(image, masks, angle, scale, image.shape[:2])


class Rotate:
    """Turn by any angle about the center. What comes in from outside is black and no object.

    Args:
        degrees: counterclockwise, or (low, high) to draw them evenly from.
        grow: True: the frame grows so that no corner is lost. False: it stays as it is.
    """

    def __init__(self, degrees: float | Sequence[float] = (-180.0, 180.0), grow: bool = False) -> None:
        self.degrees = between("degrees", degrees)
        self.grow = bool(grow)

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        angle = rng.uniform(*self.degrees)
        height, width = image.shape[:2]
        if self.grow:
            cos, sin = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
            # Rounded, for a quarter's turn has no cosine of quite 0.
            height, width = (math.ceil(round(v, 6)) for v in (height * cos + width * sin, height * sin + width * cos))
        return _about_the_center(image, masks, angle, 1.0, (height, width))


def _about_the_center(image: np.ndarray, masks: np.ndarray, angle: float, scale: float, frame: Sequence[int]) -> Pair:
    """Turned counterclockwise by `angle` degrees and scaled, the center to that of the frame (height, width)."""
    if scale == 1 and angle == 0:
        return image, masks
    center, new_center = (np.array([size[1] - 1, size[0] - 1]) / 2 for size in (image.shape, frame))
    matrix = cv2.getRotationMatrix2D(tuple(center), angle, scale)
    matrix[:, 2] += new_center - center
    return warp(image, masks, matrix, *frame)


class ScaleJitter:
    """Scale by a random factor, and bring the result into a frame: a random part of it where it is larger, at a random
    place, with black around it, where it is smaller. With (0.1, 2.0) it is the large-scale jitter of Ghiasi et al.,
    "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation" (2021), section 3; with
    (0.8, 1.25) their standard one.

    Args:
        scale: (low, high) to draw the factor evenly from, or a number; 1 just fits into the frame.
        size: (height, width) of the frame in pixels, or a number for both. None: that of the image.
    """

    def __init__(self, scale: float | Sequence[float] = (0.1, 2.0), size: int | Sequence[int] | None = None) -> None:
        self.scale = between("scale", scale, above=0)
        self.size = sides("size", size)

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        given = image.shape[:2]
        frame = self.size or given
        factor = rng.uniform(*self.scale) * min(f / g for f, g in zip(frame, given, strict=True))
        scaled = [max(1, round(side * factor)) for side in given]
        # Of each axis: what is seen of the scaled image, and where that lies in the frame.
        seen, placed = [], []
        for length, room in zip(scaled, frame, strict=True):
            common, spare = min(length, room), int(rng.integers(abs(length - room) + 1))
            cut, gap = (spare, 0) if length > room else (0, spare)
            seen.append(slice(cut, cut + common))
            placed.append(slice(gap, gap + common))
        new_image = np.zeros((*frame, image.shape[2]), image.dtype)
        new_image[tuple(placed)] = _part_of_scaled(image, scaled, seen)
        new_masks = empty_masks(*frame, masks.shape[2])
        rows, columns = (nearest(g, s)[part] for g, s, part in zip(given, scaled, seen, strict=True))
        sample_masks(masks, rows, columns, new_masks[placed[0].start :, placed[1].start :])
        return new_image, new_masks


def _part_of_scaled(image: np.ndarray, scaled: Sequence[int], seen: Sequence[slice]) -> np.ndarray:
    """The part `seen` of an image [H, W, C] that is scaled to (height, width): bilinear where it grows, by means where
    it shrinks."""
    height, width = scaled
    if height < image.shape[0] or width < image.shape[1]:
        return through_opencv(image, lambda part: cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA))[
            tuple(seen)
        ]
    # No more than that part: at twice the size it is a quarter.
    rows, columns = seen
    scale_y, scale_x = height / image.shape[0], width / image.shape[1]
    matrix = np.array([[scale_x, 0, (scale_x - 1) / 2 - columns.start], [0, scale_y, (scale_y - 1) / 2 - rows.start]])
    size = (columns.stop - columns.start, rows.stop - rows.start)
    return through_opencv(
        image,
        lambda part: cv2.warpAffine(part, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
    )


class RandomCrop:
    """Cut a random rectangle out.

    Args:
        share: of the height and of the width, each drawn evenly from (low, high), at most 1; or a number.
        size: (height, width) in pixels, or a number for both, in place of `share`. A side of the image that is shorter
            stays whole.
        keep_object: True: some object, drawn at random, is in it: whole where it fits, else a part. Where the image has
            one.
    """

    def __init__(
        self,
        share: float | Sequence[float] = (0.5, 1.0),
        size: int | Sequence[int] | None = None,
        keep_object: bool = True,
    ) -> None:
        self.share = between("share", share, above=0, most=1)
        self.size = sides("size", size)
        self.keep_object = bool(keep_object)

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        lengths = image.shape[:2]
        drawn = [max(1, round(length * rng.uniform(*self.share))) for length in lengths]
        crop = [min(pair) for pair in zip(lengths, self.size or drawn, strict=True)]
        kept = self._kept(masks, crop, rng) if self.keep_object else None
        window = []
        for axis, (length, cut) in enumerate(zip(lengths, crop, strict=True)):
            first, last = 0, length - cut
            if kept is not None:
                first, last = max(first, kept[axis].stop - cut), min(last, kept[axis].start)
            start = int(rng.integers(first, last + 1))
            window.append(slice(start, start + cut))
        return image[tuple(window)], masks[tuple(window)]

    @staticmethod
    def _kept(masks: np.ndarray, crop: Sequence[int], rng: np.random.Generator) -> list[slice] | None:
        """Rows and columns that must be in the crop: of an object's box, or of one of its pixels where the box does not
        fit."""
        boxes = extract_bboxes(masks)
        objects = np.flatnonzero(boxes.any(axis=1))
        if not len(objects):
            return None
        number = int(rng.choice(objects))
        y1, x1, y2, x2 = (int(v) for v in boxes[number])
        pixels = np.argwhere(masks[y1:y2, x1:x2, number])
        pixel = pixels[int(rng.integers(len(pixels)))] + (y1, x1)
        box = (slice(y1, y2), slice(x1, x2))
        return [
            part if part.stop - part.start <= cut else slice(int(at), int(at) + 1)
            for part, cut, at in zip(box, crop, pixel, strict=True)
        ]
