"""The COCO format: one JSON file of images, categories and annotations (https://cocodataset.org/#format-data).

Also what Label Studio, Roboflow, CVAT, VIA 3, datumaro and others export as "COCO".
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from mrcnn.data.content import NO_IMAGE, Content, Kind, Problem, short
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats.files import find_folder, find_image, is_file
from mrcnn.data.images import ImageError, image_sizes
from mrcnn.data.rle import compress
from mrcnn.data.segmentations import (
    SegmentationError,
    check_segmentation,
    compact_numbers,
    compact_segmentation,
    run_lengths,
)

# What an image may measure, for arithmetic on its pixels to stay within 64 bits.
_LONGEST_SIDE = 1_000_000
# Where VIA 1 and 2 keep the corners of a polygon.
_VIA_CORNERS = ("all_points_x", "all_points_y")
# What VIA 3 gives for the height and the width of all images.
_UNKNOWN = -1


def read_json(path: Path) -> Any:
    """The content of a JSON file. Polygons of COCO's and VIA's annotations are made small while it is read.

    Raises:
        FileNotFoundError: there is none.
        DatasetError: it is no JSON file.
    """
    try:
        return json.loads(_text(path), object_hook=_compact)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No such annotation file: {path}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not a JSON file: {error}") from error


def _text(path: Path) -> str:
    """As `json.loads` decodes bytes; but of a large file these do not stay beside the text."""
    data = path.read_bytes()
    return data.decode(json.detect_encoding(data), "surrogatepass")


def _compact(values: dict[str, Any]) -> dict[str, Any]:
    if "segmentation" in values:
        values["segmentation"] = compact_segmentation(values["segmentation"])
    for key in _VIA_CORNERS:
        if key in values:
            values[key] = compact_numbers(values[key])
    return values


def is_coco(parsed: Any) -> bool:
    """Whether the content of a JSON file is meant as COCO's."""
    return isinstance(parsed, dict) and isinstance(parsed.get("images"), list)


def read_coco(path: Path, images: Path | None = None, parsed: Any = None) -> Content:
    """Read an annotation file.

    Args:
        path: the JSON file.
        images: the folder that its `file_name`s are in. None: looked for around the file.
        parsed: what `read_json` makes of the file, where that is known.

    Raises:
        FileNotFoundError: there is no such file or folder.
        DatasetError: it is no JSON file, or not in this format.
    """
    parsed = read_json(path) if parsed is None else parsed
    if not is_coco(parsed):
        raise DatasetError(f"{path} is not in the COCO format: it must be an object with a list of 'images'.")
    for key in ("categories", "annotations"):
        if not isinstance(parsed.setdefault(key, []), list):
            raise DatasetError(f"{path} is not in the COCO format: {key!r} must be a list.")
    if images is not None and not images.is_dir():
        raise FileNotFoundError(f"No such folder of images: {images}")
    names = [image["file_name"] for image in parsed["images"] if _has_name(image)]
    content = Content("coco", path, images or find_folder(path, names))
    _find_files(content, parsed["images"])
    _add_categories(content, parsed["categories"])
    _add_images(content, parsed["images"])
    _add_annotations(content, parsed["annotations"])
    for image in content.images:
        if not is_file(content.image_path(image)):
            _report(content, image["file_name"], Kind.MISSING_IMAGE, NO_IMAGE)
    return content


def _find_files(content: Content, images: list[Any]) -> None:
    """Give images whose name leads to no file that of the file that is meant: other systems' slashes are turned round,
    and folders left out that are another machine's."""
    owners: dict[str, str] = {}  # the name that each file was found by
    missing = []
    for image in filter(_has_name, images):
        if is_file(content.image_path(image)):
            owners[image["file_name"]] = image["file_name"]
        else:
            missing.append(image)
    for image in missing:
        name = image["file_name"]
        found = find_image(name, [content.folder])
        if found is None:
            continue
        file = (found.relative_to(content.folder) if found.is_relative_to(content.folder) else found).as_posix()
        if owners.setdefault(file, name) != name:
            message = f"there is no such image file, and {file}, which it may mean, is that of {short(owners[file])}."
            _report(content, short(name), Kind.DUPLICATE_ID, message)
        else:
            image["file_name"] = file


def _add_categories(content: Content, categories: list[Any]) -> None:
    names: dict[int, str] = {}
    for category in categories:
        if not isinstance(category, dict) or not _is_int(category.get("id")) or not category.get("name"):
            _report(
                content, "categories", Kind.CATEGORY,
                f"a category needs a whole number 'id' and a 'name'. Received: {short(category)}.",
            )  # fmt: skip
            continue
        if category["id"] not in names:
            names[category["id"]] = str(category["name"])
            content.categories.append({**category, "name": str(category["name"])})
        elif names[category["id"]] != str(category["name"]):
            _report(
                content, "categories", Kind.DUPLICATE_ID,
                f"category id {category['id']} is there twice, with different names.",
            )  # fmt: skip


def _add_images(content: Content, images: list[Any]) -> None:
    seen = set()
    for image in images:
        fine = _has_name(image) and isinstance(image.get("id"), int | str)
        fine = fine and _is_int(image.get("frame", 0)) and image.get("frame", 0) >= 0
        if fine and image.get("height") == image.get("width") == _UNKNOWN:
            try:
                image["height"], image["width"] = image_sizes(content.image_path(image), image.get("frame", 0))[0]
            except (FileNotFoundError, ImageError) as error:
                is_missing = isinstance(error, FileNotFoundError)
                kind = Kind.MISSING_IMAGE if is_missing else Kind.UNREADABLE_IMAGE
                _report(content, image["file_name"], kind, str(error))
                content.rejected_images += 1
                continue
        if not fine or not all(is_side(image.get(key)) for key in ("height", "width")):
            message = f"an image needs 'id', 'file_name', 'height' and 'width'. Received: {short(image)}."
            _report(content, "images", Kind.IMAGE_ENTRY, message)
            content.rejected_images += 1
        elif image["id"] in seen:
            _report(content, "images", Kind.DUPLICATE_ID, f"image id {image['id']} is there twice.")
            content.rejected_images += 1
        else:
            seen.add(image["id"])
            content.images.append(image)


def _add_annotations(content: Content, annotations: list[Any]) -> None:
    images = {image["id"]: image for image in content.images}
    categories = {category["id"] for category in content.categories}
    seen: set[Hashable] = set()
    for annotation in annotations:
        number = annotation.get("id") if isinstance(annotation, dict) else annotation
        wrong = _problem(annotation, images, categories)
        if wrong:
            _report(content, f"annotation {number if _is_int(number) else short(number)}", *wrong)
            content.rejected += 1
            continue
        if isinstance(number, int | str) and number in seen:
            message = "another has the same id."
            _report(content, f"annotation {number}", Kind.DUPLICATE_ID, message, is_error=False)
        elif isinstance(number, int | str):
            seen.add(number)
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], str):
            image = images[annotation["image_id"]]
            (counts,) = compress([run_lengths(segmentation, image["height"], image["width"])])
            annotation["segmentation"] = {"size": segmentation["size"], "counts": counts}
        annotation["iscrowd"] = int(bool(annotation.get("iscrowd")))
        content.annotations.append(annotation)


def _problem(annotation: Any, images: dict[Any, Any], categories: set[int]) -> tuple[Kind, str] | None:
    if not isinstance(annotation, dict):
        return Kind.ANNOTATION, "is no object"
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    if not isinstance(image_id, int | str) or image_id not in images:
        return Kind.ANNOTATION, f"its image_id {short(image_id)} is not among the images"
    if not _is_int(category_id) or category_id not in categories:
        return Kind.CLASS, f"its category_id {short(category_id)} is not among the categories"
    image = images[image_id]
    try:
        check_segmentation(annotation.get("segmentation"), image["height"], image["width"])
    except SegmentationError as error:
        return error.kind, f"its segmentation {error}"
    return None


def _has_name(image: Any) -> bool:
    """Whether something is an object that names a file, and no folder."""
    name = image.get("file_name") if isinstance(image, dict) else None
    return isinstance(name, str) and name.strip("/\\. ") != ""


def is_side(value: Any) -> bool:
    """Whether a value can be the height or the width of an image."""
    return _is_int(value) and 0 < value <= _LONGEST_SIDE


def _report(content: Content, entry: str, kind: Kind, message: str, is_error: bool = True) -> None:
    content.problems.append(Problem(str(content.path), entry, kind, message, is_error))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
