"""Detections as labelme files, to be looked through and corrected there: one JSON for each image.

A shape also tells its `score`, which labelme keeps. `imagePath` leads to the image where it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mrcnn.data.outlines import part_outlines
from mrcnn.data.writing.labelme import labelme_shapes, labelme_text, path_from
from mrcnn.files import write_text
from mrcnn.results.instances import ClassNames, Instances, ResultImage, class_name
from mrcnn.results.writer import counted


class LabelmeWriter:
    """See `mrcnn.results.writer.Writer`."""

    def __init__(self, folder: Path, class_names: ClassNames) -> None:
        self.folder, self.class_names = folder, class_names
        self._empty = 0

    def render(self, image: ResultImage, found: Instances) -> int:
        """Write an image's file; how many of its masks are empty."""
        shapes, empty = [], 0
        about = zip(found.crops(), found.class_ids.tolist(), found.scores.tolist(), strict=True)
        for number, (crop, class_id, score) in enumerate(about, start=1):
            outlines = part_outlines(*crop)
            empty += not outlines
            name = class_name(self.class_names, class_id)
            shapes += labelme_shapes(name, outlines, number, {"score": round(score, 6)})
        text = labelme_text(shapes, path_from(self.folder, Path(image.path)), found.height, found.width)
        write_text(self.folder / f"{image.name}.json", text)
        return empty

    def add(self, rendered: int) -> None:
        self._empty += rendered

    def notes(self) -> list[str]:
        return counted(self._empty, "without a pixel", "left out")


@contextlib.contextmanager
def open_labelme(folder: Path, class_names: ClassNames) -> Iterator[LabelmeWriter]:
    """A folder of labelme files, each of which appears whole."""
    folder.mkdir(parents=True, exist_ok=True)
    yield LabelmeWriter(folder, class_names)
