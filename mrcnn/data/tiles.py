"""Cutting a large image into tiles that overlap.

Letters: H, W image size. Windows are (y1, x1, y2, x2) in *pixels* of the image, y2 and x2 one outside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Window = tuple[int, int, int, int]

# The smallest tile: what the network halves six times.
_SMALLEST = 64
# Above this share of overlap there would be a hundred times as many tiles as without.
_MOST_OVERLAP = 0.9


def check_tiling(tile: int, overlap: float) -> None:
    """Refuse tiles that cannot be.

    Raises:
        ValueError: says what was received and what would do.
    """
    whole = isinstance(tile, int | np.integer) and not isinstance(tile, bool)
    if not whole or tile < _SMALLEST:
        raise ValueError(f"tile must be a whole number of pixels, at least {_SMALLEST}. Received: {tile!r}.")
    number = isinstance(overlap, int | float | np.number) and not isinstance(overlap, bool)
    if not number or not 0 <= overlap <= _MOST_OVERLAP:
        raise ValueError(
            f"overlap is the share of a tile's side, from 0 to {_MOST_OVERLAP}, that the next one has too. "
            f"Received: {overlap!r}."
        )


def tile_starts(size: int, tile: int, stride: int) -> list[int]:
    """Where tiles begin along a side of an image: evenly, at most `stride` apart, from edge to edge.

    Args:
        size: of the image's side, in pixels.
        tile: the tile's side, at most `size`.
        stride: at least 1.
    """
    count = 1 + -(-(size - tile) // stride)
    return np.linspace(0, size - tile, count).round().astype(int).tolist()


def tile_windows(image_shape: Sequence[int], tile: int, overlap: float) -> list[Window]:
    """The windows of an image's tiles, line by line. All are of one size: `tile` squared, or as much of it as the image
    has.

    Args:
        image_shape: (H, W, ...).
        tile: side in pixels.
        overlap: the share of it that neighbors have in common, at least.

    Raises:
        ValueError: tiles that cannot be, see `check_tiling`; an image without pixels.
    """
    check_tiling(tile, overlap)
    height, width = (int(side) for side in image_shape[:2])
    if height < 1 or width < 1:
        raise ValueError(f"An image must not be empty. Received shape: {tuple(image_shape)}.")
    stride = max(1, int(tile * (1 - overlap)))
    rows, columns = min(tile, height), min(tile, width)
    return [
        (y, x, y + rows, x + columns)
        for y in tile_starts(height, rows, stride)
        for x in tile_starts(width, columns, stride)
    ]
