"""Detections as a table with measurements, one row for each object: CSV in UTF-8, with commas and a point in numbers.

The columns are `COLUMNS`, in pixels, x from the left and y from the top, the centers of pixels having whole
coordinates:

- image: the image's path; object: the number of the object in it, from 1 on, the same as in the label image;
- class_id, class, score;
- area: pixels of the mask; centroid_x, centroid_y: their mean, empty for a mask without a pixel;
- x1, y1, x2, y2: the box that the network gave, x2 and y2 one outside;
- perimeter: by Crofton's formula in four directions, which is right for round objects in the mean and some percents
  low for squares; borders of holes and of the image count;
- equivalent_diameter: of a disk of that area;
- touches_border: 1 where the mask reaches the image's first or last row or column, and may go on beyond.
"""

from __future__ import annotations

import contextlib
import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from mrcnn.files import atomic_path
from mrcnn.results.instances import ClassNames, Instances, ResultImage, class_name

COLUMNS = (
    "image", "object", "class_id", "class", "score", "area", "centroid_x", "centroid_y", "x1", "y1", "x2", "y2",
    "perimeter", "equivalent_diameter", "touches_border",
)  # fmt: skip


class MeasurementsWriter:
    """See `mrcnn.results.writer.Writer`."""

    def __init__(self, file: TextIO, class_names: ClassNames) -> None:
        self.class_names = class_names
        self._table = csv.writer(file, lineterminator="\n")
        self._table.writerow(COLUMNS)

    def render(self, image: ResultImage, found: Instances) -> list[list[Any]]:
        """The rows of an image."""
        return [
            [
                image.path,
                number,
                class_id,
                class_name(self.class_names, class_id),
                f"{score:.6g}",
                *measure(crop, top, left),
                *(x1, y1, x2, y2),
                f"{perimeter(crop):.2f}",
                f"{math.sqrt(4 * np.count_nonzero(crop) / math.pi):.2f}",
                int(_touches_border(crop, top, left, found.height, found.width)),
            ]
            for number, ((crop, top, left), (y1, x1, y2, x2), class_id, score) in enumerate(
                zip(found.crops(), found.rois.tolist(), found.class_ids.tolist(), found.scores.tolist(), strict=True), 1
            )
        ]

    def add(self, rendered: list[list[Any]]) -> None:
        self._table.writerows(rendered)

    def notes(self) -> list[str]:
        return []


def measure(crop: np.ndarray, top: int, left: int) -> tuple[int, str, str]:
    """Area and centroid (x, y) of a mask of which the part `crop` [h, w] bool is at `top`, `left`; without a pixel the
    centroid is empty."""
    area = int(np.count_nonzero(crop))
    if area == 0:
        return 0, "", ""
    x = np.count_nonzero(crop, axis=0) @ np.arange(crop.shape[1]) / area + left
    y = np.count_nonzero(crop, axis=1) @ np.arange(crop.shape[0]) / area + top
    return area, f"{x:.3f}", f"{y:.3f}"


def perimeter(crop: np.ndarray) -> float:
    """The length of a mask's borders, in pixels: Crofton's formula, with the crossings of lines in four directions.

    Rows and columns lie 1 apart, diagonals the root of 2 less; each direction stands for a quarter of all.
    """
    padded = np.pad(crop, 1)
    straight = np.count_nonzero(padded[1:] != padded[:-1]) + np.count_nonzero(padded[:, 1:] != padded[:, :-1])
    slanted = np.count_nonzero(padded[1:, 1:] != padded[:-1, :-1])
    slanted += np.count_nonzero(padded[1:, :-1] != padded[:-1, 1:])
    return math.pi / 8 * (straight + slanted / math.sqrt(2))


def _touches_border(crop: np.ndarray, top: int, left: int, height: int, width: int) -> bool:
    rows, columns = crop.shape  # crops are tight
    return crop.size > 0 and (top == 0 or left == 0 or top + rows == height or left + columns == width)


@contextlib.contextmanager
def open_measurements(path: Path, class_names: ClassNames) -> Iterator[MeasurementsWriter]:
    """A table, which appears whole when the body is left, or, after an error, not at all."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        yield MeasurementsWriter(file, class_names)
