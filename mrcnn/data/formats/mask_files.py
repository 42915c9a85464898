"""Folders of images and of masks as image files: one mask a file, or one label image for all instances of an image.

Letters: H, W sides of an image in pixels. Layouts, all of one class:

    ID/images/ID.png, ID/masks/*.png          one mask a file (Data Science Bowl 2018)
    images/A.png, masks/A/*.png               the same
    images/A.png, masks/A.png                 a label image: each number from 1 on is an instance
    A.tif, A_mask.tif                         the same side by side; also _masks, _label, _labels, _seg and others
    A.tif, A_mask.tif of several pages        a label image for each page; or one image, and a page for each mask
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mrcnn.data.content import Content, Kind, some
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats.building import ONLY_CLASS, Builder
from mrcnn.data.formats.files import watched
from mrcnn.data.formats.label_images import binary_mask, label_values
from mrcnn.data.image_lists import is_image
from mrcnn.data.images import ImageError, frame_count, image_sizes, read_values
from mrcnn.data.rle import encode_labels, encode_masks

_MASKS = ("masks", "mask", "labels", "label", "instances", "segmentations")
# Words in a file's name that say that it is a label image, or an image; between them and the rest are these signs.
_MASK_WORD = re.compile(r"(?:^|[_. -])(?:cp[_-])?(?:masks?|labels?|seg|instances?)(?=$|[_. \d-])", re.IGNORECASE)
_IMAGE_WORD = re.compile(r"(?:^|[_. -])(?:images?|img|raw)(?=$|[_. \d-])", re.IGNORECASE)


@dataclass(frozen=True)
class _Pair:
    """An image and the files of its masks: several, or one that holds them all."""

    image: Path
    masks: tuple[Path, ...]
    is_label_image: bool


def has_masks(folder: Path) -> bool:
    """Whether a folder is in one of the layouts."""
    return folder.is_dir() and next(_pairs(folder), None) is not None


def read_mask_files(path: Path, images: Path | None = None) -> Content:
    """Read a folder.

    Args:
        path: a folder in one of the layouts above; with `images`, the folder of the masks.
        images: the folder of the images, if it is apart from that of the masks.

    Raises:
        FileNotFoundError: there is no such folder.
        DatasetError: it is in none of the layouts.
    """
    for folder in (path, images or path):
        if not folder.exists():
            raise FileNotFoundError(f"No such folder: {folder}")
        if not folder.is_dir():
            raise DatasetError(f"{folder} is a file. Masks as image files are read from a folder of them.")
    pairs = list(_pairs(path) if images is None else _apart(images, path))
    if not pairs:
        raise DatasetError(
            f"{path} holds no images with masks: neither ID/images and ID/masks, nor images/A.png and masks/A.png, nor "
            "A.png and A_mask.png."
        )
    builder = Builder("masks", path, images or path, [ONLY_CLASS])
    for pair in watched(pairs, "reading masks"):
        if pair.is_label_image:
            _add_label_image(builder, pair.image, pair.masks[0])
        else:
            _add_masks(builder, pair)
    _tell_of_broken_pairs(builder, path, images, pairs)
    return builder.finish()


def _tell_of_broken_pairs(builder: Builder, path: Path, images: Path | None, pairs: list[_Pair]) -> None:
    """Write down masks without an image, and in one line images without masks."""
    files, used = _all_files(path, images), {pair.image for pair in pairs}
    masks = {mask for pair in pairs for mask in pair.masks}
    is_mask = {file: kind for file, kind in files.items() if file not in used and file not in masks}
    for file in (file for file, of_masks in is_mask.items() if of_masks):
        message = "there is no image of this name: the mask is left out."
        builder.report(file, "", Kind.MISSING_IMAGE, message, is_error=False)
    names = [file.name for file, of_masks in is_mask.items() if not of_masks]
    if names:
        message = f"{len(names)} images have no masks and are left out: {some(names)}"
        builder.report(path, "", Kind.ANNOTATION, message, is_error=False)


def _all_files(path: Path, images: Path | None) -> dict[Path, bool]:
    """All image files of a layout, and whether they are masks by their place or name."""
    masks = next((path / name for name in _MASKS if (path / name).is_dir()), None)
    if images is not None:
        folders = [(images, path)]
    elif masks is not None and (path / "images").is_dir():
        folders = [(path / "images", masks)]
    else:
        folders = [(one / "images", one / "masks") for one in sorted(path.glob("*")) if (one / "masks").is_dir()]
    if not folders:
        return {file: _MASK_WORD.search(file.stem) is not None for file in _image_files(path)}
    files = {file: False for folder, _ in folders for file in _image_files(folder)}
    for _, folder in folders:
        inner = [one for one in sorted(folder.glob("*")) if one.is_dir()]
        files |= {file: True for one in (folder, *inner) for file in _image_files(one)}
    return files


def _pairs(folder: Path) -> Iterator[_Pair]:
    masks = next((folder / name for name in _MASKS if (folder / name).is_dir()), None)
    if masks is not None and (folder / "images").is_dir():
        yield from _apart(folder / "images", masks)
        return
    bowl = [one for one in sorted(folder.glob("*")) if (one / "images").is_dir() and (one / "masks").is_dir()]
    for one in bowl:
        yield from _of_bowl(one)
    if not bowl:
        yield from _side_by_side(folder)


def _of_bowl(folder: Path) -> Iterator[_Pair]:
    """The image of one folder of the Data Science Bowl, and its masks."""
    images, masks = (_image_files(folder / name) for name in ("images", "masks"))
    if len(images) == 1:
        yield _Pair(images[0], tuple(masks), False)
    else:
        yield from _apart(folder / "images", folder / "masks")


def _apart(images: Path, masks: Path) -> Iterator[_Pair]:
    files = _image_files(images)
    by_key = {_key(mask.stem, _MASK_WORD): mask for mask in _image_files(masks)}
    if len(files) == 1 and by_key and not any(key in by_key for key in _keys(files[0])):
        yield _Pair(files[0], tuple(_image_files(masks)), False)
        return
    for file in files:
        if (masks / file.stem).is_dir():
            yield _Pair(file, tuple(_image_files(masks / file.stem)), False)
        else:
            found = next((by_key[key] for key in _keys(file) if key in by_key), None)
            if found is not None:
                yield _Pair(file, (found,), True)


def _side_by_side(folder: Path) -> Iterator[_Pair]:
    files = _image_files(folder)
    by_key = {_key(file.stem, _MASK_WORD): file for file in files if _MASK_WORD.search(file.stem)}
    masks = set(by_key.values())
    for file in files:
        found = next((by_key[key] for key in _keys(file) if key in by_key), None)
        if file not in masks and found is not None:
            yield _Pair(file, (found,), True)


def _image_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if is_image(file))


def _keys(image: Path) -> tuple[str, str]:
    """What the masks of an image may be called: like it, or like what is left of its name without "image"."""
    return image.stem, _key(image.stem, _IMAGE_WORD)


def _key(stem: str, word: re.Pattern[str]) -> str:
    return word.sub("", stem, count=1)


def _add_masks(builder: Builder, pair: _Pair) -> None:
    """An image, and its masks of one file each."""
    image = builder.add_image(pair.image, pair.image, "", _stored_size(pair))
    if image is None:
        return
    for file in pair.masks:
        try:
            mask = binary_mask(next(read_values(file)), str(file))
        except ImageError as error:
            builder.reject(file, "", Kind.ANNOTATION, str(error))
        else:
            _add_mask(builder, image, mask, file, "")


def _stored_size(pair: _Pair) -> tuple[int, int] | None:
    """(height, width) of the masks where they are for the image as it is stored, not as its EXIF orientation turns
    it."""
    try:
        upright, stored = image_sizes(pair.image)
        return stored if upright != stored and image_sizes(pair.masks[0])[1] == stored else None
    except (ImageError, FileNotFoundError, IndexError):  # told by who reads them; there is no mask
        return None


def _add_mask(builder: Builder, image: dict, mask: np.ndarray, file: Path, entry: str) -> None:
    wanted = (image["height"], image["width"])
    if mask.shape != wanted:
        message = f"is {mask.shape[0]} x {mask.shape[1]} (height x width). Its image is {wanted[0]} x {wanted[1]}."
        builder.reject(file, entry, Kind.WRONG_SIZE, message)
    elif not mask.any():
        builder.report(file, entry, Kind.EMPTY, "the mask is empty.", is_error=False)
    else:
        builder.add_instance(image, ONLY_CLASS, encode_masks(mask[..., None])[0], file, entry)


def _add_label_image(builder: Builder, path: Path, file: Path) -> None:
    """An image, or a stack, and the label image of each page."""
    try:
        frames, pages = frame_count(path), frame_count(file)
        if frames == 1 and pages > 1:
            image = builder.add_image(path, file, "")
            for page, values in enumerate(read_values(file) if image is not None else ()):
                _add_mask(builder, image, binary_mask(values, str(file)), file, f"page {page}")
            return
        if frames != pages:
            message = f"has {pages} pages. Its images, {path}, are {frames}."
            builder.reject_image(file, "", Kind.WRONG_SIZE, message)
            return
        for page, values in enumerate(read_values(file)):
            entry = f"page {page}" if pages > 1 else ""
            labels = label_values(values, str(file))
            image = builder.add_image(path, file, entry, labels.shape, page if pages > 1 else None)
            if image is not None:
                _add_labels(builder, image, labels, file, entry)
    except ImageError as error:
        builder.reject_image(file, "", Kind.UNREADABLE_IMAGE, str(error))


def _add_labels(builder: Builder, image: dict, labels: np.ndarray, file: Path, entry: str) -> None:
    numbers, encoded = encode_labels(np.maximum(labels, 0))
    for number, segmentation in zip(numbers, encoded, strict=True):
        builder.add_instance(image, ONLY_CLASS, segmentation, file, f"{entry} instance {number}".strip())
    if len(numbers) == 1:
        parts = cv2.connectedComponents((labels > 0).astype(np.uint8))[0] - 1
        if parts > 1:
            message = (
                f"holds one number besides 0, in {parts} parts: all of them are taken for one instance. If they are "
                "several, each needs a number of its own."
            )
            builder.report(file, entry, Kind.ANNOTATION, message, is_error=False)
