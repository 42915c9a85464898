"""CVAT's own format, "CVAT for images 1.1": one XML file, with the images beside it or in `images`.

https://docs.cvat.ai/docs/dataset_management/formats/format-cvat
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from mrcnn.data.content import Content, Kind, short
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats.building import Builder
from mrcnn.data.formats.coco import is_side
from mrcnn.data.formats.files import find_image
from mrcnn.data.formats.shapes import ellipse, numbers, rectangle
from mrcnn.data.formats.xml_files import elements, line_of, root_of
from mrcnn.data.rle import encode_crops
from mrcnn.data.segmentations import SegmentationError, join_segmentations

ROOT = "annotations"
_REFUSED = ("polyline", "points", "cuboid", "skeleton")


def read_cvat(path: Path, images: Path | None = None) -> Content:
    """Read an annotation file.

    Args:
        path: the XML file.
        images: the folder of the images. None: `images` beside the file, or that of the file.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: it is no XML file, or not in this format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No such annotation file: {path}")
    root = root_of(path)
    if root == "annotation":
        raise DatasetError(
            f"{path} holds boxes in Pascal VOC's format, but no masks. Give the folder with SegmentationObject, if "
            "there is one."
        )
    if root is not None and root != ROOT:
        raise DatasetError(f"{path} is not in CVAT's format: its root element is {short(root)}, not {ROOT!r}.")
    near = path.parent
    folders = [near / "images", near] if images is None else [images]
    builder = Builder("cvat", path, near if images is None else images)
    is_empty = True
    for element in elements(path, ("meta", "image", "track")):
        is_empty = False
        if element.tag == "track":
            raise DatasetError(
                f"{path}: {line_of(element)}: is a track, of CVAT for video. Export 'CVAT for images 1.1' instead."
            )
        if element.tag == "meta":
            labels = [(label.findtext("name") or "").strip() for label in element.iter("label")]
            builder.names = list(dict.fromkeys(label for label in labels if label)) or None
        else:
            _add_image(builder, path, element, folders)
    if is_empty:
        raise DatasetError(f"{path} is not in CVAT's format: it has neither 'meta' nor 'image' elements.")
    return builder.finish()


def _add_image(builder: Builder, path: Path, element: Element, folders: list[Path]) -> None:
    name, size = element.get("name"), (_whole(element.get("height")), _whole(element.get("width")))
    if not name or not all(is_side(side) for side in size):
        given = {key: element.get(key) for key in ("name", "width", "height")}
        message = f"an image needs 'name', 'width' and 'height'. Received: {short(given)}."
        builder.reject_image(path, line_of(element), Kind.IMAGE_ENTRY, message)
        return
    subset = element.get("subset")
    places = [*folders, *(folder / subset for folder in folders if subset)]
    image = builder.add_image(find_image(name, places), path, name, size)
    if image is None:
        return
    groups: dict[Any, list[tuple[Element, Any]]] = {}
    for shape in element:
        try:
            segmentation = _segmentation(shape, *size)
        except SegmentationError as error:
            builder.reject(path, _entry(shape, name), error.kind, str(error))
            continue
        if segmentation is not None:
            group = shape.get("group_id", "0")
            groups.setdefault(id(shape) if group in ("", "0") else (shape.get("label"), group), []).append(
                (shape, segmentation)
            )
    for entry, label, segmentation in _instances(builder, path, name, groups, size):
        builder.add_instance(image, label, segmentation, path, entry)


def _instances(
    builder: Builder, path: Path, name: str, groups: dict[Any, list[tuple[Element, Any]]], size: tuple[int, int]
) -> Iterator[tuple[str, Any, Any]]:
    """Each instance: what to call it, its label and its segmentation. Shapes of one label and one group are one."""
    for members in groups.values():
        first, segmentation = members[0]
        if len(members) > 1:
            try:
                segmentation = join_segmentations([member[1] for member in members], *size)
            except SegmentationError as error:
                builder.reject(path, f"{_entry(first, name)} and its group", error.kind, str(error))
                continue
        yield _entry(first, name), first.get("label"), segmentation


def _entry(shape: Element, name: str) -> str:
    return f"{line_of(shape)}, {shape.tag} of {name}"


def _segmentation(shape: Element, height: int, width: int) -> Any:
    """The segmentation of an element; None where it is no shape, such as a tag of the image."""
    if shape.tag in _REFUSED:
        raise SegmentationError(Kind.SHAPE, f"is a {shape.tag}, which encloses nothing. Draw a polygon, or delete it.")
    if shape.tag == "polygon":
        return [_points(shape.get("points"))]
    if shape.tag == "box":
        corners = numbers(shape, ("xtl", "ytl", "xbr", "ybr"))
        return [rectangle(*corners, math.radians(_rotation(shape)))]
    if shape.tag == "ellipse":
        return [ellipse(*numbers(shape, ("cx", "cy", "rx", "ry")), math.radians(_rotation(shape)))]
    return _mask(shape, height, width) if shape.tag == "mask" else None


def _rotation(shape: Element) -> float:
    """In degrees, clockwise."""
    return numbers({"rotation": shape.get("rotation", "0")}, ("rotation",))[0]


def _points(text: str | None) -> list[float]:
    try:
        pairs = [point.split(",") for point in (text or "").split(";")]
        return [float(value) for x, y in pairs for value in (x, y)]
    except ValueError:
        message = f"needs 'points' such as '1.5,2;3,4;5,6'. Received: {short(text)}."
        raise SegmentationError(Kind.COORDINATES, message) from None


def _mask(shape: Element, height: int, width: int) -> dict[str, Any]:
    """Run lengths of a mask, which are told row by row of its box: of pixels out and in by turns."""
    box = {key: _whole(shape.get(key)) for key in ("left", "top", "width", "height")}
    if not all(is_side(box[key]) for key in ("width", "height")) or box["left"] is None or box["top"] is None:
        raise SegmentationError(
            Kind.COORDINATES, f"needs whole numbers 'left', 'top', 'width' and 'height'. Received: {short(box)}."
        )
    left, top = box["left"], box["top"]
    if not (0 <= left <= width - box["width"] and 0 <= top <= height - box["height"]):
        raise SegmentationError(
            Kind.COORDINATES, f"lies outside its image of {height} x {width} (height x width): {short(box)}."
        )
    try:
        runs = [int(run) for run in (shape.get("rle") or "").split(",")]
    except ValueError:
        message = f"needs 'rle', whole numbers with commas between. Received: {short(shape.get('rle'))}."
        raise SegmentationError(Kind.RUNS, message) from None
    area = box["width"] * box["height"]
    if any(run < 0 for run in runs) or sum(runs) != area:
        message = f"has run lengths of a sum of {short(sum(runs))}. Its box has {area} pixels."
        raise SegmentationError(Kind.RUNS, message)
    mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(box["height"], box["width"])
    if not mask.any():
        raise SegmentationError(Kind.EMPTY, "has no pixel.")
    return encode_crops([(mask, top, left)], (height, width))[0]


def _whole(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None
