"""labelme's files, one a JSON for each image: what labelme 3 and later read and write.

An object is a polygon for each of its parts; those of one object bear one `group_id`, which is labelme's own way to
say so. Holes are joined to the outline by seams, see `mrcnn.data.outlines`. Points are (x, y) in *pixels*.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.data.content import Content
from mrcnn.data.writing.objects import part_lines
from mrcnn.data.writing.target import Written

# What labelme 5 and 6 write; it is told, and nothing hangs on it.
VERSION = "5.5.0"


def labelme_shapes(
    label: str, outlines: Sequence[np.ndarray], group_id: int, more: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The shapes of one object.

    Args:
        label: its class.
        outlines: of its parts, [M, 2] each, M at least 3.
        group_id: no other object's of the image; told only of an object of several parts.
        more: what else to say of the object, such as its score. labelme keeps what it does not know.
    """
    return [
        {
            "label": label,
            "points": np.asarray(outline, np.float64).tolist(),
            "group_id": group_id if len(outlines) > 1 else None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
            **(more or {}),
        }
        for outline in outlines
    ]


def labelme_text(shapes: Iterable[dict[str, Any]], image_path: str, height: int, width: int) -> str:
    """The text of the file of an image.

    Args:
        shapes: of all objects, see `labelme_shapes`.
        image_path: of the image, from the file's own folder; see `path_from`.
        height, width: of the image as it is shown: turned as its EXIF orientation says.
    """
    content = {
        "version": VERSION,
        "flags": {},
        "shapes": list(shapes),
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": int(height),
        "imageWidth": int(width),
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def path_from(folder: Path, file: Path) -> str:
    """The path of a file as seen from a folder, with / on every system; whole, where the two share no drive."""
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:
        return Path(file).absolute().as_posix()


class LabelmeTarget:
    """See `mrcnn.data.writing.target.Target`."""

    is_flat = True

    def __init__(self, folder: Path, place: Path, handling: str, report: Written) -> None:
        self.folder, self.place, self.handling, self.report = folder, place, handling, report

    def images_of(self, part: str) -> Path:
        return self.folder / part

    def begin(self, part: str, content: Content) -> None:
        self._part, self._content = part, content
        (self.folder / part).mkdir(exist_ok=True)
        self._names = {category["id"]: str(category["name"]) for category in content.categories}

    def add(self, image: dict[str, Any], name: str, annotations: list[dict[str, Any]]) -> None:
        shapes = []
        for number, annotation in enumerate(annotations, start=1):
            if annotation.get("iscrowd"):
                self.report.crowds += 1
                continue
            lines = part_lines(annotation["segmentation"])
            self.report.empty += not lines
            self.report.objects += bool(lines)
            shapes += labelme_shapes(self._names[annotation["category_id"]], lines, number)
        path = (self.folder / self._part / name).with_suffix(".json")
        image_path = Path(name).name
        if self.handling == "none":
            image_path = path_from((self.place / self._part / name).parent, self._content.image_path(image))
        path.write_text(labelme_text(shapes, image_path, image["height"], image["width"]), encoding="utf-8")

    def end(self) -> None:
        pass
