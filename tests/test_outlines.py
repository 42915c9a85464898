"""Masks as outlines: filled again by OpenCV, by Pillow and as COCO does it, they are the masks."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from mrcnn.data.masks import polygons_of_crop
from mrcnn.data.outlines import crop_of_outlines, joined, one_outline, part_outlines
from mrcnn.data.segmentations import decode_segmentation


def by_opencv(outline, shape):
    """As Ultralytics fills its polygons."""
    return cv2.fillPoly(np.zeros(shape, np.uint8), [outline.astype(np.int32)], 1).astype(bool)


def by_pillow(outline, shape):
    """As labelme fills its polygons."""
    image = Image.new("L", shape[::-1])
    ImageDraw.Draw(image).polygon([tuple(point) for point in outline.tolist()], outline=1, fill=1)
    return np.array(image, bool)


def by_coco(outline, shape):
    return decode_segmentation([outline.ravel()], *shape)


def some_masks(rng):
    """Small ones of all densities, and shapes with holes, parts within holes, and spurs."""
    for turn in range(300):
        height, width = (int(n) for n in rng.integers(1, 14, 2))
        yield rng.random((height, width)) < rng.choice([0.1, 0.4, 0.6, 0.8, 0.95])
        if turn % 6 == 0:
            image = np.zeros((90, 120), np.uint8)
            for value in (1, 1, 0, 1, 0):
                center = tuple(int(v) for v in rng.integers(10, 80, 2))
                axes = tuple(int(v) for v in rng.integers(3, 40, 2))
                cv2.ellipse(image, center, axes, float(rng.integers(180)), 0, 360, value, -1)
            yield image.astype(bool)


@pytest.mark.parametrize("fill", [by_opencv, by_pillow, by_coco])
def test_the_parts_filled_are_the_mask(fill, rng):
    with_holes = 0
    for mask in some_masks(rng):
        outlines = part_outlines(mask)
        count = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
        assert len(outlines) == count
        again = np.zeros_like(mask)
        for outline in outlines:
            assert outline.dtype == np.float64 and len(outline) >= 4
            assert set((outline % 1).ravel().tolist()) <= {0.25, 0.5, 0.75}
            again |= fill(outline, mask.shape)
        np.testing.assert_array_equal(again, mask)
        with_holes += count > 0 and cv2.connectedComponents((~np.pad(mask, 1)).astype(np.uint8), connectivity=4)[0] > 2
    assert with_holes > 50


def test_one_outline_is_the_mask_and_lines_between_its_parts(rng):
    for mask in some_masks(rng):
        outline, parts = one_outline(mask)
        if not mask.any():
            assert outline.shape == (0, 2) and parts == 0
            continue
        np.testing.assert_array_equal(by_coco(outline, mask.shape), mask)
        again = by_opencv(outline, mask.shape)
        if parts == 1:
            np.testing.assert_array_equal(again, mask)
        else:  # all of the mask but where lines cross it, and no more than a line a part
            line = (again & ~mask).sum()
            assert line <= (parts - 1) * max(mask.shape)
            assert (mask & ~again).sum() <= parts * max(mask.shape) // 4


def test_two_parts_are_joined_by_the_shortest_line():
    mask = np.zeros((20, 30), bool)
    mask[2:6, 2:6] = mask[4:9, 20:28] = True
    outline, parts = one_outline(mask, top=100, left=200)
    assert parts == 2
    assert outline.min(axis=0).tolist() == [202.25, 102.25] and outline.max(axis=0).tolist() == [227.75, 108.75]
    again = by_opencv(outline - (200, 100), mask.shape)
    assert (again & ~mask).sum() == 14 and not (mask & ~again).any()


def test_outlines_have_no_more_corners_than_they_need():
    assert part_outlines(np.ones((1, 1), bool), 5, 7)[0].tolist() == [
        [7.25, 5.75],
        [7.75, 5.75],
        [7.75, 5.25],
        [7.25, 5.25],
    ]
    (square,) = part_outlines(np.ones((9, 7), bool))
    assert square.tolist() == [[0.25, 0.25], [0.25, 8.75], [6.75, 8.75], [6.75, 0.25]]
    (line,) = part_outlines(np.eye(9, dtype=bool))
    assert len(line) == 6
    assert part_outlines(np.zeros((3, 3), bool)) == part_outlines(np.zeros((0, 0), bool)) == []


def test_the_way_back_from_polygons(rng):
    for mask in some_masks(rng):
        crop, top, left = crop_of_outlines(polygons_of_crop(mask, 3, 5), (mask.shape[0] + 1, 150))
        expected = mask[: mask.shape[0] - 2]  # the last two rows lie outside
        pasted = np.zeros((mask.shape[0] + 1, 150), bool)
        pasted[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        np.testing.assert_array_equal(pasted[3:, 5 : 5 + mask.shape[1]], expected)
        assert pasted.sum() == expected.sum()
    assert crop_of_outlines([np.array([[-5, 2], [-2, 2]])], (9, 9))[0].shape == (0, 0)
    assert crop_of_outlines([], (9, 9))[0].shape == (0, 0)


def test_outlines_of_others_are_joined():
    squares = [
        np.array([[0.5, 0.5], [4.5, 0.5], [4.5, 4.5], [0.5, 4.5]]) + shift for shift in ((0, 0), (10, 0), (0, 9))
    ]
    line = joined(squares)
    assert {tuple(point) for point in line.tolist()} == {tuple(p) for square in squares for p in square.tolist()}
    assert cv2.contourArea(line.astype(np.float32)) == pytest.approx(3 * 16)
    np.testing.assert_array_equal(joined(squares[:1]), squares[0])


def test_a_mask_of_noise_takes_no_more_than_a_moment(rng):
    mask = rng.random((300, 300)) < 0.35
    start = time.perf_counter()
    outline, parts = one_outline(mask)
    assert parts > 1500 and len(outline) > 10_000 and time.perf_counter() - start < 10
    (with_holes,) = part_outlines(rng.random((300, 300)) < 0.9)[:1]
    assert len(with_holes) > 20_000
