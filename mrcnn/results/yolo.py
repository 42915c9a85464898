"""Detections as YOLO's text files for segmentation: labels/NAME.txt for each image, and data.yaml with the names.

Classes are counted from 0, without the background. Scores are not told: with them the lines would be no labels that can
be trained on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from mrcnn.data.outlines import one_outline
from mrcnn.data.writing.yolo import data_yaml, yolo_line
from mrcnn.files import write_text
from mrcnn.results.instances import ClassNames, Instances, ResultImage, class_name
from mrcnn.results.writer import counted


class YoloWriter:
    """See `mrcnn.results.writer.Writer`."""

    def __init__(self, folder: Path, class_names: ClassNames) -> None:
        self.folder, self.class_names = folder, class_names
        self._joined = self._empty = self._last_class = 0

    def render(self, image: ResultImage, found: Instances) -> tuple[int, int, int]:
        """Write an image's labels; how many objects were joined of parts, how many have no pixel, the last class."""
        lines, joined, empty = [], 0, 0
        for crop, class_id in zip(found.crops(), found.class_ids.tolist(), strict=True):
            class_name(self.class_names, class_id)  # refuses one without a name
            outline, parts = one_outline(*crop)
            joined, empty = joined + (parts > 1), empty + (parts == 0)
            if parts:
                lines.append(yolo_line(class_id - 1, outline, found.height, found.width) + "\n")
        write_text(self.folder / "labels" / f"{image.name}.txt", "".join(lines))
        return joined, empty, max(found.class_ids.tolist(), default=0)

    def add(self, rendered: tuple[int, int, int]) -> None:
        joined, empty, last = rendered
        self._joined, self._empty = self._joined + joined, self._empty + empty
        self._last_class = max(self._last_class, last)

    def end(self) -> None:
        names = self.class_names
        if names is not None:
            last = max(names, default=0) if isinstance(names, Mapping) else len(names) - 1
        else:
            last = self._last_class
        told = [str(names.get(n, f"class {n}")) if isinstance(names, Mapping) else class_name(names, n)
                for n in range(1, last + 1)]  # fmt: skip
        write_text(self.folder / "data.yaml", data_yaml(told))

    def notes(self) -> list[str]:
        return [
            *counted(self._joined, "of several parts", "each joined to one polygon by lines"),
            *counted(self._empty, "without a pixel", "left out"),
        ]


@contextlib.contextmanager
def open_yolo(folder: Path, class_names: ClassNames) -> Iterator[YoloWriter]:
    """A folder of YOLO's labels, each of which appears whole; data.yaml when the body is left."""
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    writer = YoloWriter(folder, class_names)
    yield writer
    writer.end()
