"""Readers of what annotation tools write: each makes a `Content` of it, and which one it takes is recognized."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from mrcnn.data.coco import CocoDataset
from mrcnn.data.content import Content
from mrcnn.data.formats.coco import read_coco


def read_content(
    path: str | PathLike[str], images: str | PathLike[str] | None = None, format: str | None = None
) -> Content:
    """Read a dataset of any of the formats, with whatever is wrong with it.

    Args:
        path: an annotation file, or a folder.
        images: the folder of its images. None: where the format has them.
        format: None: recognized.

    Raises:
        FileNotFoundError: there is no such file or folder.
        DatasetError: it is of no format that is known, or no entry of it can be read. Lesser things are among the
            content's `problems`.
    """
    return read_coco(Path(path), None if images is None else Path(images))


def load_dataset(
    path: str | PathLike[str], images: str | PathLike[str] | None = None, format: str | None = None
) -> CocoDataset:
    """A dataset of any of the formats, prepared. See `read_content` for the arguments.

    Raises:
        FileNotFoundError: the file, the folder, or images are missing.
        DatasetError: something cannot be used; the first few are told.
    """
    content = read_content(path, images, format)
    content.require_sound()
    dataset = CocoDataset()
    dataset.add_content(content)
    dataset.prepare()
    return dataset
