"""Read image files into arrays."""

from __future__ import annotations

import struct
from os import PathLike, fspath
from typing import Any

import numpy as np


class ImageError(ValueError):
    """A file that cannot be read as an image. The message names the file."""


def read_image(path: str | PathLike[str], apply_orientation: bool = True, frame: int = 0) -> np.ndarray:
    """An image file as RGB.

    Grayscale becomes three equal channels, palettes are resolved, alpha is dropped, CMYK and the like are
    converted. 16-bit values are scaled from 0..65535 to 0..255 whatever range they use, so that all images of
    a set are scaled alike: a dataset whose values fill a small part of that range should read and scale them
    itself. Floats are scaled from 0..1, or taken as they are where they go up to 255.

    Args:
        path: any format that Pillow reads; where Pillow is not installed, that OpenCV reads.
        apply_orientation: turn the image as its EXIF orientation says, as viewers do.
        frame: which one to take of several, such as those of a TIFF stack, from 0 on.

    Returns:
        [H, W, 3] uint8.

    Raises:
        FileNotFoundError: no such file.
        ImageError: the file is no image, is damaged, lacks the frame, or holds values that cannot be brought to
            0..255.
    """
    name = fspath(path)
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError:
        return _read_with_opencv(name, apply_orientation, frame)
    try:
        with PIL.Image.open(name) as image:
            image.seek(frame)
            upright = PIL.ImageOps.exif_transpose(image) if apply_orientation else image
            if upright.mode.startswith(("I", "F")):
                return _to_rgb(_to_uint8(np.asarray(upright), f"Pillow mode {upright.mode}", name))
            return np.array(upright.convert("RGB"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No such image file: {name}") from error
    except IsADirectoryError as error:
        raise ImageError(f"Not an image file but a directory: {name}") from error
    except ImageError:
        raise
    # Pillow's decoders tell damage by any of these.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error,
            PIL.Image.DecompressionBombError) as error:  # fmt: skip
        raise ImageError(f"Cannot read the image file {name}: {error}") from error


def _read_with_opencv(name: str, apply_orientation: bool, frame: int) -> np.ndarray:
    """`read_image` for deployments without Pillow. The usual files come out the same; of rare ones (CMYK, color
    profiles of TIFF, GIF before OpenCV 4.11) OpenCV may make something else, or nothing."""
    import cv2

    try:
        data = np.fromfile(name, np.uint8)  # cv2.imread cannot open all names on Windows
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No such image file: {name}") from error
    except IsADirectoryError as error:
        raise ImageError(f"Not an image file but a directory: {name}") from error
    except OSError as error:
        raise ImageError(f"Cannot read the image file {name}: {error}") from error
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | (0 if apply_orientation else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        frames = cv2.imdecodemulti(data, flags)[1] if frame and data.size else ()
        image = frames[frame] if frame < len(frames) else cv2.imdecode(data, flags) if data.size and not frame else None
    except cv2.error as error:
        raise ImageError(f"Cannot read the image file {name}: {error}") from error
    if image is None:
        raise ImageError(f"Cannot read the image file {name}: no image that OpenCV knows, or a damaged one.")
    if image.dtype == np.uint16 and image.ndim == 3:
        image = (image >> 8).astype(np.uint8)  # as Pillow does it for colors
    elif image.dtype != np.uint8:
        image = _to_uint8(image, str(image.dtype), name)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.ndim == 3 else _to_rgb(image)


def _to_uint8(values: np.ndarray, kind: str, name: str) -> np.ndarray:
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    whole = values.dtype.kind in "iu"
    if whole and low >= 0 and high <= 65535:
        return np.round(values / 257).astype(np.uint8)
    if not whole and low >= 0 and high <= 255:
        return np.round(values * 255 if high <= 1 else values).astype(np.uint8)
    wanted = "0..65535" if whole else "0..1 or 0..255"
    raise ImageError(
        f"Cannot bring the values of {name} ({kind}) to 0..255: they must lie in {wanted}. "
        f"Received: {low}..{high}. Override Dataset.load_image to scale them yourself."
    )


def _to_rgb(gray: Any) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=-1)
