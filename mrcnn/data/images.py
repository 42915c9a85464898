"""Read image files into arrays."""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Iterator
from os import PathLike, fspath
from typing import IO, Any

import numpy as np

# EXIF's tag.
ORIENTATION = 0x0112
# Rows whose channels are turned round at a time.
_ROWS = 256
# So many pixels any file may have; of more, a file's header is believed up to so many for each of its bytes: PNG's
# compression packs 1000 bytes into one at most, and of masks a byte is 8 pixels. A damaged header must not take all
# memory.
_ANY_FILE = 1 << 27
_PIXELS_OF_A_BYTE = 8192


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
        return read_with_opencv(name, apply_orientation, frame)
    with decoding(name), opened(name) as image:
        if frame:
            go_to(image, frame)
        if apply_orientation:
            PIL.ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith(("I", "F")):
            return _to_rgb(_to_uint8(np.asarray(image), f"Pillow mode {image.mode}", name))
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def image_sizes(path: str | PathLike[str], frame: int = 0) -> tuple[tuple[int, int], tuple[int, int]]:
    """How large an image file is, read from its header: (height, width) as viewers show it, with its EXIF orientation,
    and as it is stored.

    Raises:
        FileNotFoundError, ImageError: as `read_image`.
    """
    name = fspath(path)
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        return tuple(read_image(name, upright, frame).shape[:2] for upright in (True, False))
    with decoding(name), opened(name) as image:
        if frame:
            go_to(image, frame)
        width, height = image.size
        if image.getexif().get(ORIENTATION) not in (5, 6, 7, 8):
            return (height, width), (height, width)
        if image.format != "TIFF":
            return (width, height), (height, width)
    # Whether Pillow has turned a TIFF file already hangs on its version.
    return tuple(read_image(name, upright, frame).shape[:2] for upright in (True, False))


def read_values(file: str | PathLike[str] | IO[bytes], name: str = "") -> Iterator[np.ndarray]:
    """The values of an image file as they are stored, for masks and label images: of palettes the indices.

    Args:
        file: a path, or an open file.
        name: what to call an open file in messages.

    Yields:
        For each page of a TIFF file, and once of any other, [H, W] or [H, W, C] of the file's own type.

    Raises:
        FileNotFoundError, ImageError: as `read_image`.
    """
    name = name or fspath(file)
    with decoding(name), opened(file) as image:
        for page in range(_pages(image)):
            if page:
                go_to(image, page)
            yield np.array(image)


def frame_count(path: str | PathLike[str]) -> int:
    """How many pages a TIFF file has; 1 of other images.

    Raises:
        FileNotFoundError, ImageError: as `read_image`.
    """
    with decoding(fspath(path)), opened(path) as image:
        return _pages(image)


def _pages(image: Any) -> int:
    return getattr(image, "n_frames", 1) if image.format == "TIFF" else 1


@contextlib.contextmanager
def opened(file: str | PathLike[str] | IO[bytes]) -> Iterator[Any]:
    """An image file opened by Pillow, however large it is. To be used within `decoding`, which tells what is raised.

    Raises:
        ValueError: its header tells of more pixels than such a file can hold.
    """
    import PIL.Image

    # Pillow looks at some formats' sizes when it opens them, at others' when it decodes.
    with _NO_LIMIT, PIL.Image.open(file) as image:
        _require_plausible(image)
        yield image


def go_to(image: Any, frame: int) -> None:
    """Turn to one of the images of a file that `opened` gave.

    Raises:
        ValueError: as `opened`.
    """
    image.seek(frame)
    _require_plausible(image)


class _NoLimit:
    """Within a `with` block, in any number of threads, Pillow takes no image for a "decompression bomb". Its limit is
    one for the whole process: it is back when the last block is left."""

    def __init__(self) -> None:
        self._lock, self._inside, self._limit = threading.Lock(), 0, None

    def __enter__(self) -> None:
        import PIL.Image

        with self._lock:
            if not self._inside:
                self._limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        import PIL.Image

        with self._lock:
            self._inside -= 1
            if not self._inside:
                PIL.Image.MAX_IMAGE_PIXELS = self._limit


_NO_LIMIT = _NoLimit()


def _require_plausible(image: Any) -> None:
    pixels = image.width * image.height
    if pixels <= _ANY_FILE:
        return
    place = image.fp.tell()
    length = image.fp.seek(0, 2)
    image.fp.seek(place)
    if pixels > length * _PIXELS_OF_A_BYTE:
        raise ValueError(  # which `decoding` tells with the name of the file
            f"its header tells of {image.width} x {image.height} pixels, more than {length} bytes can hold: it is "
            "damaged."
        )


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
    """Tell what Pillow's decoders raise as an error of this module."""
    import PIL.Image

    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No such image file: {name}") from error
    except IsADirectoryError as error:
        raise ImageError(f"Not an image file but a directory: {name}") from error
    except ImageError:
        raise
    # They tell damage by any of these.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error,
            PIL.Image.DecompressionBombError) as error:  # fmt: skip
        raise ImageError(f"Cannot read the image file {name}: {error}") from error


def read_with_opencv(name: str, apply_orientation: bool = True, frame: int = 0) -> np.ndarray:
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
    if image.ndim == 2:
        return _to_rgb(image)
    for top in range(0, len(image), _ROWS):  # without a second image of that size
        image[top : top + _ROWS] = cv2.cvtColor(image[top : top + _ROWS], cv2.COLOR_BGR2RGB)
    return image


def to_rgb_bytes(values: np.ndarray, name: str) -> np.ndarray:
    """Part of an image, [h, w, 1 or 3] of 8 or 16 bits, as `read_image` gives it: [h, w, 3] uint8.

    Args:
        values: whole numbers from 0 on.
        name: of the file, for messages.
    """
    if values.shape[2] == 1:
        gray = values[:, :, 0]
        return _to_rgb(gray if gray.dtype == np.uint8 else _to_uint8(gray, str(gray.dtype), name))
    return values if values.dtype == np.uint8 else (values >> 8).astype(np.uint8)


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
