"""labelme (https://github.com/wkentaro/labelme), versions 3 to 6: one JSON file for each image.

Points are meant for the image as it is shown, its EXIF orientation heeded.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.data.content import NO_IMAGE, Content, Kind, short
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats.building import Builder
from mrcnn.data.formats.coco import is_side, read_json
from mrcnn.data.formats.files import files_of, find_image, watched
from mrcnn.data.formats.label_images import label_values
from mrcnn.data.formats.shapes import ellipse, rectangle
from mrcnn.data.image_lists import IMAGE_SUFFIXES
from mrcnn.data.images import ImageError, read_values
from mrcnn.data.rle import encode_crops
from mrcnn.data.segmentations import SegmentationError, join_segmentations

_NO_OBJECT = ("__ignore__", "_background_")
_REFUSED = ("line", "linestrip", "point", "points")


def is_labelme(parsed: Any) -> bool:
    """Whether the content of a JSON file is meant as labelme's."""
    return isinstance(parsed, dict) and isinstance(parsed.get("shapes"), list) and "imagePath" in parsed


def read_labelme(path: Path, images: Path | None = None, parsed: Any = None) -> Content:
    """Read a file, or all the files of a folder.

    Images of a folder that have no file are left out: nobody has looked at them yet. So are shapes with the labels
    `__ignore__` and `_background_`, which are labelme's for what is no object.

    Args:
        path: a JSON file, or a folder of them; where it has none itself, those in folders below it.
        images: the folder of the images. None: where the files say, or beside them.
        parsed: what `read_json` makes of the file, where that is known.

    Raises:
        FileNotFoundError: there is no such file, or none in the folder.
        DatasetError: the only file is no JSON file, or not in this format.
    """
    is_folder = path.is_dir()
    files = (files_of(path, "*.json") or files_of(path, "**/*.json")) if is_folder else [path]
    if not files:
        raise FileNotFoundError(f"{path} holds no labelme files (*.json).")
    builder = Builder("labelme", path, images or (path if is_folder else path.parent))
    for file in watched(files, "reading annotations"):
        try:
            _add_file(builder, file, images, parsed)
        except (DatasetError, FileNotFoundError) as error:
            if len(files) == 1:
                raise
            builder.report(file, "", Kind.FILE, str(error).removeprefix(f"{file} "))
    return builder.finish()


def _add_file(builder: Builder, file: Path, images: Path | None, parsed: Any) -> None:
    parsed = read_json(file) if parsed is None else parsed
    if not is_labelme(parsed):
        raise DatasetError(
            f"{file} is not in labelme's format: it must be an object with a list of 'shapes' and an 'imagePath'."
        )
    name = parsed["imagePath"]
    if not isinstance(name, str):
        builder.reject_image(file, "", Kind.IMAGE_ENTRY, f"'imagePath' must be text. Received: {short(name)}.")
        return
    size = parsed.get("imageHeight"), parsed.get("imageWidth")
    if size != (None, None) and not all(is_side(side) for side in size):
        message = f"'imageHeight' and 'imageWidth' must be whole numbers from 1 on. Received: {short(size)}."
        builder.reject_image(file, "", Kind.IMAGE_ENTRY, message)
        return
    folders = [file.parent] if images is None else [images]
    # Of some files the name is their own: then the image is called like it.
    names = [name, file.stem] if name.lower().endswith(IMAGE_SUFFIXES) else [file.stem, name]
    found = next(filter(None, (find_image(one, folders) for one in names)), None)
    if found is None and parsed.get("imageData"):
        message = f"{NO_IMAGE} The annotation file embeds it: save it beside, with labelme."
        builder.reject_image(file, name, Kind.MISSING_IMAGE, message)
        return
    image = builder.add_image(found, file, name, None if size == (None, None) else size)
    if image is None:
        return
    for entry, label, segmentation in _instances(builder, file, parsed["shapes"], image):
        builder.add_instance(image, label, segmentation, file, entry)


def _instances(
    builder: Builder, file: Path, shapes: list[Any], image: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Each instance: what to call it, its label and its segmentation. Shapes of one label and one group are one."""
    height, width = image["height"], image["width"]
    groups: dict[Any, list[tuple[str, Any, Any]]] = {}
    for number, shape in enumerate(shapes):
        entry = f"shape {number}"
        try:
            if not isinstance(shape, dict):
                raise SegmentationError(Kind.ANNOTATION, f"is no object. Received: {short(shape)}.")
            segmentation = _segmentation(shape, height, width)
        except (SegmentationError, ImageError) as error:
            builder.reject(file, entry, getattr(error, "kind", Kind.ANNOTATION), str(error))
            continue
        label, group = shape.get("label"), shape.get("group_id")
        if label in _NO_OBJECT:
            message = f"is left out, because its label is {label!r}."
            builder.report(file, entry, Kind.CLASS, message, is_error=False)
            continue
        is_grouped = isinstance(group, int | str) and isinstance(label, str)
        groups.setdefault((label, group) if is_grouped else number, []).append((entry, label, segmentation))
    for members in groups.values():
        entry, label, segmentation = members[0]
        if len(members) > 1:
            try:
                segmentation = join_segmentations([member[2] for member in members], height, width)
            except SegmentationError as error:
                builder.reject(file, f"{entry} and those of its group", error.kind, str(error))
                continue
        yield entry, label, segmentation


def _segmentation(shape: dict[str, Any], height: int, width: int) -> Any:
    kind = shape.get("shape_type") or "polygon"  # version 3 has polygons only, and does not say so
    if kind in _REFUSED:
        raise SegmentationError(Kind.SHAPE, f"is a {kind}, which encloses nothing. Draw a polygon, or delete it.")
    points = _points(shape.get("points"))
    if kind == "polygon" or (kind in ("rectangle", "oriented_rectangle") and len(points) == 4):
        return [points.ravel().tolist()]
    if kind not in ("rectangle", "circle", "mask"):
        message = f"has no shape that is known: polygon, rectangle, circle or mask. Received: {short(kind)}."
        raise SegmentationError(Kind.SHAPE, message)
    if len(points) != 2:
        raise SegmentationError(Kind.POINTS, f"is a {kind}, which needs two points. Received: {len(points)}.")
    (x1, y1), (x2, y2) = points.tolist()
    if kind == "rectangle":
        return [rectangle(x1, y1, x2, y2)]
    if kind == "circle":
        radius = float(np.hypot(x2 - x1, y2 - y1))
        return [ellipse(x1, y1, radius, radius)]
    return _mask(shape.get("mask"), (x1, y1), height, width)


def _points(points: Any) -> np.ndarray:
    """[P, (x, y)] float64."""
    try:
        array = np.array(points, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(0)
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all():
        message = f"needs 'points', a list of [x, y] of finite numbers. Received: {short(points)}."
        raise SegmentationError(Kind.COORDINATES, message)
    return array


def _mask(text: Any, corner: tuple[float, float], height: int, width: int) -> dict[str, Any]:
    """Run lengths of a mask that is a PNG of its box, in base64."""
    if not isinstance(text, str):
        raise SegmentationError(
            Kind.ANNOTATION, f"is a mask, which needs a PNG 'mask' in base64. Received: {short(text)}."
        )
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SegmentationError(Kind.ANNOTATION, f"has a 'mask' that is no base64: {error}.") from error
    mask = label_values(next(read_values(io.BytesIO(data), "its 'mask'")), "its 'mask'")
    left, top = (round(value) for value in corner)
    if abs(left) > width or abs(top) > height:
        raise SegmentationError(Kind.COORDINATES, f"has a mask at {left}, {top}, outside its image.")
    inside = mask[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)]
    if not inside.any():
        raise SegmentationError(Kind.EMPTY, "has a mask without a pixel in its image.")
    return encode_crops([(inside != 0, max(0, top), max(0, left))], (height, width))[0]
