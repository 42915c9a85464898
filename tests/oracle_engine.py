"""An engine that finds every blob of one color in what it is given, exactly, and mosaics of such blobs, whose truth is
known. It imports numpy alone."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence

import numpy as np

from mrcnn.config import Config
from mrcnn.ops.boxes import normalize_boxes


class OracleConfig(Config):
    NAME = "oracle"
    NUM_CLASSES = 4
    IMAGES_PER_GPU = 2
    IMAGE_MIN_DIM = None
    IMAGE_RESIZE_MODE = "pad64"
    MEAN_PIXEL = np.zeros(3)
    DETECTION_MAX_INSTANCES = 1000
    DETECTION_MIN_CONFIDENCE = 0


class OracleEngine:
    """Sees what is black as ground. A blob's class is 1 + its number modulo 3; its score grows with what is seen
    of it, so that pieces score less, from 0.5 on.

    Args:
        least: blobs of fewer pixels are not seen.
        scores: of blobs by their number (see `paint`), in place of that.
        seconds: how long it takes for an image.
        seen: changes the mask [h, w] bool of a blob in a molded image: (mask, number, generator) -> mask.
    """

    name, precision, device, threads = "oracle", "float32", "CPU", None

    def __init__(self, least: int = 1, scores=None, seen=None, seconds: float = 0.0) -> None:
        self.least, self.scores, self.seen, self.seconds = least, scores or {}, seen, seconds
        self.runs = 0

    def run(self, molded, metas, anchors):
        self.runs += len(molded)
        time.sleep(self.seconds * len(molded))
        return [self._found(image) for image in molded]

    def _found(self, image):
        rng = None if self.seen is None else np.random.default_rng(zlib.crc32(image.tobytes()))
        numbers = (image @ np.array([1, 256, 65536], np.float32)).astype(np.int32)
        rows, masks = [], []
        for number in 1 + np.flatnonzero(np.bincount(numbers.ravel())[1:]):
            mask = numbers == number
            if self.seen is not None:
                mask = self.seen(mask, number, rng)
            if mask.sum() < self.least:
                continue
            y, x = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box = np.array([y[0], x[0], y[-1] + 1, x[-1] + 1])
            score = self.scores.get(number, 1 - 0.5 / np.sqrt(mask.sum()))
            rows.append([*normalize_boxes(box, image.shape[:2]), 1 + number % 3, score])
            masks.append(mask[box[0] : box[2], box[1] : box[3]])
        if not rows:
            return np.zeros((0, 6), np.float32), np.zeros((0, 2, 2), np.float32)
        # A cell for each half of a pixel of the largest: what is made of it at the box's size is the mask again.
        side = 2 * max(max(mask.shape) for mask in masks)
        cells = [((2 * np.arange(side)[:, None] + 1) * mask.shape // (2 * side)).T for mask in masks]
        order = np.argsort([-row[5] for row in rows], kind="stable")
        masks = np.array([mask[np.ix_(*cell)] for mask, cell in zip(masks, cells, strict=True)], np.float32)
        return np.array(rows, np.float32)[order], masks[order]


def paint(image: np.ndarray, mask: np.ndarray, number: int, top: int = 0, left: int = 0) -> None:
    """Paint a blob [h, w] bool into an image [H, W, 3] uint8; its color tells its number, from 1 on."""
    area = image[top : top + mask.shape[0], left : left + mask.shape[1]]
    area[mask] = [number % 256, number // 256 % 256, number // 65536]


def truth(image: np.ndarray) -> dict[int, np.ndarray]:
    """The blobs of an image [H, W, 3]: masks [H, W] bool by their number."""
    numbers = image.astype(np.int64) @ [1, 256, 65536]
    return {number: numbers == number for number in np.unique(numbers[numbers > 0]).tolist()}


def ellipse(height: int, width: int) -> np.ndarray:
    """[height, width] bool."""
    y, x = (np.linspace(-1, 1, side) for side in (height, width))
    return np.hypot(y[:, None], x[None]) <= 1


def mosaic(shape: Sequence[int], cell: int, seed: int = 0) -> np.ndarray:
    """An image [H, W, 3] with an ellipse in most squares of a grid of `cell` pixels, none cut, neighbors often
    touching."""
    rng = np.random.default_rng(seed)
    image = np.zeros((*shape, 3), np.uint8)
    number = 0
    for top in range(0, shape[0] - cell + 1, cell):
        for left in range(0, shape[1] - cell + 1, cell):
            if rng.random() < 0.9:
                number += 1
                height, width = rng.integers(cell // 2, cell + 1, 2).tolist()
                paint(image, ellipse(height, width), number, top, left)
    return image
