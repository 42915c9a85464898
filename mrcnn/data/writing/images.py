"""The images of a dataset that is written elsewhere: what they are called there, and getting them there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from mrcnn.data.content import Content
from mrcnn.data.images import ImageError, go_to, image_sizes, opened
from mrcnn.data.writing.names import free_name

# What becomes of images: a copy, a symbolic link, or nothing at all.
HANDLINGS = ("copy", "link", "none")

# Kinds of values, as Pillow names them, that all tools read from a PNG; others go into a TIFF.
_OF_PNG = ("1", "L", "LA", "P", "RGB", "RGBA")


def inner_names(content: Content, is_flat: bool) -> list[PurePosixPath]:
    """What the images of a dataset are called within a new folder, not yet told apart.

    Folders that all of them are in are left out. The others stay, or, where `is_flat`, become part of the name:
    b/photo.png is b_photo.png then. Of names that lead out of the dataset's own folder only the last part stays.
    """
    paths = [_inner_name(image["file_name"]) for image in content.images]
    folders = [path.parent.parts for path in paths]
    common = 0
    while folders and all(len(f) > common and f[common] == folders[0][common] for f in folders):
        common += 1
    names = [path.parts[common:] for path in paths]
    return [PurePosixPath("_".join(name) if is_flat else "/".join(name)) for name in names]


def place_image(
    content: Content, image: Mapping[str, Any], name: PurePosixPath, folder: Path, handling: str, used: set[str]
) -> tuple[str, bool]:
    """Bring an image into a folder.

    A frame of a stack becomes an image of its own; so does an image with an EXIF orientation that its annotations
    ignore, as tools would turn it.

    Args:
        content: whose `images` it is of.
        image: one of these.
        name: of `inner_names`; changed where the labels of two images would have one name.
        folder: where it is to go.
        handling: one of `HANDLINGS`; "none" only finds a name.
        used: names that are taken; this one is added.

    Returns:
        Its name there, with / on every system, and whether the file was written anew.

    Raises:
        FileNotFoundError, ImageError, OSError: it is not there or cannot be read.
    """
    source, frame = content.image_path(image), image.get("frame")
    anew = handling != "none" and (frame is not None or _is_turned(source, (image["height"], image["width"])))
    stem = str(name.with_suffix("")) + ("" if frame is None else f"_{frame:04d}")
    name = PurePosixPath(free_name(stem, used) + name.suffix)
    target = folder / name
    if handling != "none":
        target.parent.mkdir(parents=True, exist_ok=True)
    if anew:
        target = _write_anew(source, frame or 0, target)
    elif handling == "copy":
        _copy(source, target)
    elif handling == "link":
        if not source.exists():
            raise FileNotFoundError(f"No such image file: {source}")
        os.symlink(source.absolute(), target)
    return target.relative_to(folder).as_posix(), anew


def _inner_name(file_name: str) -> PurePosixPath:
    """A path that stays within a folder."""
    path = PureWindowsPath(file_name)
    if path.is_absolute() or path.drive or path.root or ".." in path.parts:
        return PurePosixPath(path.name)
    return PurePosixPath(path.as_posix())


def _is_turned(path: Path, size: tuple[int, int]) -> bool:
    """Whether an image is annotated as it is stored, and shown otherwise."""
    try:
        upright, stored = image_sizes(path)
    except ImageError:  # copied as it is; whoever reads it will tell
        return False
    return upright != stored and size == stored


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No such image file: {source}") from error


def _write_anew(source: Path, frame: int, target: Path) -> Path:
    try:
        with opened(source) as image:
            go_to(image, frame)
            target = target.with_suffix(".png" if image.mode in _OF_PNG else ".tif")
            image.save(target, exif=b"")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No such image file: {source}") from error
    except (EOFError, SyntaxError, ValueError) as error:
        raise ImageError(f"Cannot read frame {frame} of the image file {source}: {error}") from error
    return target
