"""Whole datasets, written as COCO, as YOLO's labels for segmentation or for labelme, with their images.

coco      annotations.json, images/           of several parts: annotations/PART.json, images/PART/
yolo      data.yaml, images/, labels/         of several parts: images/PART/, labels/PART/
labelme   images with a JSON beside each      of several parts: PART/
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mrcnn.data.content import Content
from mrcnn.data.writing.coco import CocoTarget
from mrcnn.data.writing.images import HANDLINGS, inner_names, place_image
from mrcnn.data.writing.labelme import LabelmeTarget
from mrcnn.data.writing.target import Target, Written
from mrcnn.data.writing.yolo import YoloTarget
from mrcnn.files import atomic_folder

FORMATS: dict[str, Callable[[Path, Path, str, Written], Target]] = {
    "coco": CocoTarget,
    "yolo": YoloTarget,
    "labelme": LabelmeTarget,
}


def write_dataset(
    parts: Content | Mapping[str, Content],
    folder: str | os.PathLike,
    format: str,
    images: str = "copy",
    tick: Callable[[], None] | None = None,
) -> Written:
    """Write a dataset into a new folder, which appears whole or not at all.

    Args:
        parts: the dataset, or several by the part of it that they are, such as train and val. They have the same
            categories.
        folder: where to; it must not be there, or be empty.
        format: one of `FORMATS`.
        images: what becomes of the images: "copy"; "link", symbolic ones; or "none": they stay where they are, file
            names in COCO are those from before, paths in labelme lead to them, and YOLO's labels are to be put beside
            them.
        tick: called after each image.

    Raises:
        ValueError: an unknown format or handling; parts whose categories differ.
        FileExistsError: there is something in the folder.
        FileNotFoundError, ImageError, OSError: of an image that cannot be read, and of a folder that cannot be made.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}. Received: {format!r}.")
    if images not in HANDLINGS:
        raise ValueError(f"images must be one of {', '.join(HANDLINGS)}. Received: {images!r}.")
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"The folder {folder} is not empty. Choose another, or remove it first.")
    parts = {"": parts} if isinstance(parts, Content) else parts
    names = {part: [(c["id"], c["name"]) for c in content.categories] for part, content in parts.items()}
    for part, categories in names.items():
        if categories != next(iter(names.values())):
            raise ValueError(f"The parts must have the same categories. Those of {part} differ from the first's.")
    report = Written()
    with atomic_folder(folder) as temporary:
        target = FORMATS[format](temporary, folder, images, report)
        for part, content in parts.items():
            target.begin(part, content)
            of_image: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in content.images}
            for annotation in content.annotations:
                of_image[annotation["image_id"]].append(annotation)
            used: set[str] = set()
            for image, name in zip(content.images, inner_names(content, target.is_flat), strict=True):
                name, anew = place_image(content, image, name, target.images_of(part), images, used)
                target.add(image, name, of_image[image["id"]])
                report.images, report.written_anew = report.images + 1, report.written_anew + anew
                if tick is not None:
                    tick()
        target.end()
    return report
