"""Fields of Config that choose between the original's behavior, which is the default, and a better one.

STOP_PROPOSAL_GRADIENT and MASK_HEAD_POSITIVES_ONLY are held to golden numbers in test_network.py, SKIP_EMPTY_IMAGES in
test_batches.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from mrcnn.config import Config, ConfigError
from mrcnn.data.batches import load_image_gt
from mrcnn.data.resizing import resize_mask
from mrcnn.legacy import batches
from mrcnn.losses import mrcnn_class_loss
from mrcnn.network import build_network
from tests import golden
from tests.backbones import five_convolutions
from tests.running import call
from tests.shapes import Shapes
from tests.small import SmallConfig, empty_batch


@pytest.mark.parametrize(
    ("switch", "original"),
    [
        ("ROI_FILL_NEGATIVES", False),
        ("STOP_PROPOSAL_GRADIENT", False),
        ("ACTIVE_CLASSES_PER_IMAGE", False),
        ("MASK_HEAD_POSITIVES_ONLY", False),
        ("MASK_GRID", "legacy"),
        ("CLASS_WEIGHTS", None),
        ("FOCAL_GAMMA", 0.0),
    ],
)
def test_the_default_is_as_in_the_original(switch, original):
    assert getattr(Config, switch) == original


@pytest.mark.parametrize("modern", [False, True])
def test_negatives_of_empty_images_and_active_classes_of_each_image(rng, modern):
    """ROI_FILL_NEGATIVES, and ACTIVE_CLASSES_PER_IMAGE in a batch of two sources. Without objects all targets are the
    background, so that the class loss can be worked out from the logits."""
    config = SmallConfig.from_dict({"ROI_FILL_NEGATIVES": modern, "ACTIVE_CLASSES_PER_IMAGE": modern})
    network = build_network(config, "training")
    golden.fill_small(network)
    active = np.array([[1, 1, 0, 0], [1, 0, 1, 1]])
    outputs = call(network, empty_batch(network, rng, active), dtype=None)
    logits, rois, class_loss = outputs[3].astype(np.float64), outputs[8], outputs[11]
    counts = rois.any(axis=-1).sum(axis=1)
    assert (counts == (config.TRAIN_ROIS_PER_IMAGE if modern else 0)).all()
    losses = np.logaddexp.reduce(logits, axis=-1) - logits[..., 0]
    predicted = logits.argmax(axis=-1)
    known = active if modern else active[[0, 0]]
    counted = np.take_along_axis(known, predicted, axis=1)
    if modern:
        assert 0 < counted.sum() < counted.size
    expected = (losses * counted).sum() / max(counted.sum(), 1)
    np.testing.assert_allclose(class_loss, expected, rtol=1e-4)


@pytest.mark.backends
def test_class_loss_of_a_batch_of_two_sources():
    logits = np.array([[[0, 2, 0]], [[0, 0, 3]]], np.float32)  # image 0 is said to hold class 1, image 1 class 2
    active = np.array([[1, 1, 0], [1, 0, 1]])
    each = np.log(np.exp(logits).sum(-1)) - logits[..., 0]
    arguments = [ops.convert_to_tensor(array) for array in (np.zeros((2, 1), np.int32), logits, active)]
    of_first, of_each = (float(mrcnn_class_loss(*arguments, per_image=flag)) for flag in (False, True))
    assert of_first == pytest.approx(each[0, 0], rel=1e-5)  # class 2 is unknown to image 0's source
    assert of_each == pytest.approx(each.mean(), rel=1e-5)


def test_grid_of_masks():
    dataset = Shapes(1, size=50)
    masks, _ = dataset.load_mask(0)
    found = {}
    for grid in ("legacy", "image"):
        config = SmallConfig.from_dict({"MASK_GRID": grid})
        expected = resize_mask(masks, 64 / 50, [(0, 0), (0, 0), (0, 0)], grid=grid)
        found[grid] = load_image_gt(dataset, config, 0, use_mini_mask=False)[-1]
        np.testing.assert_array_equal(found[grid], expected)
        np.testing.assert_array_equal(batches.load_image_gt(dataset, config, 0)[-1], expected)
    assert (found["legacy"] != found["image"]).any()
    with pytest.raises(ConfigError, match="MASK_GRID must be one of legacy, image.*'pixels'"):
        SmallConfig.from_dict({"MASK_GRID": "pixels"})


def test_class_weights_and_focal_loss_reach_the_class_loss():
    def options_of(**values):
        config = type("Weighted", (SmallConfig,), {"BACKBONE": staticmethod(five_convolutions), **values})()
        return build_network(config, "training").get_layer("mrcnn_class_loss").options

    assert options_of() == {"per_image": False, "class_weights": None, "focal_gamma": 0.0}
    found = options_of(CLASS_WEIGHTS=np.array([1, 2, 3, 4]), FOCAL_GAMMA=2)
    assert found == {"per_image": False, "class_weights": [1.0, 2.0, 3.0, 4.0], "focal_gamma": 2.0}
