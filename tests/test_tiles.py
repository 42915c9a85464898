"""Tiles cover an image, overlap as asked for and are of one size."""

from __future__ import annotations

import numpy as np
import pytest

from mrcnn.data.tiles import check_tiling, tile_windows


def test_windows_of_known_images():
    assert tile_windows((100, 64), 64, 0.25) == [(0, 0, 64, 64), (36, 0, 100, 64)]
    assert tile_windows((50, 40, 3), 64, 0.2) == [(0, 0, 50, 40)]  # no larger than the image
    assert tile_windows((64, 200), 64, 0.0) == [(0, x, 64, x + 64) for x in (0, 45, 91, 136)]
    assert len(tile_windows((10_000, 10_000), 1024, 0.2)) == 144


def test_windows_of_many_images(rng):
    for _ in range(200):
        height, width = rng.integers(1, 700, 2).tolist()
        tile, overlap = int(rng.integers(64, 300)), float(rng.uniform(0, 0.9))
        windows = np.array(tile_windows((height, width), tile, overlap))
        covered = np.zeros((height, width), int)
        for y1, x1, y2, x2 in windows:
            covered[y1:y2, x1:x2] += 1
        assert covered.all()
        assert (windows[:, :2] >= 0).all() and (windows[:, 2:] <= (height, width)).all()
        assert (windows[:, 2:] - windows[:, :2] == (min(tile, height), min(tile, width))).all()
        for axis in (0, 1):
            starts = np.unique(windows[:, axis])
            assert (np.diff(starts) <= tile * (1 - overlap)).all()
        assert len({tuple(window) for window in windows.tolist()}) == len(windows)


@pytest.mark.parametrize("tile", [0, 63, -1, 100.0, "100", None, True])
def test_tiles_that_cannot_be(tile):
    with pytest.raises(ValueError, match=r"tile must be a whole number of pixels, at least 64. Received: "):
        check_tiling(tile, 0.2)


@pytest.mark.parametrize("overlap", [-0.1, 0.95, 20, float("nan"), "0.2", None, True])
def test_overlaps_that_cannot_be(overlap):
    with pytest.raises(ValueError, match=r"overlap is the share of a tile's side, from 0 to 0.9"):
        tile_windows((100, 100), 64, overlap)


def test_an_image_without_pixels():
    with pytest.raises(ValueError, match=r"must not be empty. Received shape: \(0, 5, 3\)"):
        tile_windows((0, 5, 3), 64, 0.2)
