"""ROIAlign with several samples a bin, on every backend, against a slow oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from keras import ops

from mrcnn.ops import nms, sampled_roi_align
from mrcnn.ops.roi_align import pyramid_levels
from tests.running import gradients

pytestmark = pytest.mark.backends

STRIDES = (4, 8, 16, 32)
SHAPE = (96, 128)


def bilinear(feature_map, y, x):
    """torchvision's rule: the border goes on for a cell, and then there is nothing."""
    height, width, _ = feature_map.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    down, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = feature_map[top, left] * (1 - x + left) + feature_map[top, right] * (x - left)
    lower = feature_map[down, left] * (1 - x + left) + feature_map[down, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


def slow_roi_align(feature_map, box, size, aligned, ratio):
    """box (y1, x1, y2, x2) in cells."""
    shift = 0.5 if aligned else 0.0
    y1, x1 = box[0] - shift, box[1] - shift
    height, width = box[2] - box[0], box[3] - box[1]
    if not aligned:
        height, width = max(height, 1), max(width, 1)
    down, across = ratio or math.ceil(height / size), ratio or math.ceil(width / size)
    output = np.zeros((size, size, feature_map.shape[2]))
    for i in range(size):
        for j in range(size):
            for u in range(down):
                for v in range(across):
                    y = y1 + (i + (u + 0.5) / down) * height / size
                    x = x1 + (j + (v + 0.5) / across) * width / size
                    output[i, j] += bilinear(feature_map, y, x) / (down * across)
    return output


def slow_level(box):
    """box in pixels; 0 for P2."""
    size = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    return int(np.clip(math.floor(4 + math.log2(max(size, 1e-9) / 224) + 1e-6), 2, 5)) - 2


@pytest.fixture
def scene(rng):
    """Maps of two images, and boxes in pixels: of all sizes, at the border, long ones, and padding."""
    maps = [rng.normal(size=(2, SHAPE[0] * 4 // s, SHAPE[1] * 4 // s, 3)).astype(np.float32) for s in STRIDES]
    height, width = SHAPE[0] * 4, SHAPE[1] * 4
    corners = rng.random((2, 12, 2, 2)) * [height, width]
    boxes = np.concatenate([corners.min(axis=2), corners.max(axis=2)], axis=-1)
    boxes[:, 0] = 0, 0, height, width
    boxes[:, 1] = 3, 0, 9, width  # 128 cells wide
    boxes[:, 2] = height - 10.3, width - 7.7, height, width
    boxes[:, 3] = 20, 30, 20.5, 30.2
    boxes[:, 4] = 0
    return maps, boxes, np.array([height, width, height, width])


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [1, 2, 3, 0])
def test_against_a_slow_oracle(scene, aligned, ratio, monkeypatch):
    maps, boxes, shape = scene
    monkeypatch.setattr(sampled_roi_align, "MOST_SAMPLES", 26)  # the longest box has so many cells in a bin
    size = 5
    found = sampled_roi_align.sampled_roi_align(
        ops.convert_to_tensor((boxes / shape).astype(np.float32)),
        ops.convert_to_tensor(np.full((2, 1), shape[0] * shape[1], np.float32)),
        [ops.convert_to_tensor(m) for m in maps], (size, size), aligned=aligned, sampling_ratio=ratio,
    )  # fmt: skip
    found = ops.convert_to_numpy(found)
    assert found.shape == (2, 12, size, size, 3)
    seen = set()
    for image in range(2):
        for index, box in enumerate(boxes[image]):
            if index == 4:
                continue
            level = slow_level(box)
            seen.add(level)
            expected = slow_roi_align(maps[level][image], box / STRIDES[level], size, aligned, ratio)
            np.testing.assert_allclose(found[image, index], expected, atol=2e-4)
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("ratio", [2, 0])
def test_portable_is_the_same(scene, ratio):
    maps, boxes, shape = scene
    arguments = (
        ops.convert_to_tensor((boxes / shape).astype(np.float32)),
        ops.convert_to_tensor(np.full((2, 1), shape[0] * shape[1], np.float32)),
        [ops.convert_to_tensor(m) for m in maps], (4, 4),
    )  # fmt: skip
    plain = sampled_roi_align.sampled_roi_align(*arguments, sampling_ratio=ratio)
    with nms.portable():
        portable = sampled_roi_align.sampled_roi_align(*arguments, sampling_ratio=ratio)
    # But for boxes whose bins have more cells than it takes samples.
    cells = np.array([[(box[2:] - box[:2]).max() / STRIDES[slow_level(box)] for box in own] for own in boxes])
    few = cells <= 4 * sampled_roi_align.MOST_SAMPLES
    assert 3 < few.sum() < few.size
    np.testing.assert_allclose(ops.convert_to_numpy(portable)[few], ops.convert_to_numpy(plain)[few], atol=2e-4)


@pytest.mark.parametrize("ratio", [2, 0])
def test_the_gradient_is_the_derivative(scene, ratio, rng):
    """The operation is linear in the maps: its gradient times any change is what the change makes."""
    maps, boxes, shape = scene
    boxes = (boxes[:, [0, 2, 3, 5, 6]] / shape).astype(np.float32)
    area = np.full((2, 1), shape[0] * shape[1], np.float32)
    weights = rng.normal(size=(2, 5, 3, 3, 3)).astype(np.float32)

    def value(a, b, c, d):
        crops = sampled_roi_align.sampled_roi_align(
            ops.convert_to_tensor(boxes), ops.convert_to_tensor(area), [a, b, c, d], (3, 3), sampling_ratio=ratio
        )
        return ops.sum(crops * ops.convert_to_tensor(weights))

    inputs = dict(zip("abcd", maps, strict=True))
    total, found = gradients(value, inputs, list("abcd"))
    assert sum(float((found[name] * inputs[name]).sum()) for name in "abcd") == pytest.approx(float(total), rel=1e-3)
    other = {name: rng.normal(size=array.shape).astype(np.float32) for name, array in inputs.items()}
    changed = float(ops.convert_to_numpy(value(*(ops.convert_to_tensor(other[name]) for name in "abcd"))))
    assert sum(float((found[name] * other[name]).sum()) for name in "abcd") == pytest.approx(changed, rel=1e-3)


def test_levels_are_rounded_down():
    sides = np.array([10, 111.9, 112, 223.99, 224, 447, 448, 1000, 0], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides / 1000, sides / 2000], axis=-1)[None]
    levels = pyramid_levels(ops.convert_to_tensor(boxes), ops.convert_to_tensor([[1000.0 * 2000.0]]), rule="floor")
    assert ops.convert_to_numpy(levels)[0].tolist() == [2, 2, 3, 3, 4, 4, 5, 5, 2]
