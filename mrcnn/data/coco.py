"""Datasets in the COCO format: one JSON file of images, categories and annotations beside a folder of images.

Letters: H, W sides of an image in pixels, N instances. The format: https://cocodataset.org/#format-data,
"object detection". Everything is checked when a file is loaded, and every complaint names the file and the
annotation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.data.dataset import Dataset, DatasetError
from mrcnn.data.images import read_image

# How many of the wrong things a message lists before it only counts them.
_LISTED = 5
# Polygon points may lie outside the image, but the time to fill a polygon grows with its outline.
_FARTHEST = 10


class CocoDataset(Dataset):
    """Images and instances of COCO files. Call `load_coco` once or more, then `prepare`.

    `image_info` of each image holds, beside id, source and path, its `height`, `width` and `annotations`.
    """

    def load_coco(
        self,
        annotation_file: str | PathLike[str],
        image_dir: str | PathLike[str],
        class_ids: Iterable[int | str] | None = None,
        source: str = "coco",
    ) -> None:
        """Add the images and categories of an annotation file. Images without annotations are added too.

        Several files may be added one after another, such as the parts of one set; their categories must
        agree.

        Args:
            annotation_file: the JSON file.
            image_dir: the folder that its `file_name`s are in.
            class_ids: categories to take, by id or name; annotations of the others are left out, the images
                stay. None: all.
            source: the name of the source. Files whose category ids mean different things need different
                ones.

        Raises:
            FileNotFoundError: the file, the folder, or images are missing; all missing images are counted.
            DatasetError: the file is malformed, or does not agree with one loaded before.
        """
        path, folder = Path(annotation_file), Path(image_dir)
        content = _read_json(path)
        if not folder.is_dir():
            raise FileNotFoundError(f"No such folder of images: {folder}")
        categories = _categories(content, path)
        images = _images(content, path)
        annotations = _annotations(content, images, categories, path)
        if class_ids is not None:
            categories = _subset(categories, class_ids, path)

        known = {info["id"]: info["name"] for info in self.class_info if info["source"] == source}
        for category_id, name in categories.items():
            if known.get(category_id, name) != name:
                raise DatasetError(
                    f"Category {category_id} is {name!r} in {path}, but {known[category_id]!r} in a file "
                    "loaded before "
                    f"as source {source!r}: load this file with another source."
                )
        missing = [image["file_name"] for image in images.values() if not (folder / image["file_name"]).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of the {len(images)} images of {path} are missing in {folder}: {_some(missing)}"
            )
        for category_id in sorted(categories):
            self.add_class(source, category_id, categories[category_id])
        for image_id, image in images.items():
            self.add_image(
                source,
                image_id,
                str(folder / image["file_name"]),
                height=image["height"],
                width=image["width"],
                annotations=[a for a in annotations.get(image_id, ()) if a["category_id"] in categories],
            )

    def load_image(self, image_id: int) -> np.ndarray:
        """The image, [H, W, 3] uint8 RGB, in the size that its annotations are made for.

        Annotation tools differ on whether they heed a photo's EXIF orientation: the size in the JSON file
        tells.

        Raises:
            FileNotFoundError, ImageError: naming the file.
            DatasetError: the file has another size than the JSON file says.
        """
        info = self._image(image_id)
        if "annotations" not in info:
            return super().load_image(image_id)
        image = read_image(info["path"])
        wanted = (info["height"], info["width"])
        if image.shape[:2] == wanted:
            return image
        stored = read_image(info["path"], apply_orientation=False)
        if stored.shape[:2] == wanted:
            return stored
        raise DatasetError(
            f"{info['path']} is {image.shape[0]} pixels high and {image.shape[1]} wide, but its "
            "annotations are for "
            f"{wanted[0]} x {wanted[1]} (height x width)."
        )

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """The image's instances; see `Dataset.load_mask`. Crowds have negative class ids. Instances too small
        to cover a pixel are left out."""
        info = self._image(image_id)
        if "annotations" not in info:
            return super().load_mask(image_id)
        height, width = info["height"], info["width"]
        masks = np.zeros((height, width, len(info["annotations"])), bool)
        class_ids = np.zeros(masks.shape[2], np.int32)
        for i, annotation in enumerate(info["annotations"]):
            masks[..., i] = decode_segmentation(annotation["segmentation"], height, width)
            class_id = self.map_source_class_id(f"{info['source']}.{annotation['category_id']}")
            class_ids[i] = -class_id if annotation.get("iscrowd") else class_id
        visible = masks.any(axis=(0, 1))
        return masks[..., visible], class_ids[visible]


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A mask [height, width] bool from COCO's polygons (filled as pycocotools does) or run lengths,
    compressed or not.

    Raises:
        ValueError: a segmentation that is not well formed, or is for another size.
    """
    check_segmentation(segmentation, height, width)
    if isinstance(segmentation, dict):
        # Not through pycocotools, which reads beyond the end of runs that do not cover the image.
        runs = _run_lengths(segmentation, height, width)
        values = np.arange(len(runs)) % 2 == 1
        return np.repeat(values, runs).reshape(width, height).T
    from pycocotools import mask as coco_mask

    polygons = [[float(v) for v in polygon] for polygon in segmentation]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))).astype(bool)


def check_segmentation(segmentation: Any, height: int, width: int) -> None:
    """Raise ValueError, with what is wrong, unless `segmentation` is one of an image of this size."""
    if isinstance(segmentation, dict):
        _run_lengths(segmentation, height, width)
        return
    if not isinstance(segmentation, list):
        raise ValueError(f"must be a list of polygons or a run-length dict. Received: {_short(segmentation)}.")
    if not segmentation:
        raise ValueError("is an empty list. An instance needs a mask, a box is not enough.")
    if _is_number(segmentation[0]):
        raise ValueError("is a flat list of numbers. It must be a list of polygons: [[x1, y1, x2, y2, ...], ...].")
    for polygon in segmentation:
        if not isinstance(polygon, list) or not _all_numbers(polygon):
            raise ValueError(f"has a polygon that is no list of finite numbers: {_short(polygon)}.")
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"has a polygon of {len(polygon)} numbers. It must be x, y of three points or more.")
        x, y = polygon[::2], polygon[1::2]
        farthest = max(max(x) / width, -min(x) / width, max(y) / height, -min(y) / height)
        if farthest > _FARTHEST:
            raise ValueError(
                f"has a polygon that reaches {farthest:.0f} image sizes away. Are its points in pixels of "
                "this image "
                f"({width} wide, {height} high)?"
            )


def _run_lengths(rle: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Lengths of the runs, of 0s and 1s in turn, down the columns."""
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, Sequence) or list(size) != [height, width]:
        raise ValueError(f"has run lengths for size {size}. Its image is [{height}, {width}] (height, width).")
    if isinstance(counts, str | bytes):
        counts = _decompress(counts.encode("ascii", "replace") if isinstance(counts, str) else counts)
    elif not isinstance(counts, list) or not all(isinstance(c, int) and not isinstance(c, bool) for c in counts):
        raise ValueError(f"has run lengths that are no list of whole numbers or text: {_short(counts)}.")
    if any(c < 0 for c in counts) or sum(counts) != height * width:
        raise ValueError(
            "has run lengths that do not cover its image: they must be 0 or more and sum to "
            f"{height * width}. "
            f"Received: {len(counts)} of them, sum {sum(counts)}."
        )
    return np.array(counts, np.int64)


def _decompress(text: bytes) -> list[int]:
    """Run lengths from COCO's text: 5 bits a character, low ones first, bit 6 says that more follow; from the
    fourth on, what is written is the difference to the run before the last."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"has compressed run lengths that cannot be read: {_short(text)}.")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError(f"has compressed run lengths that break off: {_short(text)}.")
    return counts


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No such annotation file: {path}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DatasetError(f"{path} is not in the COCO format: it must be an object with a list of 'images'.")
    for key in ("categories", "annotations"):
        if not isinstance(content.setdefault(key, []), list):
            raise DatasetError(f"{path} is not in the COCO format: {key!r} must be a list.")
    return content


def _categories(content: dict[str, Any], path: Path) -> dict[int, str]:
    categories: dict[int, str] = {}
    for category in content["categories"]:
        if not isinstance(category, dict) or not _is_int(category.get("id")) or not category.get("name"):
            raise DatasetError(
                f"{path}: a category needs a whole number 'id' and a 'name'. Received: {_short(category)}."
            )
        if categories.setdefault(category["id"], str(category["name"])) != str(category["name"]):
            raise DatasetError(f"{path}: category id {category['id']} is there twice, with different names.")
    return categories


def _images(content: dict[str, Any], path: Path) -> dict[Any, dict[str, Any]]:
    images: dict[Any, dict[str, Any]] = {}
    for image in content["images"]:
        fine = isinstance(image, dict) and isinstance(image.get("id"), int | str)
        fine = fine and isinstance(image.get("file_name"), str)
        if not fine or not all(_is_int(image.get(key)) and image[key] > 0 for key in ("height", "width")):
            raise DatasetError(
                f"{path}: an image needs 'id', 'file_name', 'height' and 'width'. Received: {_short(image)}."
            )
        if image["id"] in images:
            raise DatasetError(f"{path}: image id {image['id']} is there twice.")
        images[image["id"]] = image
    return images


def _annotations(
    content: dict[str, Any], images: dict[Any, Any], categories: dict[int, str], path: Path
) -> dict[Any, list[dict[str, Any]]]:
    """Annotations of each image id."""
    of_image: dict[Any, list[dict[str, Any]]] = {}
    wrong = []
    for annotation in content["annotations"]:
        problem = _problem(annotation, images, categories)
        if problem:
            name = annotation.get("id") if isinstance(annotation, dict) else _short(annotation)
            wrong.append(f"annotation {name}: {problem}")
        else:
            of_image.setdefault(annotation["image_id"], []).append(annotation)
    if wrong:
        raise DatasetError(
            f"{path}: {len(wrong)} of {len(content['annotations'])} annotations cannot be used. {_some(wrong)}"
        )
    return of_image


def _problem(annotation: Any, images: dict[Any, Any], categories: dict[int, str]) -> str | None:
    if not isinstance(annotation, dict):
        return "is no object"
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    if not isinstance(image_id, int | str) or image_id not in images:
        return f"its image_id {image_id!r} is not among the images"
    if not _is_int(category_id) or category_id not in categories:
        return f"its category_id {category_id!r} is not among the categories"
    image = images[image_id]
    try:
        check_segmentation(annotation.get("segmentation"), image["height"], image["width"])
    except ValueError as error:
        return f"its segmentation {error}"
    return None


def _subset(categories: dict[int, str], wanted: Iterable[int | str], path: Path) -> dict[int, str]:
    by_name = {name: category_id for category_id, name in categories.items()}
    wanted = [wanted] if isinstance(wanted, int | str) else list(wanted)
    chosen = {by_name.get(key, key) for key in wanted}
    unknown = [key for key in wanted if by_name.get(key, key) not in categories]
    if unknown:
        known = [f"{category_id} ({name})" for category_id, name in categories.items()]
        raise DatasetError(f"{path} has no category {', '.join(map(repr, unknown))}. It has: {_some(known, 100)}")
    return {category_id: name for category_id, name in categories.items() if category_id in chosen}


def _some(items: Sequence[str], count: int = _LISTED) -> str:
    rest = f" and {len(items) - count} more" if len(items) > count else ""
    return "; ".join(items[:count]).rstrip(".") + rest + "."


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _all_numbers(values: list[Any]) -> bool:
    """Whether all are finite numbers; by one sum, for large files hold tens of millions of them."""
    try:
        return math.isfinite(sum(values))
    except (TypeError, OverflowError):
        return False
