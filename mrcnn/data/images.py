"""Read image files into arrays."""

from __future__ import annotations

import struct
from os import PathLike, fspath
from typing import Any

import numpy as np


class ImageError(ValueError):
    """A file that cannot be read as an image. The message names the file."""


def read_image(path: str | PathLike[str], apply_orientation: bool = True) -> np.ndarray:
    """An image file as RGB.

    Grayscale becomes three equal channels, palettes are resolved, alpha is dropped, CMYK and the like are
    converted. 16-bit values are scaled from 0..65535 to 0..255 whatever range they use, so that all images of
    a set are scaled alike: a dataset whose values fill a small part of that range should read and scale them
    itself. Floats are scaled from 0..1, or taken as they are where they go up to 255. Of several frames the
    first is taken.

    Args:
        path: any format that Pillow reads.
        apply_orientation: turn the image as its EXIF orientation says, as viewers do.

    Returns:
        [H, W, 3] uint8.

    Raises:
        FileNotFoundError: no such file.
        ImageError: the file is no image, is damaged, or holds values that cannot be brought to 0..255.
    """
    import PIL.Image
    import PIL.ImageOps

    name = fspath(path)
    try:
        with PIL.Image.open(name) as image:
            upright = PIL.ImageOps.exif_transpose(image) if apply_orientation else image
            if upright.mode.startswith(("I", "F")):
                return _to_rgb(_to_uint8(np.asarray(upright), upright.mode, name))
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


def _to_uint8(values: np.ndarray, mode: str, name: str) -> np.ndarray:
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if mode.startswith("I") and low >= 0 and high <= 65535:
        return np.round(values / 257).astype(np.uint8)
    if mode.startswith("F") and low >= 0 and high <= 255:
        return np.round(values * 255 if high <= 1 else values).astype(np.uint8)
    wanted = "0..65535" if mode.startswith("I") else "0..1 or 0..255"
    raise ImageError(
        f"Cannot bring the values of {name} (Pillow mode {mode}) to 0..255: they must lie in {wanted}. "
        f"Received: {low}..{high}. Override Dataset.load_image to scale them yourself."
    )


def _to_rgb(gray: Any) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=-1)
