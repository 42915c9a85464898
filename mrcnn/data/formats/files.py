"""Files and folders around an annotation file: where its images are, and what reads its text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

from mrcnn.data.dataset import DatasetError
from mrcnn.data.image_lists import IMAGE_SUFFIXES

T = TypeVar("T")
# How many names are looked up in each of the folders that come into question.
_TRIED = 20


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file; False for names that no file can have."""
    return os.path.isfile(path)


def files_of(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder whose names fit. A folder may be called like a file."""
    return sorted(file for file in folder.glob(pattern) if file.is_file())


def find_folder(path: Path, names: Sequence[str]) -> Path:
    """The folder that an annotation file's image names are relative to: of those around it, the one that has most of
    the first few.

    Tools keep images beside the file, in `images` beside it or beside its folder, or in a folder named after the file's
    part of the set: `annotations/instances_val2017.json` and `val2017`.
    """
    near, above = path.parent, path.parent.parent
    part = path.stem.rpartition("_")[2]
    folders = [near, near / "images", above / "images", above, near / part, above / part, above / "images" / part]
    tried = names[:_TRIED]
    return max(folders, key=lambda folder: sum(is_file(folder / name) for name in tried))


def find_image(name: str, folders: Iterable[Path]) -> Path | None:
    """The image file that an annotation file names, in the first of the folders that has it: under its name, with the
    other system's slashes, without its own folders, or, where it has no suffix of an image, with one."""
    straight = name.replace("\\", "/")
    last = straight.rpartition("/")[2]
    if not last:
        return None
    names = [name, straight, last]
    if not last.lower().endswith(IMAGE_SUFFIXES):
        names += [straight + suffix for lower in IMAGE_SUFFIXES for suffix in (lower, lower.upper())]
    folders = list(folders)
    for one in dict.fromkeys(names):
        for folder in folders:
            if is_file(folder / one):
                return folder / one
    return None


def watched(items: Sequence[T], what: str) -> Iterable[T]:
    """The items, and in a terminal, from the fifth second on, a bar that says how many are done."""
    from tqdm import tqdm

    return tqdm(items, desc=what, delay=5, leave=False, disable=None)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        FileNotFoundError: there is none.
        DatasetError: it is no text.
    """
    with text_file(path) as file:
        return file.read()


@contextmanager
def text_file(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """A file in UTF-8, open for reading; `newline` as that of `open`.

    Raises:
        FileNotFoundError: there is none.
        DatasetError: it is no text.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No such annotation file: {path}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not a text file in UTF-8: {error}") from error
