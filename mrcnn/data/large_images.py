"""Images that may be too large to be held in memory twice, or at all.

Letters: H, W image size; C channels. Everything here can be asked for its `shape` and for windows,
`image[y1:y2, x1:x2]`: arrays, arrays on the disk (numpy's memmap, h5py, zarr), and TIFF files.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from mrcnn.data.images import ImageError, opened, read_image, read_with_opencv, to_rgb_bytes

# Parts of a TIFF file that have been decoded are kept, up to so many bytes: a line of tiles needs the same strips.
_KEPT_BYTES = 256 << 20

# From so many pixels on, copies of an image count.
_LARGE = 1 << 25


def open_image(image: Any) -> Any:
    """An image to take windows from.

    A TIFF file is read window by window, where the package tifffile is installed and the file is plain: its first page
    gray or RGB, of 8 or 16 bits, interleaved, upright, not compressed or in a way that tifffile can decode. Any other
    file is read whole, and once.

    Args:
        image: a path; an array; or something else with `shape` and windows, such as a dataset of h5py.

    Returns:
        Something with `shape` (H, W) or (H, W, C), and windows that are arrays or can be made such.

    Raises:
        FileNotFoundError, ImageError: see `read_image`.
        ValueError: an empty image, or another number of axes.
    """
    if isinstance(image, str | os.PathLike):
        return _open_file(os.fspath(image))
    if not hasattr(image, "shape") or not hasattr(image, "__getitem__"):
        image = np.asarray(image)
    if len(image.shape) not in (2, 3) or 0 in image.shape:
        raise ValueError(f"An image must be [H, W] or [H, W, C], not empty. Received shape: {tuple(image.shape)}.")
    return image


def close_image(image: Any) -> None:
    """Let go of a file that `open_image` has opened."""
    if isinstance(image, TiffImage):
        image.close()


def whole(image: Any) -> np.ndarray:
    """All of what `open_image` has opened; an array is given back as it is."""
    return image if isinstance(image, np.ndarray) else np.asarray(image[:, :])


def _open_file(name: str) -> Any:
    tiff = _open_tiff(name) if name.lower().endswith((".tif", ".tiff")) else None
    if tiff is not None:
        return tiff
    # OpenCV makes one array of a file where Pillow makes several.
    return read_with_opencv(name) if _is_large(name) else read_image(name)


def _is_large(name: str) -> bool:
    """Whether a file holds a large image of a usual kind, of which OpenCV makes what Pillow does."""
    try:
        with opened(name) as image:
            usual = image.format == "JPEG" or (image.format == "PNG" and "exif" not in image.info)
            return usual and image.mode in ("L", "RGB", "RGBA") and image.width * image.height >= _LARGE
    except Exception:  # no Pillow; what is wrong with the file is told by who reads it
        return False


def _open_tiff(name: str) -> TiffImage | None:
    try:
        import tifffile
    except ImportError:
        return None
    try:
        file = tifffile.TiffFile(name)
    except (OSError, ValueError, tifffile.TiffFileError):  # what is wrong is told by who reads it next
        return None
    try:
        return TiffImage(name, file)
    except _NotPlain:
        file.close()
        return None


class _NotPlain(Exception):
    """A TIFF file that is not read window by window."""


class TiffImage:
    """The first page of a TIFF file, read as it is asked for, as `read_image` would give it. Threads may share it.

    Attributes:
        shape: (H, W, 3).
        dtype: uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, name: str, file: Any) -> None:
        self._name, self._file = name, file
        self._page = page = file.pages.first
        samples = page.samplesperpixel
        plain = (
            page.photometric.name == {1: "MINISBLACK", 3: "RGB"}.get(samples)
            and page.dtype in (np.uint8, np.uint16)
            and page.imagedepth == 1
            and (samples == 1 or page.planarconfig.name == "CONTIG")
            and page.tags.valueof("Orientation", 1) == 1
        )
        if not plain or 0 in (page.imagelength, page.imagewidth):
            raise _NotPlain
        self.shape = (page.imagelength, page.imagewidth, 3)
        self._mapped: np.ndarray | None = None
        if page.is_memmappable and not page.is_tiled:
            self._mapped = np.memmap(
                name, page.dtype.newbyteorder(file.byteorder), "r", page.dataoffsets[0], (*self.shape[:2], samples)
            )
        # Of a file in strips each is as wide as the image.
        self._rows = page.tilelength if page.is_tiled else page.rowsperstrip
        self._columns = page.tilewidth if page.is_tiled else page.imagewidth
        self._across = -(-page.imagewidth // self._columns)
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        try:
            self._window(0, 0, 1, 1)
        except Exception as error:  # a codec that is not here, or damage: whoever reads it whole knows or says
            raise _NotPlain from error

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        """Rows and columns without a step -> [h, w, 3] uint8.

        Raises:
            ImageError: the file is damaged there.
        """
        (y1, y2, _), (x1, x2, _) = (part.indices(side) for part, side in zip(window, self.shape[:2], strict=True))
        try:
            values = self._window(y1, x1, y2, x2)
        except Exception as error:  # decoders tell damage in many ways
            raise ImageError(f"Cannot read rows {y1} to {y2} of the image file {self._name}: {error}") from error
        return to_rgb_bytes(values, self._name)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._file.close()

    def _window(self, y1: int, x1: int, y2: int, x2: int) -> np.ndarray:
        """[h, w, samples], as stored."""
        if self._mapped is not None:
            return self._mapped[y1:y2, x1:x2]
        page = self._page
        values = np.zeros((y2 - y1, x2 - x1, page.samplesperpixel), page.dtype)
        for row in range(y1 // self._rows, -(-y2 // self._rows)):
            for column in range(x1 // self._columns, -(-x2 // self._columns)):
                part = self._segment(row * self._across + column)
                top, left = row * self._rows, column * self._columns
                rows = slice(max(y1, top), min(y2, top + part.shape[0]))
                columns = slice(max(x1, left), min(x2, left + part.shape[1]))
                values[rows.start - y1 : rows.stop - y1, columns.start - x1 : columns.stop - x1] = part[
                    rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
                ]
        return values

    def _segment(self, index: int) -> np.ndarray:
        """A strip or a tile, decoded: [rows, columns, samples]."""
        page = self._page
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
            offset, count = page.dataoffsets[index], page.databytecounts[index]
            self._file.filehandle.seek(offset)
            data = self._file.filehandle.read(count) if count else None
            part, _, shape = page.decode(data, index, jpegtables=page.jpegtables)
            if part is None:  # left out of the file: nothing but zeros
                part = np.zeros(shape, page.dtype)
            part = np.ascontiguousarray(part[0])
            self._kept[index] = part
            while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
            return part
