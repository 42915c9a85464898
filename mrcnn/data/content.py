"""What an annotation file of any format says, in one form: COCO's lists of images, categories and annotations.

The readers in `mrcnn.data.formats` make it, `CocoDataset.add_content` takes it, and so does what checks, converts or
splits datasets. Masks are held as outlines or run lengths, never as arrays of the image's size.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.data.dataset import DatasetError

# How many of the wrong things a message lists before it only counts them.
LISTED = 5
# What is told of a missing image, where there is no more to say.
NO_IMAGE = "there is no such image file."
_LONGEST = 80
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxdict = _SHORT.maxlist = _SHORT.maxtuple = 8
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = _LONGEST


class Kind(StrEnum):
    """What is wrong, in a word that programs can go by."""

    FILE = "unreadable-file"  # an annotation file that is none of its format, in whole or from some place on
    IMAGE_ENTRY = "malformed-image"  # what a file tells about an image
    CATEGORY = "malformed-category"
    MISSING_IMAGE = "missing-image"
    UNREADABLE_IMAGE = "unreadable-image"
    WRONG_SIZE = "wrong-size"  # image and mask, or image and annotation file, differ
    DUPLICATE_ID = "duplicate-id"
    ANNOTATION = "malformed-annotation"
    POINTS = "too-few-points"
    COORDINATES = "bad-coordinates"
    RUNS = "bad-run-lengths"
    CLASS = "unknown-class"
    SHAPE = "unsupported-shape"
    EMPTY = "empty-mask"


@dataclass(frozen=True)
class Problem:
    """Something in a dataset that cannot be used, or should be known.

    Attributes:
        file: the file it is in.
        entry: what of the file, such as "annotation 17", "line 3" or "region 2 of cat.jpg"; "" for all of it.
        kind: of `Kind`.
        message: what was received and what would do.
        is_error: whether a dataset with it is refused.
    """

    file: str
    entry: str
    kind: Kind
    message: str
    is_error: bool = True

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.entry, self.message) if part)


@dataclass
class Content:
    """A dataset's content. What could not be used is not in the lists but among the `problems`.

    Attributes:
        format: that it was read from, such as "coco" or "via".
        path: of the file or folder that was read.
        folder: what the images' `file_name`s are relative to.
        images: each with `id` (int or str), `file_name`, `height` and `width` (int, pixels, as the annotations are
            meant: see `CocoDataset.load_image` for images with an EXIF orientation), and `frame` (int) where it is one
            of several in its file, such as a TIFF stack. Image files may be missing; then a problem says so.
        categories: each with `id` (int) and `name`, and what else its file says.
        annotations: each with `id`, `image_id`, `category_id`, `segmentation`, `iscrowd` (0 or 1), and of COCO files
            what else is there. `segmentation` is a list of polygons, each [x1, y1, x2, y2, ...] as a float64 array, or
            compressed run lengths {"size": [height, width], "counts": str}; `plain_segmentation` makes it fit for JSON.
        problems: in the order in which they were met.
        rejected: how many annotations are among the problems and not in the lists.
        rejected_images: how many images are.
    """

    format: str
    path: Path
    folder: Path
    images: list[dict[str, Any]] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    rejected: int = 0
    rejected_images: int = 0

    def image_path(self, image: dict[str, Any]) -> Path:
        """The file of one of the `images`."""
        return self.folder / image["file_name"]

    def require_sound(self) -> None:
        """Refuse a content with errors among its problems.

        Raises:
            FileNotFoundError: images are missing, and nothing else is wrong.
            DatasetError: something else is; the first few are told.
        """
        errors = [problem for problem in self.problems if problem.is_error]
        if not errors:
            return
        missing = [problem for problem in errors if problem.kind == Kind.MISSING_IMAGE]
        if len(missing) == len(errors):
            others = list(dict.fromkeys(problem.message for problem in missing if problem.message != NO_IMAGE))
            remark = f" {some([message.removeprefix(f'{NO_IMAGE} ') for message in others])}" if others else ""
            raise FileNotFoundError(
                f"{len(missing)} of the {len(self.images) + self.rejected_images} images of {self.path} are missing in "
                f"{self.folder}: {some([problem.entry for problem in missing])} If they are elsewhere, say where: "
                f"images, or --images.{remark}"
            )
        # Of a file of its own a problem says so.
        told = [str(problem).removeprefix(f"{self.path}: ") for problem in errors]
        if self.rejected == len(errors):
            total = self.rejected + len(self.annotations)
            raise DatasetError(f"{self.path}: {self.rejected} of {total} annotations cannot be used. {some(told)}")
        count = f"{len(errors)} problems. " if len(errors) > 1 else ""
        raise DatasetError(f"{self.path}: {count}{some(told)}")


def plain_segmentation(segmentation: Any) -> Any:
    """A segmentation of a `Content` as lists and dicts that JSON takes."""
    if isinstance(segmentation, list):
        return [polygon.tolist() if isinstance(polygon, np.ndarray) else polygon for polygon in segmentation]
    return segmentation


def some(items: Sequence[str], count: int = LISTED) -> str:
    """The first few of `items`, and how many more there are."""
    rest = f" and {len(items) - count} more" if len(items) > count else ""
    return "; ".join(items[:count]).rstrip(".") + rest + "."


def short(value: Any) -> str:
    """A value as a message shows it. However large it is, this takes no time."""
    text = _SHORT.repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
