"""Detections as label images: 0 is the background, n is the nth object of the result, the same number that the table
of measurements tells. Where objects overlap, the one with the higher score is on top, of equal scores the earlier.

As PNG of 8 bits for up to 255 objects, of 16 bits for up to 65,535; as TIFF of 32 bits for more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from mrcnn.files import atomic_path
from mrcnn.results.instances import ClassNames, Instances, ResultImage
from mrcnn.results.writer import counted

_STRIP = 64  # rows of a label image that are looked at together
_DEFLATE = 8  # of TIFF's compressions the one that every reader knows


def label_image(found: Instances) -> np.ndarray:
    """The label image of a result: [H, W] uint8, uint16 or int32, painted object by object."""
    kind = np.uint8 if len(found) <= 255 else np.uint16 if len(found) <= 65535 else np.int32
    labels = np.zeros((found.height, found.width), kind)
    rank = np.empty(len(found), np.int64)
    rank[np.argsort(-found.scores, kind="stable")] = np.arange(len(found))
    for number, (crop, top, left) in enumerate(found.crops(), start=1):
        area = labels[top : top + crop.shape[0], left : left + crop.shape[1]]
        below = (area == 0) | (rank[area.astype(np.int64) - 1] > rank[number - 1])
        area[crop & below] = number
    return labels


def save_labels(folder: Path, name: str, labels: np.ndarray) -> Path:
    """Write a label image: `name`.png or, of 32 bits, `name`.tif, whole or not at all; where it went."""
    path = folder / f"{name}{'.tif' if labels.dtype == np.int32 else '.png'}"
    options = [cv2.IMWRITE_TIFF_COMPRESSION, _DEFLATE] if path.suffix == ".tif" else []
    _, data = cv2.imencode(path.suffix, labels, options)  # cv2.imwrite cannot open all names on Windows
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path


class LabelsWriter:
    """See `mrcnn.results.writer.Writer`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._hidden = 0

    def render(self, image: ResultImage, found: Instances) -> int:
        """Write an image's labels; how many of its objects have no pixel there."""
        labels = label_image(found)
        save_labels(self.folder, image.name, labels)
        there = np.zeros(len(found) + 1, bool)
        for strip in range(0, len(labels), _STRIP):  # numpy makes indices of 8 bytes of them
            there[labels[strip : strip + _STRIP]] = True
        return int(len(found) - there[1:].sum())

    def add(self, rendered: int) -> None:
        self._hidden += rendered

    def notes(self) -> list[str]:
        return counted(self._hidden, "without a pixel, or wholly below others", "not to be seen in the label images")


@contextlib.contextmanager
def open_labels(folder: Path, class_names: ClassNames) -> Iterator[LabelsWriter]:
    """A folder of label images, each of which appears whole."""
    folder.mkdir(parents=True, exist_ok=True)
    yield LabelsWriter(folder)
