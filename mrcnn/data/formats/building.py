"""What all readers do alike: number images and classes, check segmentations, and write down what is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mrcnn.data.content import NO_IMAGE, Content, Kind, Problem, short
from mrcnn.data.images import ImageError, image_sizes
from mrcnn.data.segmentations import SegmentationError, check_segmentation, compact_segmentation

# The name of the only class, where a format has none.
ONLY_CLASS = "object"


class Builder:
    """Puts a `Content` together, entry by entry.

    Args:
        format: its name.
        path: of the file or folder that is read.
        folder: what the names of images are to be relative to.
        names: of the classes, in their order. None: all that come, sorted.
    """

    def __init__(self, format: str, path: Path, folder: Path, names: Iterable[str] | None = None) -> None:
        self.content = Content(format, path, folder)
        self.names = None if names is None else list(dict.fromkeys(names))
        self._seen: set[tuple[str, int]] = set()

    def report(self, file: Path, entry: str, kind: Kind, message: str, is_error: bool = True) -> None:
        """Write a problem down."""
        self.content.problems.append(Problem(str(file), entry, kind, message, is_error))

    def reject(self, file: Path, entry: str, kind: Kind, message: str) -> None:
        """Write down that an annotation cannot be used."""
        self.report(file, entry, kind, message)
        self.content.rejected += 1

    def reject_image(self, file: Path, entry: str, kind: Kind, message: str) -> None:
        """Write down that an image cannot be used."""
        self.report(file, entry, kind, message)
        self.content.rejected_images += 1

    def add_image(
        self, path: Path | None, file: Path, entry: str, size: tuple[int, int] | None = None, frame: int | None = None
    ) -> dict[str, Any] | None:
        """Add an image.

        Args:
            path: of the image file; None: it was not found.
            file: the annotation file that names it.
            entry: what it is called there.
            size: (height, width) that its annotations are made for. None: as a viewer shows it.
            frame: which one of several in its file.

        Returns:
            What to give to `add_instance`; None where the image cannot be used, which is written down.
        """
        if path is None:
            self.reject_image(file, entry, Kind.MISSING_IMAGE, NO_IMAGE)
            return None
        try:
            upright, stored = image_sizes(path, frame or 0)
        except (ImageError, FileNotFoundError) as error:
            self.reject_image(file, entry, Kind.UNREADABLE_IMAGE, str(error))
            return None
        if size is not None and size not in (upright, stored):
            self.reject_image(
                file, entry, Kind.WRONG_SIZE,
                f"is for an image of {size[0]} x {size[1]} pixels (height x width), but {path} measures {upright[0]} x "
                f"{upright[1]}.",
            )  # fmt: skip
            return None
        key = (os.path.normpath(path), frame or 0)
        if key in self._seen:
            self.reject_image(file, entry, Kind.DUPLICATE_ID, f"another entry is for the same image, {path}.")
            return None
        self._seen.add(key)
        height, width = upright if size is None else size
        name = os.path.relpath(path, self.content.folder) if _same_drive(path, self.content.folder) else str(path)
        image = {"id": len(self.content.images) + 1, "file_name": Path(name).as_posix(), "height": height,
                 "width": width}  # fmt: skip
        if frame is not None:
            image["frame"] = frame
        self.content.images.append(image)
        return image

    def add_instance(self, image: dict[str, Any], name: Any, segmentation: Any, file: Path, entry: str) -> None:
        """Add an annotation, or write down what is wrong with it.

        Args:
            image: that `add_image` gave.
            name: of its class.
            segmentation: see `Content.annotations`; polygons may be lists of numbers.
            file: the annotation file.
            entry: what of it.
        """
        if not isinstance(name, str) or not name.strip():
            self.reject(file, entry, Kind.CLASS, f"has no name of a class. Received: {short(name)}.")
            return
        name = name.strip()
        if self.names is not None and name not in self.names:
            known = ", ".join(self.names[:10])
            self.reject(file, entry, Kind.CLASS, f"is of class {short(name)}, which is none of the file's: {known}.")
            return
        try:
            segmentation = compact_segmentation(segmentation)
            check_segmentation(segmentation, image["height"], image["width"])
        except SegmentationError as error:
            self.reject(file, entry, error.kind, str(error))
            return
        self.content.annotations.append(
            {"id": len(self.content.annotations) + 1, "image_id": image["id"], "category_id": name,
             "segmentation": segmentation, "iscrowd": 0}
        )  # fmt: skip

    def finish(self) -> Content:
        """The content, its classes numbered from 1 on."""
        content = self.content
        names = self.names
        if names is None:
            names = sorted({annotation["category_id"] for annotation in content.annotations})
        content.categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        numbers = {name: number for number, name in enumerate(names, 1)}
        for annotation in content.annotations:
            annotation["category_id"] = numbers[annotation["category_id"]]
        return content


def _same_drive(path: Path, folder: Path) -> bool:
    return path.is_absolute() == folder.is_absolute() and path.drive == folder.drive
