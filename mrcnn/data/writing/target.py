"""What the writers of datasets have in common: what they are told, and what they tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mrcnn.data.content import Content


@dataclass
class Written:
    """What was written, and what is no longer as it was.

    Attributes:
        images, objects: how many.
        joined: objects of several parts, or that reach out of their image, of which YOLO's single polygon is not
            exactly what they were.
        crowds: left out, for only COCO knows them.
        empty: objects without a pixel, left out.
        written_anew: images that are new files: frames of stacks, and those whose annotations ignore their EXIF
            orientation.
    """

    images: int = 0
    objects: int = 0
    joined: int = 0
    crowds: int = 0
    empty: int = 0
    written_anew: int = 0

    def notes(self) -> list[str]:
        """What people should know of it."""
        told = [
            (self.joined, "object", "of several parts or across the border, each made one polygon"),
            (self.crowds, "crowd", "left out"),
            (self.empty, "object", "without a pixel left out"),
            (self.written_anew, "image", "written anew: frames of stacks, or turned as their annotations are"),
        ]
        return [f"{count} {what}{'s' if count > 1 else ''} {how}." for count, what, how in told if count]


class Target(Protocol):
    """One format's writer of a dataset. It is made of the folder to write to, the one that this becomes in the end,
    what becomes of the images (see `mrcnn.data.writing.images.HANDLINGS`), and a report to fill."""

    is_flat: bool  # whether images lie in one folder for each part, with none below

    def images_of(self, part: str) -> Path:
        """The folder of a part's images."""

    def begin(self, part: str, content: Content) -> None:
        """The next part of the dataset, "" for all of it."""

    def add(self, image: dict[str, Any], name: str, annotations: list[dict[str, Any]]) -> None:
        """An image, which is called `name` in the part's folder, and its annotations."""

    def end(self) -> None:
        """All parts have been written."""
