"""What an image file is, found out by decoding all of it without keeping it: size, rotation, kind of values."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

from mrcnn.data.images import ORIENTATION, ImageError, decoding, go_to, opened, read_image

# Orientations that exchange height and width.
_QUARTER_TURNS = (5, 6, 7, 8)
# Of 16 bits: an image that stays below is nearly black, or of some ten grays, once it is scaled to 8 bits.
_DIM = 0x1000
# Formats whose files are expected to hold one image; a phone's JPEG (MPO) has others beside it that nobody misses.
_OF_ONE_FRAME = ("JPEG", "MPO", "PNG", "BMP")


@dataclass(frozen=True)
class ImageFacts:
    """Of one image (of a file or one of its frames).

    Attributes:
        size: (height, width) as viewers show it, the EXIF orientation applied.
        stored: (height, width) as it is stored.
        orientation: EXIF's, from 1 (none) to 8.
        is_gray: whether it has one channel, beside transparency.
        has_alpha: whether it has transparency.
        is_deep: whether its values have 16 bits or more.
        is_dim: whether these fill so little of their range that 8 bits of it show hardly anything.
        is_blank: whether all pixels are alike.
        frames: how many images the file has, where it has more than such files do.
    """

    size: tuple[int, int]
    stored: tuple[int, int]
    orientation: int
    is_gray: bool
    has_alpha: bool
    is_deep: bool
    is_dim: bool
    is_blank: bool
    frames: int


def image_facts(path: str | PathLike[str], frames: Sequence[int] = (0,)) -> list[ImageFacts | Exception]:
    """Decode frames of an image file, one after the other.

    Pillow warns of very large images and odd EXIF data: warnings are the caller's, for threads cannot hush them.

    Returns:
        For each frame its facts, or what keeps it from being read: FileNotFoundError or `ImageError`.
    """
    name, found = fspath(path), []
    try:
        with decoding(name), opened(name) as image:
            for frame in frames:
                try:
                    with decoding(name):
                        found.append(_facts(image, name, frame))
                except ImageError as error:
                    found.append(error)
    except (FileNotFoundError, ImageError) as error:
        found += [error] * (len(frames) - len(found))
    return found


def _facts(image: Any, name: str, frame: int) -> ImageFacts:
    go_to(image, frame)
    image.load()
    orientation = image.getexif().get(ORIENTATION, 1)
    if orientation not in range(1, 9):
        orientation = 1
    stored = (image.height, image.width)
    extrema = image.getextrema()
    ranges = [extrema] if isinstance(extrema[0], int | float) else list(extrema)
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    colors = ranges[:-1] if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") else ranges
    is_deep = image.mode.startswith(("I", "F"))
    if is_deep:
        read_image(name, frame=frame)  # refuses values that cannot be brought to 8 bits
    return ImageFacts(
        size=stored[::-1] if orientation in _QUARTER_TURNS else stored,
        stored=stored,
        orientation=orientation,
        is_gray=image.mode in ("1", "L", "LA", "La") or is_deep,
        has_alpha=has_alpha,
        is_deep=is_deep,
        is_dim=image.mode.startswith("I") and ranges[0][1] - ranges[0][0] < _DIM,
        is_blank=all(low == high for low, high in colors),
        frames=1 if image.format in _OF_ONE_FRAME else getattr(image, "n_frames", 1),
    )


def file_digest(path: str | PathLike[str]) -> bytes:
    """A number that files of the same bytes share, and others do not.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
