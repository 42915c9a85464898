"""Masks: golden numbers, boxes around masks, mini-masks there and back, pasting against the slow way."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mrcnn.data import masks as masks_module
from mrcnn.data.masks import (
    cropped_masks,
    expand_mask,
    extract_bboxes,
    mask_in_box,
    minimize_mask,
    paste_masks,
    polygons_of_crop,
    unmold_mask,
)
from mrcnn.data.resizing import resize
from tests import golden

MOLDING = "golden_molding"


def golden_cases(function):
    head, tail = f"{function}.", ".out"
    return [
        name[len(head) : -len(tail)] for name in golden.load(MOLDING) if name.startswith(head) and name.endswith(tail)
    ]


def paste_oracle(mask, box, image_shape):
    """Resize to the box, threshold, put in place."""
    y1, x1, y2, x2 = box
    full = np.zeros(image_shape[:2], bool)
    full[y1:y2, x1:x2] = resize(mask, (y2 - y1, x2 - x1)) >= 0.5
    return full


def blobs(rng, count, height=60, width=80):
    """[H, W, N] filled ellipses."""
    y, x = np.mgrid[:height, :width]
    masks = []
    for _ in range(count):
        center = rng.uniform(10, 50, 2)
        radius = rng.uniform(6, 20, 2)
        masks.append(((y - center[0]) / radius[0]) ** 2 + ((x - center[1]) / radius[1]) ** 2 <= 1)
    return np.stack(masks, axis=-1)


def test_extract_bboxes_golden():
    data = golden.part(MOLDING, "extract_bboxes.a")
    actual = extract_bboxes(data["in.mask"])
    assert actual.dtype == np.int32
    golden.check("extract_bboxes", actual, data["out"])
    other_layout = np.moveaxis(np.ascontiguousarray(np.moveaxis(data["in.mask"], -1, 0)), 0, -1)
    golden.check("extract_bboxes, instances first in memory", extract_bboxes(other_layout), data["out"])


@pytest.mark.parametrize("case", golden_cases("minimize_mask"))
def test_minimize_mask_golden(case):
    data = golden.part(MOLDING, f"minimize_mask.{case}")
    actual = minimize_mask(data["in.bbox"], data["in.mask"], data["in.mini_shape"])
    assert actual.dtype == bool
    golden.check(f"minimize_mask {case}", actual, data["out"])


@pytest.mark.parametrize("case", golden_cases("expand_mask"))
def test_expand_mask_golden(case):
    data = golden.part(MOLDING, f"expand_mask.{case}")
    actual = expand_mask(data["in.bbox"], data["in.mini_mask"], data["in.image_shape"])
    assert actual.dtype == bool
    golden.check(f"expand_mask {case}", actual, data["out"])


@pytest.mark.parametrize("case", golden_cases("unmold_mask"))
def test_unmold_mask_golden(case):
    data = golden.part(MOLDING, f"unmold_mask.{case}")
    actual = unmold_mask(data["in.mask"], data["in.bbox"], data["in.image_shape"])
    assert actual.dtype == bool
    golden.check(f"unmold_mask {case}", actual, data["out"])


@pytest.mark.parametrize("width", [1, 2, 3, 7, 8, 31])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_extract_bboxes_of_single_pixels_and_nothing(width, dtype, rng):
    mask = np.zeros((9, width, 5), dtype)
    expected = np.zeros((5, 4), np.int32)
    for n in range(4):  # the last mask stays empty
        y, x = rng.integers(9), rng.integers(width)
        mask[y, x, n] = 1
        expected[n] = y, x, y + 1, x + 1
    np.testing.assert_array_equal(extract_bboxes(mask), expected)
    np.testing.assert_array_equal(extract_bboxes(mask[:, :, ::-1]), expected[::-1])


@pytest.mark.parametrize("shape", [(10, 12, 0), (0, 12, 2), (10, 0, 2), (0, 0, 0)])
def test_extract_bboxes_of_empty_arrays(shape):
    boxes = extract_bboxes(np.zeros(shape, bool))
    assert boxes.shape == (shape[2], 4)
    assert boxes.dtype == np.int32
    assert not boxes.any()


def test_mini_masks_go_there_and_back(rng):
    masks = blobs(rng, 6)
    boxes = extract_bboxes(masks)
    again = expand_mask(boxes, minimize_mask(boxes, masks, (56, 56)), masks.shape)
    overlap = (masks & again).sum(axis=(0, 1)) / (masks | again).sum(axis=(0, 1))
    assert overlap.min() > 0.9
    outside = np.ones_like(masks)
    for n, (y1, x1, y2, x2) in enumerate(boxes):
        outside[y1:y2, x1:x2, n] = False
    assert not (again & outside).any()


def test_mini_masks_of_no_instances_and_of_one_pixel():
    none = np.zeros((0, 4), np.int32)
    assert minimize_mask(none, np.zeros((10, 12, 0), bool), (5, 6)).shape == (5, 6, 0)
    assert expand_mask(none, np.zeros((5, 6, 0), bool), (10, 12, 3)).shape == (10, 12, 0)
    mask = np.zeros((10, 12, 1), bool)
    mask[3, 4] = True
    box = np.array([[3, 4, 4, 5]])
    mini = minimize_mask(box, mask, (7, 7))
    assert mini.all()
    np.testing.assert_array_equal(expand_mask(box, mini, (10, 12)), mask)


def test_mask_errors():
    mask = np.ones((10, 12, 1), bool)
    with pytest.raises(ValueError, match=r"Box 0 has no pixel in the image of 10 x 12"):
        minimize_mask(np.array([[3, 4, 3, 8]]), mask, (7, 7))
    with pytest.raises(ValueError, match=r"1 masks need boxes \[1, 4\]"):
        minimize_mask(np.zeros((2, 4), int), mask, (7, 7))
    with pytest.raises(ValueError, match=r"1 masks need boxes"):
        expand_mask(np.zeros(4, int), mask, (20, 20))
    with pytest.raises(ValueError, match=r"\[H, W, N\]"):
        extract_bboxes(mask[:, :, 0])


@pytest.mark.parametrize("low", [0.0, 0.3, 0.6])
def test_paste_masks_is_the_slow_way(low, rng):
    """With 0.6 all is above the threshold: then the border, where values sink, is too."""
    shape = (90, 120)
    boxes = []
    for _ in range(25):
        y1, x1 = rng.integers(0, 80), rng.integers(0, 110)
        boxes.append((y1, x1, rng.integers(y1 + 1, 91), rng.integers(x1 + 1, 121)))
    masks = rng.uniform(low, 1, (25, 28, 28)).astype(np.float32)
    pasted = paste_masks(masks, np.array(boxes), shape)
    assert pasted.shape == (25, 90, 120)
    expected = np.stack([paste_oracle(mask, box, shape) for mask, box in zip(masks, boxes, strict=True)])
    np.testing.assert_array_equal(pasted, expected)
    np.testing.assert_array_equal(unmold_mask(masks[0], boxes[0], (90, 120, 3)), expected[0])
    y1, x1, y2, x2 = boxes[0]
    np.testing.assert_array_equal(mask_in_box(masks[0], y2 - y1, x2 - x1), expected[0, y1:y2, x1:x2])


def test_boxes_that_reach_out_of_the_image_are_pasted_where_they_can(rng):
    masks = rng.random((4, 28, 28))
    boxes = np.array([[-10, -5, 20, 30], [70, 60, 100, 110], [-5, 10, 95, 20], [200, 200, 220, 220]])
    pasted = paste_masks(masks, boxes, (90, 80))
    for mask, box, actual in zip(masks, boxes, pasted, strict=True):
        whole = paste_oracle(mask, box + 50, (300, 300))
        np.testing.assert_array_equal(actual, whole[50:140, 50:130])
    mini = rng.random((9, 9, 4)) < 0.5
    expanded = expand_mask(boxes, mini, (90, 80))
    whole = expand_mask(boxes + 50, mini, (300, 300))
    np.testing.assert_array_equal(expanded, whole[50:140, 50:130])


def test_paste_masks_of_nothing():
    assert paste_masks(np.zeros((0, 28, 28)), np.zeros((0, 4), np.int32), (90, 120, 3)).shape == (0, 90, 120)
    flat = paste_masks(np.ones((1, 28, 28)), np.array([[5, 5, 5, 9]]), (90, 120))
    assert not flat.any()


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (28, 28), (29, 200), (300, 41), (700, 900)])
@pytest.mark.parametrize("large", [0, 1 << 40])
def test_a_mask_in_its_box_is_the_same_in_strips_and_at_once(shape, large, monkeypatch, rng):
    monkeypatch.setattr(masks_module, "_LARGE_STRIP", large)
    for low in (0.0, 0.45):
        mask = rng.uniform(low, 0.9, (28, 28)).astype(np.float32)
        expected = resize(mask, shape) >= 0.5
        np.testing.assert_array_equal(mask_in_box(mask, *shape), expected)
        rows = slice(shape[0] // 3, shape[0] - 1)
        np.testing.assert_array_equal(mask_in_box(mask, *shape, rows=rows), expected[rows])


def test_cropped_masks_are_what_is_pasted(rng):
    masks = rng.random((5, 28, 28))
    boxes = np.array([[-10, -5, 20, 30], [70, 60, 100, 110], [-5, 10, 95, 20], [200, 200, 220, 220], [4, 5, 40, 50]])
    pasted = paste_masks(masks, boxes, (90, 80))
    again = np.zeros_like(pasted)
    for full, (crop, top, left) in zip(again, cropped_masks(masks, boxes, (90, 80, 3)), strict=True):
        full[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    np.testing.assert_array_equal(again, pasted)
    assert [crop.shape for crop, _, _ in cropped_masks(masks, boxes, (90, 80))][3] == (0, 0)


@pytest.mark.parametrize("density", [0.05, 0.4, 0.8, 1.0])
def test_polygons_filled_together_are_the_mask(density, rng):
    """Pixels strewn at random make parts of one pixel, parts within holes, and parts that touch at corners."""
    for _ in range(30):
        height, width = (int(n) for n in rng.integers(1, 40, 2))
        crop = rng.random((height, width)) < density
        polygons = polygons_of_crop(crop, 7, 11)
        image = np.zeros((60, 60), np.uint8)
        if polygons:
            cv2.fillPoly(image, polygons, 1)
        expected = np.zeros((60, 60), bool)
        expected[7 : 7 + height, 11 : 11 + width] = crop
        np.testing.assert_array_equal(image.astype(bool), expected)
        assert all(polygon.ndim == 2 and polygon.shape[1] == 2 for polygon in polygons)


def test_polygons_of_a_ring_tell_its_hole():
    crop = np.ones((9, 9), bool)
    crop[3:6, 3:6] = False
    outside, hole = polygons_of_crop(crop, 10, 20)
    assert (outside.min(axis=0).tolist(), outside.max(axis=0).tolist()) == ([20, 10], [28, 18])
    assert (hole.min(axis=0).tolist(), hole.max(axis=0).tolist()) == ([22, 12], [26, 16])
    assert polygons_of_crop(np.zeros((0, 0), bool), 0, 0) == []
