"""Where the images of an annotation file are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

# How many names are looked up in each of the folders that come into question.
_TRIED = 20


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file; False for names that no file can have."""
    return os.path.isfile(path)


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
