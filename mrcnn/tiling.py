"""Images that are looked at tile by tile: what goes through the network, and what becomes of it.

Letters: H, W image size; N detections. Boxes and windows are (y1, x1, y2, x2) in *pixels*.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn.config import Config
from mrcnn.data.crops import Crop
from mrcnn.data.large_images import close_image, open_image, whole
from mrcnn.data.masks import cropped_masks
from mrcnn.data.molding import place_crops, whole_pixels
from mrcnn.data.tiles import Window, check_tiling, tile_windows
from mrcnn.merging import Detections, merge_tiles
from mrcnn.pipeline import Line, named_error

_log = logging.getLogger(__name__)

# Masks of the image's size may take so many bytes together.
_MOST_BYTES = 8 << 30

# Is told how many of an image's tiles are done, and how many there are.
OnTile = Callable[[int, int], None]


@dataclass(frozen=True)
class Tiling:
    """How images are cut: into squares of `side` pixels, of which neighbors share `overlap` of their side.

    Raises:
        ValueError: tiles that cannot be.
    """

    side: int
    overlap: float

    def __post_init__(self) -> None:
        check_tiling(self.side, self.overlap)


class TiledImage:
    """An image in tiles.

    Args:
        image: see `open_image`.
        tiling: how it is cut.
        masks: the form that its masks are to have.
        config: of the network.
        class_agnostic: see `merge_tiles`.

    Attributes:
        windows: of the tiles.

    Raises:
        ValueError: masks of the image's size that there would be no room for. What `open_image` raises.
    """

    def __init__(self, image: Any, tiling: Tiling, masks: str, config: Config, class_agnostic: bool = False) -> None:
        self.image = open_image(image)
        self.shape = tuple(int(side) for side in self.image.shape)
        self._masks = masks
        self._class_agnostic = class_agnostic
        self._most = config.DETECTION_MAX_INSTANCES
        self._full: list[Window] = []
        try:
            self.windows = tile_windows(self.shape, tiling.side, tiling.overlap)
            check_room(masks, self.shape, config.DETECTION_MAX_INSTANCES)  # a tile alone can have so many objects
        except ValueError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        close_image(self.image)

    def tile(self, window: Window) -> np.ndarray:
        """The part of the image in a window."""
        y1, x1, y2, x2 = window
        return np.asarray(self.image[y1:y2, x1:x2])

    def count(self, window: Window, found: int) -> None:
        """Take notice of how many objects the network found in a tile."""
        if found >= self._most:
            self._full.append(window)

    def whole(self) -> np.ndarray:
        """All of the image."""
        return whole(self.image)

    def result(self, found: Sequence[Detections]) -> dict[str, Any]:
        """What `Detector.detect` tells of an image, of what was found in its tiles."""
        if self._full:
            _log.warning(
                "%d of %d tiles hold DETECTION_MAX_INSTANCES = %d objects, the most that is found in one: in smaller "
                "tiles there may be more.", len(self._full), len(self.windows), self._most,
            )  # fmt: skip
        merged = merge_tiles(self.windows, found, self.shape, self._class_agnostic)
        result = {"rois": merged.boxes, "class_ids": merged.class_ids, "scores": merged.scores}
        if self._masks != "none":
            check_room(self._masks, self.shape, len(merged.crops))
            result["masks"] = place_crops(merged.masks(), len(merged.crops), self.shape, self._masks)
        return result


def stream_tiles(
    images: Iterable[Any],
    open_tiles: Callable[[Any], TiledImage],
    line_of: Callable[[TiledImage, str], Line],
    name_of: Callable[[int, Any], str],
    on_error: Callable[[int, Any, Exception], Any] | None,
    with_images: bool,
    on_tile: OnTile | None,
) -> Iterator[dict[str, Any] | None]:
    """Take images through a line tile by tile, one image after the other.

    Args:
        images: as they are given.
        open_tiles: an image -> its tiles.
        line_of: these and the image's name -> a line that takes the windows and gives `Detections`.
        name_of: an image's number and it -> how messages name it.
        on_error, with_images, on_tile: see `Detector.stream`.

    Yields:
        A result for each image; None for one that cannot be taken, where `on_error` is told of it.
    """
    for index, given in enumerate(images):
        name, failed, result = name_of(index, given), [], None
        try:
            image = open_tiles(given)
        except Exception as error:
            failed.append(named_error(error, name))
        else:
            with contextlib.closing(image):
                found = _through(line_of(image, name), image.windows, failed, on_tile)
                if not failed:
                    result = image.result(found)
                    if with_images:
                        result["image"] = image.whole()
        image = None  # it can go while the result is looked at
        if failed and on_error is None:
            raise failed[0]
        if failed:
            on_error(index, given, failed[0])
        yield result


def _through(
    line: Line, windows: Sequence[Window], failed: list[Exception], on_tile: OnTile | None
) -> list[Detections]:
    """What is found in tiles. Of one that cannot be taken `failed` is told, and no more of them are taken."""
    found: list[Detections] = []
    with contextlib.closing(line.results(windows, lambda index, window, error: failed.append(error))) as results:
        for one in results:
            if failed:
                break
            found.append(one)
            if on_tile is not None:
                on_tile(len(found), len(windows))
    return found


def tile_detections(
    window: Window,
    boxes: np.ndarray,
    class_ids: np.ndarray,
    scores: np.ndarray,
    masks: np.ndarray,
    paste: str = "legacy",
) -> Detections:
    """Detections in a tile, at their places in the image.

    Args:
        window: of the tile.
        boxes: [N, 4], pixels of the tile, int for `paste` "legacy".
        class_ids, scores: [N].
        masks: [N, mh, mw] probabilities.
        paste: MASK_PASTE.
    """
    y1, x1, y2, x2 = window
    placed = cropped_masks(masks, boxes, (y2 - y1, x2 - x1), paste)
    crops = [Crop.of(crop, top + y1, left + x1) for crop, top, left in placed]
    return Detections(whole_pixels(boxes) + np.array([y1, x1, y1, x1], np.int32), class_ids, scores, crops)


def check_room(masks: str, image_shape: Sequence[int], count: int) -> None:
    """Refuse so many masks of an image's size that no machine has room for them.

    Raises:
        ValueError: says what would do.
    """
    height, width = image_shape[:2]
    size = height * width * count
    if masks == "bool" and size > _MOST_BYTES:
        raise ValueError(
            f"masks='bool' makes an array of the image's size for each object: {height} x {width} x {count} are "
            f"{size / 1e9:,.1f} GB. Use masks='rle' (or 'polygons', or 'none'): a mask takes a few hundred bytes then."
        )


@contextlib.contextmanager
def tile_progress(title: str, shown: bool | None = None) -> Iterator[OnTile]:
    """A bar of the tiles that are done, on the error stream.

    Args:
        title: stands before it.
        shown: None: where that stream is a terminal.
    """
    try:
        from tqdm import tqdm
    except ImportError:  # where only detection is installed
        yield lambda done, total: None
        return
    disable = None if shown is None else not shown
    with tqdm(desc=title, unit=" tiles", disable=disable, dynamic_ncols=True, leave=False) as bar:

        def on_tile(done: int, total: int) -> None:
            if done == 1 or bar.total != total:
                bar.reset(total)
            bar.update(done - bar.n)

        yield on_tile
