"""Detections written to files: the formats, and one function for all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrcnn.data.images import image_sizes
from mrcnn.data.writing.names import free_name
from mrcnn.results.coco import open_coco
from mrcnn.results.instances import ClassNames, Instances, ResultImage
from mrcnn.results.labelme import open_labelme
from mrcnn.results.labels import open_labels
from mrcnn.results.measurements import open_measurements
from mrcnn.results.writer import Writer
from mrcnn.results.yolo import open_yolo


@dataclass(frozen=True)
class Format:
    """A format of results.

    Attributes:
        open: (path, class names) -> context manager, which gives a `Writer`.
        place: how its file, or its folder, is called where nobody names it.
        about: what it is, in words.
    """

    open: Callable[[Path, ClassNames], AbstractContextManager[Writer]]
    place: str
    about: str


FORMATS: dict[str, Format] = {
    "coco": Format(open_coco, "detections.json", "one JSON file of COCO's results, masks run-length encoded"),
    "labelme": Format(open_labelme, "labelme", "a labelme JSON for each image, to be corrected there"),
    "yolo": Format(open_yolo, "yolo", "YOLO's labels for segmentation, a text file for each image, and data.yaml"),
    "labels": Format(open_labels, "labels", "a label image for each image: 0 is background, n the nth object"),
    "csv": Format(open_measurements, "measurements.csv", "one table with area, centroid, box and more of each object"),
}

_OF_SUFFIX = {".json": "coco", ".csv": "csv"}


def save_results(
    path: str | os.PathLike,
    results: Iterable[Mapping[str, Any] | None],
    images: Sequence[str | os.PathLike],
    class_names: ClassNames = None,
    *,
    format: str | None = None,
) -> list[str]:
    """Write what `detect` found in images.

        results = detector.detect(paths, masks="rle")
        save_results("out/measurements.csv", results, paths, detector.class_names)
        save_results("out/labelme", results, paths, detector.class_names, format="labelme")

    Results are taken one by one, so they may come from `Detector.stream`. Those with masks as "rle" or "polygons" are
    written without anything of the size [H, W, N]. Files appear whole or not at all. Files of one image bear its name;
    of images with one name in several folders the second is called NAME_2.

    Args:
        path: the file ("coco", "csv") or the folder ("labelme", "yolo", "labels"; made where it is not there).
        results: of `detect`, one for each image, with masks; None for an image that is to be left out.
        images: the paths of the images. Their sizes are those of the masks; where these tell none (masks as polygons;
            masks="rle" and nothing found), that of the result's `image` (see `Detector.stream`) or of the file.
        class_names: by class id, the background's first; None: "class 3" and so on.
        format: one of `FORMATS`; None: "coco" for a path that ends in .json, "csv" for .csv.

    Returns:
        Notes on objects that the format cannot hold as they are, for people.

    Raises:
        ValueError: an unknown format; a result that lacks a part, or does not go with its image; more results than
            images or fewer; a class without a name.
        OSError: what cannot be written.
    """
    path = Path(path)
    chosen = _OF_SUFFIX.get(path.suffix.lower()) if format is None else format
    if chosen not in FORMATS:
        known = ", ".join(FORMATS)
        told = f"{format!r}" if format is not None else f"None, which goes for .json and .csv, with the path {path}"
        raise ValueError(f"format must be one of {known}. Received: {told}.")
    if isinstance(images, str | os.PathLike) or isinstance(results, Mapping):
        raise ValueError("save_results takes a list of results and a list of images' paths. Received: a single one.")
    used: set[str] = set()
    with FORMATS[chosen].open(path, class_names) as writer:
        for number, (image, result) in enumerate(_pairs(images, results), start=1):
            name = free_name(Path(image).stem, used)
            if result is not None:
                about = ResultImage(os.fspath(image), name, number)
                found = Instances.of(result, about.path, _shape(result, image))
                writer.add(writer.render(about, found))
        return writer.notes()


def _pairs(images: Sequence[Any], results: Iterable[Any]) -> Iterable[tuple[Any, Any]]:
    try:
        yield from zip(images, results, strict=True)
    except ValueError as error:
        if "zip()" not in str(error):
            raise
        raise ValueError(f"There must be a result for each of the {len(images)} images. {error}") from error


def _shape(result: Mapping[str, Any], image: str | os.PathLike) -> tuple[int, int] | None:
    """The size of an image's file where the result does not tell one."""
    masks = result.get("masks")
    told = hasattr(masks, "shape") or hasattr(result.get("image"), "shape")
    if told or masks is None or any(isinstance(mask, Mapping) for mask in masks) or not os.path.exists(image):
        return None
    return image_sizes(image)[0]
