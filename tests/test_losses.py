"""The five losses and their gradients: golden numbers on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from mrcnn import losses
from tests import golden
from tests.running import gradients

pytestmark = pytest.mark.backends

ARGUMENTS = {
    "rpn_class": ("rpn_match", "rpn_class_logits"),
    "rpn_bbox": ("target_bbox", "rpn_match", "rpn_bbox"),
    "mrcnn_class": ("target_class_ids", "pred_class_logits", "active_class_ids"),
    "mrcnn_bbox": ("target_bbox", "target_class_ids", "pred_bbox"),
    "mrcnn_mask": ("target_masks", "target_class_ids", "pred_masks"),
}


@pytest.mark.parametrize("case", golden.cases("losses"))
def test_losses_and_gradients_golden(case):
    kind = case.split(".")[0]
    data = golden.part("losses", case)
    inputs = {name: data[f"in.{name}"] for name in ARGUMENTS[kind]}
    wanted = [key[len("grad.") :] for key in data if key.startswith("grad.")]
    value, found = gradients(
        lambda **tensors: losses.LOSSES[f"{kind}_loss"](*(tensors[name] for name in ARGUMENTS[kind])),
        inputs,
        wanted,
    )
    # Nothing active is NaN in the original, and 0 here.
    golden.check(f"{case} loss", value, np.nan_to_num(data["out"]), atol=1e-6, rtol=1e-6)
    for name in wanted:
        golden.check(
            f"{case} gradient of {name}",
            found[name],
            np.nan_to_num(data[f"grad.{name}"]),
            atol=1e-6,
            rtol=1e-5,
        )


def test_smooth_l1_golden():
    data = golden.load("layers_functions")
    actual = losses.smooth_l1(
        ops.convert_to_tensor(data["smooth_l1_loss.in.y_true"]),
        ops.convert_to_tensor(data["smooth_l1_loss.in.y_pred"]),
    )
    golden.check("smooth L1", ops.convert_to_numpy(actual), data["smooth_l1_loss.out"], atol=1e-6)


def test_a_loss_layer_is_named_after_its_loss():
    with pytest.raises(ValueError, match="mrcnn_mask_loss.*'mask_loss'"):
        losses.LossLayer("mask_loss")


# Classes of which there are few

IDS = np.array([[1, 0, 2, 0], [2, 1, 0, 0]], np.int32)
ACTIVE = np.ones((2, 3), np.float32)


def class_loss(logits, **options):
    function = lambda pred: losses.mrcnn_class_loss(  # noqa: E731
        ops.convert_to_tensor(IDS), pred, ops.convert_to_tensor(ACTIVE), **options
    )
    value, found = gradients(function, {"pred": logits}, ["pred"])
    return float(value), found["pred"]


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(3).normal(0, 2, (2, 4, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def probabilities(logits):
    """Of the target classes, [2, 4] float64."""
    powers = np.exp(logits.astype(np.float64))
    return np.take_along_axis(powers / powers.sum(axis=-1, keepdims=True), IDS[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize("weights", [[0.5, 3.0, 10.0], [0.0, 0.001, 0.002]])
def test_class_weights_weigh_the_mean(logits, probabilities, weights):
    each = np.array(weights)[IDS]
    value, gradient = class_loss(logits, class_weights=weights)
    assert value == pytest.approx((each * -np.log(probabilities)).sum() / each.sum(), rel=1e-5)
    again, same_gradient = class_loss(logits, class_weights=[7 * weight for weight in weights])
    assert again == pytest.approx(value, rel=1e-5)  # only their relation matters
    np.testing.assert_allclose(same_gradient, gradient, rtol=1e-4, atol=1e-7)


def test_equal_class_weights_change_nothing(logits):
    plain, gradient = class_loss(logits)
    value, found = class_loss(logits, class_weights=[4.0, 4.0, 4.0])
    assert value == pytest.approx(plain, rel=1e-6)
    np.testing.assert_allclose(found, gradient, rtol=1e-5, atol=1e-7)


def test_weights_of_classes_that_are_not_there_give_zero(logits):
    value, gradient = class_loss(logits, class_weights=[0.0, 1.0, 1.0])
    assert value > 0
    only_background = losses.mrcnn_class_loss(
        ops.zeros((2, 4), "int32"),
        ops.convert_to_tensor(logits),
        ops.convert_to_tensor(ACTIVE),
        class_weights=[0.0, 1.0, 1.0],
    )
    assert float(ops.convert_to_numpy(only_background)) == 0.0
    assert not gradient[IDS == 0].any()


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_and_its_gradient(logits, probabilities, gamma):
    value, gradient = class_loss(logits, focal_gamma=gamma)
    p = probabilities
    assert value == pytest.approx(np.mean((1 - p) ** gamma * -np.log(p)), rel=1e-5)
    # d/dz of (1 - p)^g (-log p), by p; dp/dz_j = p (one at the target - softmax_j).
    by_p = gamma * (1 - p) ** (gamma - 1) * np.log(p) - (1 - p) ** gamma / p
    powers = np.exp(logits.astype(np.float64))
    softmax = powers / powers.sum(axis=-1, keepdims=True)
    expected = (by_p * p)[..., None] * (np.eye(3)[IDS] - softmax) / p.size
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_focal_loss_of_what_is_certain_is_finite():
    sure = np.where(np.eye(3)[IDS] > 0, 60.0, -60.0).astype(np.float32)
    for gamma in (0.5, 2.0):
        value, gradient = class_loss(sure, focal_gamma=gamma)
        assert value == pytest.approx(0.0, abs=1e-6) and np.isfinite(gradient).all()
        value, gradient = class_loss(-sure, focal_gamma=gamma)  # certain, and wrong
        assert value == pytest.approx(120.0 + np.log(2.0), rel=1e-3) and np.isfinite(gradient).all()
