"""Least scores by class, and suppression across classes, of what any engine finds."""

from __future__ import annotations

import numpy as np
import pytest

from mrcnn.config import Config, ConfigError
from mrcnn.inference import Detector
from mrcnn.ops.boxes import compute_overlaps
from mrcnn.selection import asked_scores, class_of, least_scores, select, suppress
from tests.fake_engine import FakeEngine

NAMES = ["BG", "cell", "dividing cell", "7"]


def config(**values):
    fields = {"NUM_CLASSES": 4, "IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": None, "DETECTION_MIN_CONFIDENCE": 0.2}
    return Config.from_dict({**fields, **values})


def test_least_scores_by_name_and_by_number():
    assert least_scores(None, config(), NAMES) is None and least_scores(0.1, config(), None) == 0.1
    least = least_scores({"dividing cell": 0.8, 1: 0.3}, config(), NAMES)
    np.testing.assert_array_equal(least, np.array([0.2, 0.3, 0.8, 0.2], np.float32))
    own = config(DETECTION_CLASS_CONFIDENCE=[0, 0.1, 0.6, 0.3])
    np.testing.assert_array_equal(asked_scores(own), np.array([0, 0.1, 0.6, 0.3], np.float32))
    np.testing.assert_array_equal(least_scores({"cell": 0.1}, own, NAMES), asked_scores(own))
    np.testing.assert_array_equal(asked_scores(config(DETECTION_MIN_CONFIDENCE=None)), np.zeros(4))
    assert (class_of("cell", 4, NAMES), class_of("7", 4, NAMES), class_of(2, 4, NAMES)) == (1, 3, 2)


@pytest.mark.parametrize(
    ("min_confidence", "names", "message"),
    [
        ({"cell": 0.1}, NAMES, r"class 'cell' is 0\.1, .* below 0\.2 \(DETECTION_MIN_CONFIDENCE"),
        ({"dog": 0.5}, NAMES, r"no class 'dog'. It knows: cell, dividing cell, 7\."),
        ({"BG": 0.5}, NAMES, "no class 'BG'"),
        ({"cell": 0.5}, None, "names of its classes are not known: give numbers, from 1 to 3"),
        ({0: 0.5}, NAMES, "classes 1 to 3. Received: 0"),
        ({4: 0.5}, None, "classes 1 to 3. Received: 4"),
        ({True: 0.5}, None, "classes 1 to 3. Received: True"),
        ({1: 1.5}, None, r"class 1 must be a number from 0 to 1. Received: 1\.5"),
        ({1: "0.5"}, None, "class 1 must be a number from 0 to 1. Received: '0.5'"),
    ],
)
def test_least_scores_that_cannot_be(min_confidence, names, message):
    with pytest.raises(ValueError, match=message):
        least_scores(min_confidence, config(), names)
    if names is None:
        with pytest.raises(ValueError, match=message):
            Detector(FakeEngine(), config(), min_confidence=min_confidence)


def test_a_configured_class_is_named_in_the_message():
    own = config(DETECTION_CLASS_CONFIDENCE=[0, 0.1, 0.6, 0.3])
    with pytest.raises(ValueError, match=r"below 0\.6 \(DETECTION_CLASS_CONFIDENCE"):
        least_scores({2: 0.5}, own, NAMES)


@pytest.mark.parametrize(
    "value", [[0.5, 0.5], [0, 0.5, 2, 0.5], [0, 0.5, -1, 0.5], 0.5, [0, float("nan"), 0.5, 0.5], "abcd"]
)
def test_a_field_of_least_scores_that_cannot_be(value):
    with pytest.raises(ConfigError, match="DETECTION_CLASS_CONFIDENCE must be None, or a number from 0 to 1 for each"):
        config(DETECTION_CLASS_CONFIDENCE=value)
    with pytest.raises(ConfigError, match="DETECTION_NMS_CLASS_AGNOSTIC must be True or False"):
        config(DETECTION_NMS_CLASS_AGNOSTIC=value)


def test_the_detector_leaves_out_what_scores_too_little_for_its_class():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    everything = Detector(FakeEngine(most=60), config()).detect([image])[0]
    sure = Detector(FakeEngine(most=60), config(), min_confidence={1: 0.3, 2: 0.9}).detect([image])[0]
    least = np.array([0, 0.3, 0.9, 0.2], np.float32)[everything["class_ids"]]
    kept = everything["scores"] >= least
    assert 0 < kept.sum() < len(kept)
    for name in ("rois", "class_ids", "scores"):
        np.testing.assert_array_equal(sure[name], everything[name][kept])
    np.testing.assert_array_equal(sure["masks"], everything["masks"][:, :, kept])


def test_what_is_asked_can_be_changed_later():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    detector = Detector(FakeEngine(most=60), config())
    detector.class_names, detector.min_confidence = NAMES, {"cell": 1.0}
    assert 1 not in detector.detect([image])[0]["class_ids"]


def slow_suppression(boxes, scores, threshold, classes):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(classes[i] != classes[j] or compute_overlaps(boxes[[i]], boxes[[j]])[0, 0] <= threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(5))
def test_suppression_is_greedy(seed):
    rng = np.random.default_rng(seed)
    corners = rng.random((40, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + rng.random((40, 2)).astype(np.float32)], axis=1)
    scores = np.round(rng.random(40), 1).astype(np.float32)  # with ties
    classes = rng.integers(1, 4, 40)
    for threshold in (0.0, 0.3, 0.7):
        expected = slow_suppression(boxes, scores, threshold, classes)
        assert suppress(boxes, scores, threshold, classes).tolist() == expected
        alike = slow_suppression(boxes, scores, threshold, np.ones(40))
        assert suppress(boxes, scores, threshold).tolist() == alike
        assert len(alike) <= len(expected) <= 40
    assert len(suppress(boxes, scores, 0.3)) < len(suppress(boxes, scores, 0.3, classes)) < 40
    assert suppress(boxes[:0], scores[:0], 0.3).tolist() == []


def test_across_classes_the_best_stays():
    boxes = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.45], [0.5, 0.5, 1, 1]], np.float32)
    rows = np.column_stack([boxes, [1, 2, 2], [0.9, 0.8, 0.7]]).astype(np.float32)
    masks = np.arange(3 * 4, dtype=np.float32).reshape(3, 2, 2)
    for threshold, kept in ((None, [0, 1, 2]), (0.3, [0, 2]), (0.95, [0, 1, 2])):
        found, own = select((rows, masks), None, threshold)
        np.testing.assert_array_equal(found, rows[kept])
        np.testing.assert_array_equal(own, masks[kept])
    # What scores too little for its class takes nothing with it.
    found, _ = select((rows, masks), np.array([0, 0.95, 0.1], np.float32), 0.3)
    np.testing.assert_array_equal(found, rows[[1, 2]])
    found, own = select((rows[:0], masks[:0]), 0.5, 0.3)
    assert found.shape == (0, 6) and own.shape == (0, 2, 2)
