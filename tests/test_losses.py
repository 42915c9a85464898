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
