"""The mosaic of the benchmark and how what is found in it is counted."""

from __future__ import annotations

import numpy as np

from benchmarks.large_image import GAP, compared, mirrored, mosaic


def part(seed):
    rng = np.random.default_rng(seed)
    labels = np.zeros((50, 30), np.int32)
    labels[5:15, 5:15], labels[20:40, 10:28] = 1, 2
    return rng.integers(1, 256, (50, 30, 3), np.uint8), labels


def test_a_mosaic_holds_whole_parts():
    parts = [part(seed) for seed in range(3)]
    image, labels, used = mosaic(parts, 200, np.random.default_rng(0))
    assert len(used) == 2 * 3 and labels.max() == 12 and image.shape == (200, 200, 3)
    places = [(top, left) for top in (0, 50 + GAP) for left in (0, 30 + GAP, 2 * (30 + GAP))]
    for index, ((top, left), (number, *flips)) in enumerate(zip(places, used, strict=True)):
        picture, own = (mirrored(array, *flips) for array in parts[number])
        np.testing.assert_array_equal(image[top : top + 50, left : left + 30], picture)
        inside = labels[top : top + 50, left : left + 30]
        np.testing.assert_array_equal(np.where(inside > 0, inside - 2 * index, 0), own)
    assert (
        not image[50 : 50 + GAP].any()
        and len({flips for _, *flips in map(tuple, used) for flips in [tuple(flips)]}) > 1
    )


def test_each_object_counts_once():
    _, labels = part(0)
    whole, half, other = np.ones((10, 10), bool), np.ones((10, 4), bool), np.ones((20, 18), bool)
    found = [(whole, 5, 5), (whole, 5, 6), (half, 5, 5), (other, 20, 10), (whole, 40, 0)]
    told = compared(labels, [0.5, 0.9, 0.95, 0.8, 0.7], found)
    assert (told["objects"], told["detections"], told["found"]) == (2, 5, 2)
    np.testing.assert_allclose(told["mean_iou"], (90 / 110 + 1) / 2)  # the better score's, not the better mask's
    assert compared(labels, [], [])["found"] == 0
