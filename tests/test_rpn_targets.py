"""RPN targets against golden numbers and a slow, whole-table oracle; random ROIs by their properties."""

import time

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.data.random_rois import generate_random_rois
from mrcnn.data.rpn_targets import build_rpn_targets
from mrcnn.ops.anchors import pyramid_anchors
from mrcnn.ops.boxes import compute_overlaps, decode_deltas
from tests.golden import load

GOLDEN = load("golden_data")


class SmallConfig(Config):
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 128
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    NUM_CLASSES = 4


def config_of(anchors_per_image=256, **fields):
    return type("C", (SmallConfig,), {"RPN_TRAIN_ANCHORS_PER_IMAGE": anchors_per_image, **fields})()


def oracle(anchors, class_ids, boxes):
    """Every IoU, one at a time for each rule: the sets of anchors before sampling."""
    objects, crowds = boxes[class_ids > 0], boxes[class_ids < 0]
    overlaps = compute_overlaps(anchors, objects.astype(float))
    near_crowd = (compute_overlaps(anchors, crowds.astype(float)) >= 0.001).any(axis=1)
    positive, negative = set(), set()
    for a in range(len(anchors)):
        ious = overlaps[a].tolist()
        if all(iou < 0.3 for iou in ious) and not near_crowd[a]:
            negative.add(a)
        if any(iou >= 0.7 for iou in ious):
            positive.add(a)
    for g in range(len(objects)):
        best = overlaps[:, g].max()
        if best > 0:
            positive |= set(np.flatnonzero(overlaps[:, g] == best).tolist())
    return positive, negative - positive, overlaps


@pytest.mark.parametrize("case", ["plain", "sub", "crowd", "tiny"])
def test_golden(case):
    given = {name: GOLDEN[f"build_rpn_targets.{case}.in.{name}"] for name in ("gt_class_ids", "gt_boxes")}
    config = config_of(int(GOLDEN[f"build_rpn_targets.{case}.in.RPN_TRAIN_ANCHORS_PER_IMAGE"]))
    anchors = GOLDEN["anchors_sq128"]
    match, deltas = build_rpn_targets((128, 128, 3), anchors, **given, config=config)
    wanted = GOLDEN[f"build_rpn_targets.{case}.out.rpn_match"]

    assert match.dtype == np.int32
    assert deltas.dtype == np.float64
    np.testing.assert_array_equal(match == 1, wanted == 1)
    assert (match == -1).sum() == (wanted == -1).sum()
    # Which negatives are drawn is chance; all must be eligible, the recorded ones too.
    _, negative, _ = oracle(anchors, given["gt_class_ids"], given["gt_boxes"])
    assert set(np.flatnonzero(match == -1)) <= negative
    assert set(np.flatnonzero(wanted == -1)) <= negative
    error = np.abs(deltas - GOLDEN[f"build_rpn_targets.{case}.out.rpn_bbox"]).max()
    print(f"{case}: largest error of the deltas {error:.1e}")
    assert error < 1e-12


@pytest.mark.parametrize("seed", range(30))
def test_matches_the_oracle(seed):
    rng = np.random.default_rng(seed)
    size = [(128, 128), (192, 128), (64, 256)][seed % 3]
    config = config_of(anchors_per_image=10**6)
    anchors = pyramid_anchors(config, size)
    count = int(rng.integers(0, 12))
    sides = np.exp(rng.uniform(np.log(1), np.log(120), (count, 2)))
    corner = rng.uniform(-10, 1, (count, 2)) + rng.uniform(0, 1, (count, 2)) * size
    boxes = np.concatenate([corner, corner + sides], axis=1)
    if seed % 2:
        boxes = boxes.round()
    class_ids = rng.choice([1, 2, 3, -1], count, p=[0.3, 0.3, 0.3, 0.1])
    match, deltas = build_rpn_targets(size, anchors, class_ids, boxes, config, rng)

    positive, negative, overlaps = oracle(anchors, class_ids, boxes)
    assert set(np.flatnonzero(match == 1)) == positive
    assert set(np.flatnonzero(match == -1)) == negative
    objects = boxes[class_ids > 0]
    for row, a in enumerate(sorted(positive)):
        found = decode_deltas(anchors[a], deltas[row] * config.RPN_BBOX_STD_DEV)
        np.testing.assert_allclose(found, objects[overlaps[a].argmax()], atol=1e-9)
    assert not deltas[len(positive) :].any()


def test_anchors_that_are_no_grid_match_the_oracle():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 100, (5000, 2))
    anchors = np.concatenate([corner, corner + rng.uniform(1, 50, (5000, 2))], axis=1)
    corner = rng.uniform(0, 100, (9, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 50, (9, 2))], axis=1)
    match, _ = build_rpn_targets((128, 128), anchors, np.ones(9, int), boxes, config_of(10**6))
    positive, negative, _ = oracle(anchors, np.ones(9, int), boxes)
    assert set(np.flatnonzero(match == 1)) == positive
    assert set(np.flatnonzero(match == -1)) == negative


def test_sampling_takes_half_positives_at_most_and_follows_the_seed():
    anchors = pyramid_anchors(SmallConfig(), (128, 128))
    rng = np.random.default_rng(3)
    corner = rng.integers(0, 100, (40, 2))
    boxes = np.concatenate([corner, corner + rng.integers(8, 28, (40, 2))], axis=1)
    class_ids = np.ones(40, int)
    positive, negative, _ = oracle(anchors, class_ids, boxes)
    assert len(positive) > 10
    config = config_of(anchors_per_image=20)
    first = build_rpn_targets((128, 128), anchors, class_ids, boxes, config, np.random.default_rng(1))
    again = build_rpn_targets((128, 128), anchors, class_ids, boxes, config, np.random.default_rng(1))
    other = build_rpn_targets((128, 128), anchors, class_ids, boxes, config, np.random.default_rng(2))
    assert (first[0] == 1).sum() == 10
    assert (first[0] == -1).sum() == 10
    assert set(np.flatnonzero(first[0] == 1)) <= positive
    assert set(np.flatnonzero(first[0] == -1)) <= negative
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()
    # Without a generator the outcome is fixed too.
    default = [build_rpn_targets((128, 128), anchors, class_ids, boxes, config)[0] for _ in range(2)]
    np.testing.assert_array_equal(*default)
    # Rows of the targets belong to the positive anchors in their order.
    chosen = np.flatnonzero(first[0] == 1)
    found = decode_deltas(anchors[chosen], first[1][:10] * config.RPN_BBOX_STD_DEV)
    best = boxes[compute_overlaps(anchors[chosen], boxes.astype(float)).argmax(axis=1)]
    np.testing.assert_allclose(found, best, atol=1e-9)


def test_every_positive_and_negative_is_drawn_about_as_often():
    anchors = np.array([[0.0, 0, 10, 10]] * 6 + [[50.0, 50, 60, 60]] * 6)
    counts = np.zeros(12)
    rng = np.random.default_rng(0)
    for _ in range(600):
        match, _ = build_rpn_targets((64, 64), anchors, [1], [[0, 0, 10, 10]], config_of(4), rng)
        counts += match != 0
    # 2 of 6 each time: 200 on average, standard deviation 12.
    assert np.abs(counts - 200).max() < 50


@pytest.mark.parametrize("boxes", [np.zeros((0, 4)), np.zeros((0,)), []])
def test_image_without_objects_has_negatives_only(boxes):
    anchors = pyramid_anchors(SmallConfig(), (128, 128))
    match, deltas = build_rpn_targets((128, 128), anchors, np.zeros(0, int), boxes, config_of(256))
    assert (match == -1).sum() == 256
    assert (match == 1).sum() == 0
    assert not deltas.any()


def test_crowd_alone():
    anchors = pyramid_anchors(SmallConfig(), (128, 128))
    crowd = np.array([[0, 0, 128, 64]])
    match, deltas = build_rpn_targets((128, 128), anchors, [-1], crowd, config_of(10**6))
    assert not (match == 1).any()
    assert (match == 0).any()
    assert (compute_overlaps(anchors[match == -1], crowd.astype(float)) < 0.001).all()
    assert (compute_overlaps(anchors[match == 0], crowd.astype(float)) >= 0.001).all()
    assert not deltas.any()


def test_object_that_overlaps_no_anchor_matches_none():
    anchors = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    match, _ = build_rpn_targets((64, 64), anchors, [1, 1], [[50, 50, 60, 60], [20, 20, 30, 30]], config_of(8))
    assert match.tolist() == [-1, 1]


def test_degenerate_boxes_and_padding_are_left_out():
    anchors = pyramid_anchors(SmallConfig(), (128, 128))
    given = [[10, 10, 50, 60], [0, 0, 0, 0], [5, 5, 5, 20]]
    with_them = build_rpn_targets((128, 128), anchors, [1, 0, 1], given, config_of(10**6))
    without = build_rpn_targets((128, 128), anchors, [1], given[:1], config_of(10**6))
    np.testing.assert_array_equal(with_them[0], without[0])
    assert np.isfinite(with_them[1]).all()


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"number of gt_class_ids, 2.*\(1, 4\)"):
        build_rpn_targets((64, 64), np.zeros((3, 4)), [1, 2], [[0, 0, 1, 1]], config_of())
    with pytest.raises(ValueError, match=r"anchors must be \[A, 4\]"):
        build_rpn_targets((64, 64), np.zeros((3, 5)), [1], [[0, 0, 1, 1]], config_of())


def test_a_large_image_takes_little_time():
    config = Config()
    anchors = pyramid_anchors(config, (1024, 1024))
    assert len(anchors) == 261888
    rng = np.random.default_rng(0)
    sides = rng.uniform(10, 600, (20, 2))
    corner = rng.uniform(0, 1, (20, 2)) * (1024 - sides)
    boxes = np.concatenate([corner, corner + sides], axis=1).round()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        build_rpn_targets((1024, 1024, 3), anchors, np.ones(20, int), boxes, config, rng)
        times.append(time.perf_counter() - start)
    print(f"20 objects, 1024 x 1024: {min(times) * 1000:.1f} ms")
    # Some 6 ms on an idle core; the whole table takes 20 times that.
    assert min(times) < 0.06


def test_random_rois():
    boxes = np.array([[10, 20, 40, 50], [60, 10, 63, 12], [0, 0, 128, 128]])
    class_ids = np.array([1, 2, -3])
    rois = generate_random_rois((128, 192, 3), 1000, class_ids, boxes, np.random.default_rng(0))
    assert rois.shape == (1000, 4)
    assert rois.dtype == np.int32
    assert (rois >= 0).all()
    assert (rois <= [128, 192, 128, 192]).all()
    assert (rois[:, 2:] - rois[:, :2] >= 1).all()
    # 450 each lie within the box grown by its own size on all sides; the crowd attracts none.
    for first, (y1, x1, y2, x2) in ((0, boxes[0]), (450, boxes[1])):
        near = rois[first : first + 450]
        assert (near[:, :2] >= [max(0, y1 - (y2 - y1)), max(0, x1 - (x2 - x1))]).all()
        assert (near[:, 2:] <= [y2 + (y2 - y1), x2 + (x2 - x1)]).all()
    assert (rois[900:, 3] > 110).any()
    assert compute_overlaps(rois.astype(float), boxes[:2].astype(float)).max(axis=0).min() >= 0.5
    again = generate_random_rois((128, 192, 3), 1000, class_ids, boxes, np.random.default_rng(0))
    np.testing.assert_array_equal(rois, again)


def test_random_rois_reach_every_edge_and_do_without_objects():
    rois = generate_random_rois((4, 3), 2000, np.zeros(0, int), np.zeros((0, 4)))
    assert rois.min(axis=0).tolist() == [0, 0, 1, 1]
    assert rois.max(axis=0).tolist() == [3, 2, 4, 3]
    # An object on the border, outside it, and one without height.
    boxes = [[0, 0, 4, 3], [10, 10, 20, 20], [2, 0, 2, 3]]
    rois = generate_random_rois((4, 3), 100, np.ones(3, int), boxes)
    assert (rois[:, 2:] > rois[:, :2]).all()
    assert (rois <= [4, 3, 4, 3]).all()
    assert generate_random_rois((4, 3), 0, np.ones(3, int), boxes).shape == (0, 4)
    with pytest.raises(ValueError, match="at least 1"):
        generate_random_rois((0, 3), 1, np.ones(3, int), boxes)
