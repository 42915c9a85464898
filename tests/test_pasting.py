"""Masks laid into boxes of fractions of pixels, as torchvision and detectron2 do it: against slow oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mrcnn.data.masks import cropped_masks, paste_masks
from mrcnn.data.molding import place_boxes, unmold_detections, whole_pixels


def at(mask, y, x):
    """Bilinear between cells, zeros all around."""
    height, width = mask.shape
    total, top, left = 0.0, math.floor(y), math.floor(x)
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= row < height and 0 <= column < width:
            total += mask[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def slow_aligned(mask, box, shape):
    """Each pixel of the image looks up its center in the mask."""
    output = np.zeros(shape)
    y1, x1, y2, x2 = (float(v) for v in box)
    for i in range(shape[0]):
        for j in range(shape[1]):
            y = (i + 0.5 - y1) / (y2 - y1) * mask.shape[0] - 0.5
            x = (j + 0.5 - x1) / (x2 - x1) * mask.shape[1] - 0.5
            output[i, j] = at(mask, y, x)
    return output


def slow_torchvision(mask, box, shape):
    """The mask with a border of zeros, in the box enlarged as much, cut to whole pixels; its last pixel included."""
    padded = np.pad(mask, 1)
    scale = padded.shape[0] / mask.shape[0]
    y1, x1, y2, x2 = (float(v) for v in box)
    center_y, center_x = (y1 + y2) / 2, (x1 + x2) / 2
    half_y, half_x = (y2 - y1) / 2 * scale, (x2 - x1) / 2 * scale
    y1, y2 = int(center_y - half_y), int(center_y + half_y)
    x1, x2 = int(center_x - half_x), int(center_x + half_x)
    height, width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
    output = np.zeros(shape)
    for i in range(max(y1, 0), min(y2 + 1, shape[0])):
        for j in range(max(x1, 0), min(x2 + 1, shape[1])):
            y = max((i - y1 + 0.5) * padded.shape[0] / height - 0.5, 0)
            x = max((j - x1 + 0.5) * padded.shape[1] / width - 0.5, 0)
            y, x = min(y, padded.shape[0] - 1), min(x, padded.shape[1] - 1)
            output[i, j] = at(padded, y, x)
    return output


SLOW = {"aligned": slow_aligned, "torchvision": slow_torchvision}
BOXES = [
    (2.3, 3.7, 20.1, 17.9), (-4.2, -3.1, 12.4, 30.9), (10.5, 8.5, 11.2, 9.1), (20.0, 5.0, 40.0, 33.3),
    (3.0, 3.0, 3.5, 25.0), (0.4, 0.4, 0.9, 0.9), (23.99, 25.5, 24.0, 26.0),
]  # fmt: skip


@pytest.mark.parametrize("paste", list(SLOW))
@pytest.mark.parametrize("box", BOXES)
def test_pasting_is_as_slow_oracles_have_it(rng, paste, box):
    shape = (24, 26)
    for mask in (rng.random((7, 7)), np.ones((7, 7)), np.full((7, 7), 0.49)):
        values = SLOW[paste](mask, box, shape)
        (found,) = paste_masks(mask[None], np.array([box], np.float32), shape, paste)
        sure = np.abs(values - 0.5) > 1e-5
        np.testing.assert_array_equal(found[sure], (values >= 0.5)[sure])


@pytest.mark.parametrize("paste", list(SLOW))
def test_boxes_outside_the_image_give_nothing(paste):
    boxes = np.array([(30, 2, 40, 8), (2, -20, 8, -10), (-9.5, 3, -3.2, 8)], np.float32)
    assert not paste_masks(np.ones((3, 5, 5)), boxes, (20, 20), paste).any()
    assert [crop.size for crop, _, _ in cropped_masks(np.ones((3, 5, 5)), boxes, (20, 20), paste)] == [0, 0, 0]
    assert paste_masks(np.zeros((0, 5, 5)), np.zeros((0, 4), np.float32), (20, 20), paste).shape == (0, 20, 20)


def test_boxes_of_the_image_grid_come_back_in_fractions_of_pixels():
    """An image of 50 x 80, twice as large in the upper left corner of 128 x 192."""
    detections = np.array([[10 / 128, 20 / 192, 51 / 128, 60.5 / 192, 2, 0.9], [0.1, 0.1, 0.1, 0.5, 1, 0.8]])
    boxes, class_ids, scores, kept = place_boxes(detections, (50, 80, 3), (128, 192, 3), (0, 0, 100, 160), "image")
    np.testing.assert_allclose(boxes, [[5, 10, 25.5, 30.25]], atol=1e-5)
    assert boxes.dtype == np.float32
    assert (class_ids.tolist(), scores.tolist(), kept.tolist()) == ([2], [0.9], [0])
    rows = np.vstack([detections, np.zeros((3, 6))])
    masks = np.zeros((5, 28, 28, 3))
    masks[0, :, :, 2] = 1
    whole, _, _, placed = unmold_detections(
        rows, masks, (50, 80, 3), (128, 192, 3), (0, 0, 100, 160), "image", "aligned"
    )
    assert whole.tolist() == [[5, 10, 26, 30]]
    assert placed.shape == (50, 80, 1)
    assert placed[:, :, 0].sum() == pytest.approx(20.5 * 20.25, abs=25)


def test_rounded_boxes_have_a_pixel_at_least():
    boxes = np.array([(2.2, 3.1, 2.4, 3.3), (2.6, 0.0, 3.0, 10.0), (7.5, 7.5, 8.5, 9.6)], np.float32)
    found = whole_pixels(boxes)
    assert found.dtype == np.int32
    assert (found[:, 2:] > found[:, :2]).all()
    assert found[0].tolist() == [2, 3, 3, 4]
    assert found[1].tolist() == [2, 0, 3, 10]
    given = np.array([[1, 2, 3, 4]], np.int32)
    assert whole_pixels(given) is given
