"""Detections as one file in COCO's format of results, written as they come. The masks are run-length encoded."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from mrcnn.coco_results import coco_boxes
from mrcnn.files import atomic_path
from mrcnn.results.instances import ClassNames, Instances, ResultImage, class_name


class CocoWriter:
    """See `mrcnn.results.writer.Writer`."""

    def __init__(self, file: TextIO, class_names: ClassNames) -> None:
        self.file, self.class_names = file, class_names
        self._between = "["

    def render(self, image: ResultImage, found: Instances) -> list[dict[str, Any]]:
        """COCO results of an image. Category ids are the network's class numbers; names and file are told beside
        them."""
        about = {"image_id": image.id, "file_name": image.path, **image.more}
        return [
            {
                **about,
                "category_id": class_id,
                "category_name": class_name(self.class_names, class_id),
                "bbox": box,
                "score": float(score),
                "segmentation": rle,
            }
            for class_id, box, score, rle in zip(
                found.class_ids.tolist(), coco_boxes(found.rois), found.scores, found.encoded(), strict=True
            )
        ]

    def add(self, rendered: list[dict[str, Any]]) -> None:
        for entry in rendered:
            self.file.write(self._between + json.dumps(entry, allow_nan=False, separators=(",", ":")))
            self._between = ",\n"

    def end(self) -> None:
        self.file.write("[]\n" if self._between == "[" else "]\n")

    def notes(self) -> list[str]:
        return []


@contextlib.contextmanager
def open_coco(path: Path, class_names: ClassNames) -> Iterator[CocoWriter]:
    """A file of results, which appears whole when the body is left, or, after an error, not at all."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        writer = CocoWriter(file, class_names)
        yield writer
        writer.end()
