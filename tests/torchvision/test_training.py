"""Training against torchvision itself: the five losses of a step on the same sample."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mrcnn.config import LOSS_NAMES
from mrcnn.data.image_meta import ImageMeta
from mrcnn.data.molding import mold_image
from mrcnn.data.rpn_targets import build_rpn_targets
from mrcnn.network import build_network
from mrcnn.ops.anchors import pyramid_anchors
from mrcnn.ops.boxes import encode_deltas
from tests.torchvision import comparing
from tests.torchvision.conftest import KEPT
from tests.torchvision.peer import CASES, KEPT_CASES

pytestmark = pytest.mark.backends

CLOSE = 1e-4


@pytest.fixture(scope="module", params=[*KEPT, *(pytest.param(name, marks=pytest.mark.slow) for name in CASES)])
def case(request):
    recorded = request.getfixturevalue("kept" if request.param in KEPT_CASES else "recorded")
    found = comparing.conversion(recorded, request.param)
    arrays = comparing.arrays(recorded, request.param)
    theirs = SimpleNamespace(**{name: value for name, value in arrays.items() if "/" not in name})
    height, width = theirs.train_photo.shape[:2]
    changes = {"IMAGE_RECTANGLE": (height, width), "IMAGE_RESIZE_MODE": "square", "TRAIN_BN": False}
    return comparing.config_of(found, **changes), found, theirs


def inputs_of(config, theirs):
    """The training network's inputs, their sample of anchors among them."""
    shape = theirs.train_photo.shape
    anchors = pyramid_anchors(config, shape[:2])
    boxes = theirs.train_boxes.astype(np.float64)
    positive = np.flatnonzero(theirs.anchor_sample == 1)
    overlaps = iou(anchors[positive], boxes)
    deltas = np.zeros((config.RPN_TRAIN_ANCHORS_PER_IMAGE, 4))
    deltas[: len(positive)] = encode_deltas(anchors[positive], boxes[overlaps.argmax(axis=1)])
    count = len(boxes)
    room = config.MAX_GT_INSTANCES - count
    meta = ImageMeta(0, shape, shape, (0, 0, *shape[:2]), 1.0, [1] * config.NUM_CLASSES)
    return {
        "input_image": mold_image(theirs.train_photo, config),
        "input_image_meta": meta.to_array(),
        "input_rpn_match": theirs.anchor_sample[:, None],
        "input_rpn_bbox": deltas / config.RPN_BBOX_STD_DEV,
        "input_gt_class_ids": np.pad(theirs.train_labels, (0, room)),
        "input_gt_boxes": np.pad(boxes, ((0, room), (0, 0))),
        "input_gt_masks": np.pad(np.moveaxis(theirs.train_masks, 0, -1), ((0, 0), (0, 0), (0, room))),
    }


def iou(boxes, others):
    """The slow and obvious table."""
    table = np.zeros((len(boxes), len(others)))
    for i, (y1, x1, y2, x2) in enumerate(boxes):
        for j, (v1, u1, v2, u2) in enumerate(others):
            inside = max(0, min(y2, v2) - max(y1, v1)) * max(0, min(x2, u2) - max(x1, u1))
            table[i, j] = inside / ((y2 - y1) * (x2 - x1) + (v2 - v1) * (u2 - u1) - inside)
    return table


def test_the_losses_of_a_step(case):
    from keras import ops

    config, found, theirs = case
    network = build_network(config, "training")
    comparing.take(network, found)
    network.get_layer("proposal_targets").shuffle = False
    arrays = inputs_of(config, theirs)
    tensors = [ops.convert_to_tensor(arrays[x.name][None].astype(x.dtype)) for x in network.inputs]
    outputs = [ops.convert_to_numpy(x) for x in network(tensors, training=True)]
    losses = np.array([float(x) for x in outputs[-len(LOSS_NAMES) :]])
    print(dict(zip(LOSS_NAMES, zip(losses.tolist(), theirs.losses.tolist(), strict=True), strict=True)))
    assert (theirs.losses > 1e-3).all()
    np.testing.assert_allclose(losses, theirs.losses, rtol=CLOSE, atol=CLOSE)


def test_labels_of_anchors(case):
    config, _, theirs = case
    config = type("Every", (type(config),), {"RPN_TRAIN_ANCHORS_PER_IMAGE": 10**6})()
    anchors = pyramid_anchors(config, theirs.train_photo.shape[:2])
    match, _ = build_rpn_targets(theirs.train_photo.shape, anchors, theirs.train_labels, theirs.train_boxes, config)
    expected = np.where(theirs.anchor_labels == 0, -1, np.where(theirs.anchor_labels > 0, 1, 0))
    assert {-1, 0, 1} == set(expected.tolist())
    np.testing.assert_array_equal(match, expected)


def test_mask_targets(case):
    from keras import ops

    from mrcnn.ops.mask_targets import covered_shares

    _, _, theirs = case
    height, width = theirs.train_photo.shape[:2]
    boxes = theirs.train_boxes / [height, width, height, width]
    # The ground truth boxes are the last of the sampled regions that are positive.
    count = len(boxes)
    shares = covered_shares(
        ops.convert_to_tensor(theirs.train_masks), ops.arange(count, dtype="int32"),
        ops.convert_to_tensor(boxes.astype(np.float32)), (28, 28), aligned=False,
    )  # fmt: skip
    np.testing.assert_allclose(ops.convert_to_numpy(shares), theirs.mask_targets[-count:], atol=1e-4)
