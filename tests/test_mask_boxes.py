"""Masks worked on by their boxes, against the plain numpy of the whole."""

import numpy as np
import pytest

from mrcnn.data.mask_boxes import empty_masks, extract_bboxes, instances_first, sample_masks, take_masks


def layouts(masks):
    """The same masks [H, W, N] in all the ways that they may lie in memory."""
    behind = np.moveaxis(np.ascontiguousarray(np.moveaxis(masks, -1, 0)), 0, -1)
    turned = np.asfortranarray(masks)
    mirrored = [np.ascontiguousarray(behind[step])[step] for step in (np.s_[::-1], np.s_[:, ::-1], np.s_[::-1, ::-1])]
    first = [np.moveaxis(np.ascontiguousarray(np.moveaxis(m[step], -1, 0)), 0, -1)[step]
             for m, step in ((behind, np.s_[::-1]), (behind, np.s_[:, ::-1]), (behind, np.s_[::-1, ::-1]))]  # fmt: skip
    every_second = np.repeat(np.repeat(masks, 2, axis=0), 2, axis=1)[::2, ::2]
    return [np.ascontiguousarray(masks), behind, turned, *mirrored, *first, every_second]


def random_masks(rng, dtype=bool):
    height, width, count = (int(v) for v in rng.integers((1, 1, 0), (20, 20, 5)))
    masks = rng.random((height, width, count)) < rng.choice([0, 0.01, 0.3, 1])
    return masks.astype(dtype) * (1 if dtype is bool else np.dtype(dtype).type(3))


def plain_boxes(masks):
    boxes = np.zeros((masks.shape[2], 4), np.int32)
    for n in range(masks.shape[2]):
        y, x = np.nonzero(masks[..., n])
        if len(y):
            boxes[n] = y.min(), x.min(), y.max() + 1, x.max() + 1
    return boxes


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float32])
def test_boxes_and_sampling_of_all_layouts(dtype):
    rng = np.random.default_rng(0)
    for _ in range(60):
        masks = random_masks(rng, dtype)
        rows, columns = (np.sort(rng.integers(0, side, rng.integers(0, 30))) for side in masks.shape[:2])
        for layout in layouts(masks):
            np.testing.assert_array_equal(layout, masks)
            np.testing.assert_array_equal(extract_bboxes(layout), plain_boxes(masks))
            first = instances_first(layout)
            np.testing.assert_array_equal(first, np.moveaxis(masks, -1, 0))
            assert first.dtype == masks.dtype
            assert masks.shape[1] < 2 or first.size == 0 or abs(first.strides[2]) == first.itemsize
            output = empty_masks(len(rows) + 2, len(columns) + 1, masks.shape[2], dtype)
            sample_masks(layout, rows, columns, output[1:])
            np.testing.assert_array_equal(output[1 : len(rows) + 1, : len(columns)], masks[rows][:, columns])
            chosen = rng.permutation(masks.shape[2])[: rng.integers(masks.shape[2] + 1)]
            np.testing.assert_array_equal(take_masks(layout, plain_boxes(masks), chosen), masks[..., chosen])
            assert not output[0].any() and not output[len(rows) + 1 :].any() and not output[:, len(columns) :].any()


def test_other_shapes_are_refused():
    for function in (extract_bboxes, instances_first):
        with pytest.raises(ValueError, match=r"\[H, W, N\]. Received shape: \(3, 4\)"):
            function(np.zeros((3, 4), bool))
