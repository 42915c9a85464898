"""Random ROIs and the heads' targets outside the network: golden numbers, draw by draw, and what they hold."""

from __future__ import annotations

import numpy as np
import pytest

from mrcnn import model as modellib
from mrcnn import utils
from mrcnn.config import Config
from tests import golden


class SmallConfig(Config):
    NUM_CLASSES = 4
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 128
    TRAIN_ROIS_PER_IMAGE = 32


def config_of(**fields):
    return type("C", (SmallConfig,), fields)()


def test_random_rois_golden():
    data = golden.part("golden_rois", "generate_random_rois.a")
    np.random.seed(int(data["in.np_random_seed"]))
    rois = modellib.generate_random_rois(data["in.image_shape"], int(data["in.count"]), None, data["in.gt_boxes"])
    golden.check("generate_random_rois", rois, data["out"])
    assert rois.dtype == data["out"].dtype


def test_random_rois_without_objects_lie_anywhere():
    rois = modellib.generate_random_rois((20, 2), 50, np.zeros(0, int), np.zeros((0, 4), int))
    assert rois.shape == (50, 4) and rois.min() >= 0
    assert (rois[:, 2] > rois[:, 0]).all() and (rois[:, 3] > rois[:, 1]).all() and (rois[:, 2:] <= [20, 2]).all()


def test_random_rois_of_an_image_without_room_are_refused():
    with pytest.raises(ValueError, match=r"two rows and two columns.*rows \(0, 1\)"):
        modellib.generate_random_rois((1, 20), 5, None, np.zeros((0, 4), int))


def test_detection_targets_golden():
    data = golden.part("golden_rois", "build_detection_targets.mini")
    np.random.seed(int(data["in.np_random_seed"]))
    config = config_of(TRAIN_ROIS_PER_IMAGE=int(data["in.TRAIN_ROIS_PER_IMAGE"]))
    inputs = [data[f"in.{name}"] for name in ("rpn_rois", "gt_class_ids", "gt_boxes", "gt_masks")]
    found = modellib.build_detection_targets(*inputs, config)
    for name, value in zip(("rois", "class_ids", "bboxes", "masks"), found, strict=True):
        golden.check(f"build_detection_targets {name}", value, data[f"out.{name}"], atol=1e-6)
        assert value.dtype == data[f"out.{name}"].dtype


def one_object():
    """A box of class 2 in the middle, a crowd, padding; two ROIs upon it and others away from it."""
    boxes = np.array([[32, 32, 96, 96], [0, 0, 30, 30], [0, 0, 0, 0]])
    masks = np.zeros((128, 128, 3), bool)
    masks[32:96, 32:64, 0] = masks[:30, :30, 1] = True
    rois = np.array([[32, 32, 96, 96], [40, 32, 96, 96], [0, 0, 30, 30], [100, 0, 120, 20], [0, 100, 9, 120]], np.int32)
    return rois, np.array([2, -1, 0]), boxes, masks


def test_detection_targets_of_one_object():
    rois, class_ids, boxes, masks = one_object()
    config = config_of(TRAIN_ROIS_PER_IMAGE=8, USE_MINI_MASK=False)
    found, ids, deltas, targets = modellib.build_detection_targets(rois, class_ids, boxes, masks, config)
    assert ids.tolist() == [2, 2, 0, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(found[:2], rois[:2])
    assert {tuple(roi) for roi in found[2:]} <= {tuple(roi) for roi in rois[2:]}  # three, some of them twice
    np.testing.assert_allclose(deltas[1, 2] * config.BBOX_STD_DEV, utils.box_refinement(rois[1:2], boxes[:1])[0])
    assert not deltas[:, [0, 1, 3]].any() and not deltas[2:].any()
    assert targets.shape == (8, 28, 28, 4)
    assert (targets[0, 1:-1, 1:13, 2] == 1).all() and not targets[0, :, 15:, 2].any()
    assert not targets[..., [0, 1, 3]].any() and not targets[2:].any()

    mini = utils.minimize_mask(boxes[:1], masks[:, :, :1], config.MINI_MASK_SHAPE)
    by_mini = modellib.build_detection_targets(rois, class_ids[:1], boxes[:1], mini, config_of(TRAIN_ROIS_PER_IMAGE=8))
    np.testing.assert_allclose(by_mini[3][:2], targets[:2])


def test_detection_targets_take_a_share_of_positives():
    _, class_ids, boxes, masks = one_object()
    shifts = np.arange(12)[:, None]
    rois = np.concatenate([boxes[:1] + shifts, [[100, 0, 120, 20]]]).astype(np.int32)
    config = config_of(TRAIN_ROIS_PER_IMAGE=10, ROI_POSITIVE_RATIO=0.5, USE_MINI_MASK=False)
    ids = modellib.build_detection_targets(rois, class_ids, boxes, masks, config)[1]
    assert ids.tolist() == [2] * 5 + [0] * 5


def test_detection_targets_refuse_what_leaves_nothing_to_sample():
    rois, class_ids, boxes, masks = one_object()
    config = config_of(USE_MINI_MASK=False)
    with pytest.raises(ValueError, match="Received: 0 ROIs, 1 objects"):
        modellib.build_detection_targets(rois[:0], class_ids, boxes, masks, config)
    with pytest.raises(ValueError, match="Received: 5 ROIs, 0 objects"):
        modellib.build_detection_targets(rois, 0 * class_ids, boxes, masks, config)
    with pytest.raises(ValueError, match="must fill 32 rows"):
        modellib.build_detection_targets(rois[:1], class_ids, boxes, masks, config)
