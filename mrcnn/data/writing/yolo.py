"""YOLO's text files for segmentation, as Ultralytics reads them: a line for each object, its class, counted from 0,
and one polygon x1 y1 x2 y2 ... in shares of the image's width and height.

One polygon is all that a line holds, so the parts of an object are joined, and holes kept, by seams; see
`mrcnn.data.outlines`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.data.content import Content
from mrcnn.data.writing.objects import one_line
from mrcnn.data.writing.target import Written
from mrcnn.files import write_text


def yolo_line(class_index: int, outline: np.ndarray, height: int, width: int) -> str:
    """The line of one object, without its end.

    Args:
        class_index: from 0 on.
        outline: [M, 2] in pixels, M at least 3, within the image.
        height, width: of the image.
    """
    shares = np.clip(np.asarray(outline, np.float64) / (width, height), 0, 1)
    return " ".join([str(class_index), *(f"{value:.6f}" for value in shares.ravel().tolist())])


def data_yaml(class_names: Sequence[str], parts: Mapping[str, str] | None = None) -> str:
    """The text of a data.yaml, from whose folder its paths are taken.

    Args:
        class_names: [K], without a background.
        parts: folders of images by the part of the data that they are: train, val, test.
    """
    lines = [f"{part}: {_quoted(folder)}" for part, folder in (parts or {}).items()]
    lines += [f"nc: {len(class_names)}", "names:" if class_names else "names: {}"]
    lines += [f"  {index}: {_quoted(name)}" for index, name in enumerate(class_names)]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A YAML string in quotes, whatever is in it; PyYAML is not there where only detection is installed."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'


class YoloTarget:
    """See `mrcnn.data.writing.target.Target`. Classes are counted in the order of the categories."""

    is_flat = True

    def __init__(self, folder: Path, place: Path, handling: str, report: Written) -> None:
        self.folder, self.handling, self.report = folder, handling, report
        self._names: list[str] = []
        self._parts: dict[str, str] = {}

    def images_of(self, part: str) -> Path:
        return self.folder / "images" / part

    def begin(self, part: str, content: Content) -> None:
        self._part = part
        self._index = {category["id"]: index for index, category in enumerate(content.categories)}
        self._names = [str(category["name"]) for category in content.categories]
        for name in [part] if part else ["train", "val"]:  # both are asked for, if there is only one set
            self._parts[name] = f"images/{part}" if part else "images"
        (self.folder / "labels" / part).mkdir(parents=True, exist_ok=True)

    def add(self, image: dict[str, Any], name: str, annotations: list[dict[str, Any]]) -> None:
        lines, size = [], (image["height"], image["width"])
        for annotation in annotations:
            if annotation.get("iscrowd"):
                self.report.crowds += 1
                continue
            line, is_changed = one_line(annotation["segmentation"], *size)
            if len(line) == 0:
                self.report.empty += 1
                continue
            self.report.joined += is_changed
            self.report.objects += 1
            lines.append(yolo_line(self._index[annotation["category_id"]], line, *size) + "\n")
        path = (self.folder / "labels" / self._part / name).with_suffix(".txt")
        path.write_text("".join(lines), encoding="utf-8")

    def end(self) -> None:
        write_text(self.folder / "data.yaml", data_yaml(self._names, self._parts if self.handling != "none" else None))
