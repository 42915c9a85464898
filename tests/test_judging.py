"""What is told of single images: matches, confusions, marks, pictures."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from mrcnn.judging import RIGHT, WRONG, Judge, judge, picture
from tests.shapes import Shapes


def masks_of(*boxes, size=20):
    masks = np.zeros((size, size, len(boxes)), bool)
    for n, (y1, x1, y2, x2) in enumerate(boxes):
        masks[y1:y2, x1:x2, n] = True
    return masks


A, B, C, D = (0, 0, 8, 8), (0, 10, 8, 18), (10, 0, 18, 8), (10, 10, 18, 18)


def test_each_instance_and_each_prediction_counts_once():
    truth = masks_of(A, B, C)
    found = masks_of(A, (0, 0, 8, 7), B, D)  # A twice; B as another class; C missed; D is nothing
    told = judge(truth, [1, 2, 3], found, [1, 1, 3, 2], [0.9, 0.95, 0.8, 0.7])
    # The better score comes first, though the other overlaps more.
    assert told.truth_match.tolist() == [1, -1, -1]
    assert told.prediction_match.tolist() == [-1, 0, -1, -1]
    assert sorted(told.pairs) == [(0, 1), (0, 2), (1, 1), (2, 3), (3, 0)]
    # One match of IoU 7/8; missed: B and C; wrong: A again, B's other class, D.
    assert told.quality == pytest.approx((7 / 8) / (1 + 2 / 2 + 3 / 2))


def test_the_right_class_goes_before_a_better_overlap_of_another():
    truth = masks_of(A)
    told = judge(truth, [1], masks_of(A, (0, 0, 8, 6)), [2, 1], [0.9, 0.5])
    assert sorted(told.pairs) == [(0, 2), (1, 1)]


def test_overlaps_below_the_threshold_do_not_match():
    told = judge(masks_of(A), [1], masks_of((0, 0, 8, 3)), [1], [0.9])
    assert sorted(told.pairs) == [(0, 1), (1, 0)]
    assert told.quality == 0


def test_crowds_excuse_what_lies_in_them():
    truth = masks_of((0, 0, 20, 9), D)
    told = judge(truth, [-1, 1], masks_of(A, D, (0, 6, 8, 18)), [1, 1, 1], [0.9, 0.9, 0.9])
    assert sorted(told.pairs) == [(0, 1), (1, 1)]  # A lies in the crowd; a quarter of the third does
    assert told.truth_match.tolist() == [-1, 1]


def test_nothing_there_and_nothing_found_has_no_mark():
    nothing = np.zeros((20, 20, 0), bool)
    assert judge(nothing, [], nothing, [], []).quality is None
    assert judge(nothing, [], masks_of(A), [1], [0.9]).pairs == [(0, 1)]
    assert judge(np.zeros((0, 0, 0), bool), [], masks_of(A), [1], [0.9]).quality == 0


@pytest.mark.parametrize("shape", [(64, 64, 3), (900, 300, 3), (64, 64), (70, 50, 1), (40, 40, 8)])
def test_a_picture_shows_truth_on_the_left_in_the_colors_of_the_outcome(shape):
    image = np.full(shape, 128, np.uint8)
    masks = np.zeros((*shape[:2], 1), bool)
    masks[8:30, 8:30, 0] = True
    nothing = {"masks": masks[..., :0], "class_ids": [], "scores": []}
    found = {"masks": masks, "class_ids": [1], "scores": [0.9]}
    missed = picture(image, masks, [1], nothing, judge(masks, [1], masks[..., :0], [], []), ["BG", "cell"])
    right = picture(image, masks, [1], found, judge(masks, [1], masks, [1], [0.9]), ["BG", "cell"])
    assert missed.shape == right.shape and missed.dtype == np.uint8
    assert 200 <= max(missed.shape[0], (missed.shape[1] - 6) // 2) <= 448

    def colored(pixels, color):
        return (np.abs(pixels - np.array(color) * 255).sum(-1) < 60).any()

    half = missed.shape[1] // 2
    assert colored(missed[:, :half], WRONG) and not colored(missed[:, half + 4 :], WRONG)
    assert colored(right[:, :half], RIGHT) and colored(right[:, half + 4 :], RIGHT) and not colored(right, WRONG)


def test_a_judge_keeps_the_extremes_and_counts_confusions():
    dataset = Shapes(12, size=64)
    watcher = Judge(dataset, dataset.class_names, min_score=0.5, keep=3, always=[4])
    for image_id in dataset.image_ids:
        masks, class_ids = dataset.load_mask(image_id)
        kept = masks.copy()
        kept[:, : int(image_id) * 3] = False  # the later the image, the worse
        result = {"masks": kept, "class_ids": class_ids, "scores": np.full(len(class_ids), 0.9)}
        result["scores"] = np.where(class_ids == 3, 0.4, 0.9)  # no triangle is sure enough
        watcher(int(image_id), dataset.load_image(image_id), masks, class_ids, result)
    counts = np.bincount(np.concatenate([dataset.load_mask(i)[1] for i in dataset.image_ids]), minlength=4)
    np.testing.assert_array_equal(watcher.confusion.sum(axis=1)[1:], counts[1:])
    assert watcher.confusion[3, 0] == counts[3] and watcher.confusion[:, 3].sum() == 0
    assert list(watcher.always_pictures) == [4]
    ranked = sorted(watcher.marks, key=lambda mark: mark["quality"])
    told = watcher.extremes()
    assert [mark["quality"] for mark in told["worst"]] == [mark["quality"] for mark in ranked[:3]]
    assert [mark["quality"] for mark in told["best"]] == [mark["quality"] for mark in ranked[:-4:-1]]
    assert told["worst"][0]["name"].endswith(".png")
    data = np.frombuffer(base64.b64decode(told["best"][0]["picture"]), np.uint8)
    assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape[1] > 2 * 64


def test_few_images_are_not_best_and_worst_at_once():
    dataset = Shapes(3, size=64)
    watcher = Judge(dataset, dataset.class_names, min_score=0.5, keep=4)
    for image_id in range(3):
        masks, class_ids = dataset.load_mask(image_id)
        scores = np.ones(len(class_ids))[:image_id]
        found = {"masks": masks[..., :image_id], "class_ids": class_ids[:image_id], "scores": scores}
        watcher(image_id, dataset.load_image(image_id), masks, class_ids, found)
    told = watcher.extremes()
    assert len(told["best"]) == len(told["worst"]) == 1
    assert told["best"][0]["image_id"] != told["worst"][0]["image_id"]
