"""Which images are meant: a list of them, or a folder's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")


def is_image(path: Path) -> bool:
    """Whether a file's name is one of an image, and not of what macOS puts beside it: ._a.png."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def images_in(folder: str | os.PathLike[str]) -> list[Path]:
    """The image files of a folder, by name.

    Raises:
        FileNotFoundError: it holds none.
        OSError: it cannot be looked into.
    """
    inside = sorted(file for file in Path(folder).iterdir() if is_image(file))
    if not inside:
        raise FileNotFoundError(f"The folder {folder} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    return inside


def image_list(images: Any) -> Sequence[Any]:
    """What `detect` was given, as something with a length: a sequence as it is, a folder's image files.

    Raises:
        ValueError: a single image.
        TypeError: what is no list of anything.
        OSError: as `images_in`.
    """
    if isinstance(images, np.ndarray) and images.ndim in (2, 3):
        raise ValueError(
            f"detect takes a list of images. Received: one array of shape {images.shape}. Write detect([image])."
        )
    if isinstance(images, str | os.PathLike):
        if os.path.isdir(images):
            return images_in(images)
        raise ValueError(
            f"detect takes a list of images or a folder. Received: one path. Write detect([{str(images)!r}])."
        )
    if isinstance(images, np.ndarray | Sequence):
        return images
    try:
        return list(images)
    except TypeError:
        raise TypeError(f"detect takes a list of images. Received: {type(images).__name__}.") from None
