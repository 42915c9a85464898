"""What a file, or a folder, of results takes."""

from __future__ import annotations

from typing import Any, Protocol

from mrcnn.results.instances import Instances, ResultImage


class Writer(Protocol):
    """Takes results image by image, in two steps, so that the heavy one can be done by several threads."""

    def render(self, image: ResultImage, found: Instances) -> Any:
        """Make of a result what is to be written; a format that has a file for each image writes it. Any thread may
        call this, several at a time.

        Raises:
            ValueError: the result cannot be written in this format.
        """

    def add(self, rendered: Any) -> None:
        """Take what `render` made, image after image."""

    def notes(self) -> list[str]:
        """What the user should know of what was written: objects that the format cannot hold as they are."""


def counted(count: int, what: str, consequence: str) -> list[str]:
    """A note on so many objects; none if there are none."""
    return [f"{count} object{'s' if count > 1 else ''} {what}: {consequence}."] if count else []
