"""A dataset as COCO files: annotations.json, or annotations/PART.json for each part, beside images/."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mrcnn.data.content import Content, plain_segmentation
from mrcnn.data.writing.objects import run_lengths_of
from mrcnn.data.writing.target import Written


class CocoTarget:
    """See `mrcnn.data.writing.target.Target`. Ids stay as they are where COCO's own tools take them: whole numbers, for
    annotations above 0, which stands for none."""

    is_flat = False

    def __init__(self, folder: Path, place: Path, handling: str, report: Written) -> None:
        self.folder, self.handling, self.report = folder, handling, report
        self._path: Path | None = None

    def images_of(self, part: str) -> Path:
        return self.folder / "images" / part

    def begin(self, part: str, content: Content) -> None:
        self._end_file()
        self._path = self.folder / "annotations" / f"{part}.json" if part else self.folder / "annotations.json"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._categories = content.categories
        self._images: list[dict[str, Any]] = []
        self._count = 0
        self._keep_images = all(type(image["id"]) is int for image in content.images)
        ids = [annotation["id"] for annotation in content.annotations]
        self._keep_ids = all(type(n) is int and n > 0 for n in ids) and len(set(ids)) == len(ids)
        self._write('{"annotations": [')

    def add(self, image: dict[str, Any], name: str, annotations: list[dict[str, Any]]) -> None:
        number = image["id"] if self._keep_images else len(self._images) + 1
        entry = {**image, "id": number}
        if self.handling != "none":
            entry = {key: value for key, value in entry.items() if key != "frame"} | {"file_name": name}
        self._images.append(entry)
        lines = []
        for annotation in annotations:
            written = _complete(annotation, image["height"], image["width"])
            written["id"] = annotation["id"] if self._keep_ids else self._count + 1
            written["image_id"] = number
            lines.append((",\n" if self._count else "\n") + json.dumps(written))
            self._count += 1
        self._write("".join(lines))
        self.report.objects += len(annotations)

    def end(self) -> None:
        self._end_file()

    def _end_file(self) -> None:
        if self._path is not None:
            rest = json.dumps({"images": self._images, "categories": self._categories}, ensure_ascii=False)
            self._write(f"\n],\n{rest[1:]}\n")

    def _write(self, text: str) -> None:
        # Piece by piece, for the text of all annotations can take more memory than they do.
        with open(self._path, "a", encoding="utf-8", newline="\n") as file:
            file.write(text)


def _complete(annotation: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """An annotation fit for JSON, with `area`, `bbox` and `iscrowd`, which COCO's tools need."""
    from pycocotools import mask as coco_mask

    written = {**annotation, "segmentation": plain_segmentation(annotation["segmentation"])}
    written.setdefault("iscrowd", 0)
    if not _are_numbers([written.get("area")], 1) or not _are_numbers(written.get("bbox"), 4):
        rle = run_lengths_of(annotation["segmentation"], height, width)
        written |= {"area": float(coco_mask.area(rle)), "bbox": coco_mask.toBbox(rle).tolist()}
    return written


def _are_numbers(values: Any, count: int) -> bool:
    fit = isinstance(values, list) and len(values) == count and all(type(value) in (int, float) for value in values)
    return fit and all(math.isfinite(value) for value in values)
