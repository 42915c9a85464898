"""The whole network, both modes: golden numbers end to end, names and shapes."""

from __future__ import annotations

import json
from functools import cache

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.config import LOSS_NAMES, Config, ConfigError
from mrcnn.data.molding import network_inputs
from mrcnn.network import build_network
from tests import golden
from tests.running import call, variable_gradients
from tests.small import SmallConfig

on_every_backend = pytest.mark.backends

OUTPUTS = ("detections", "mrcnn_class", "mrcnn_bbox", "mrcnn_mask", "rpn_rois", "rpn_class", "rpn_bbox")
TRAINING_OUTPUTS = (
    "rpn_class_logits", "rpn_class", "rpn_bbox", "mrcnn_class_logits", "mrcnn_class", "mrcnn_bbox", "mrcnn_mask",
    "rpn_rois", "output_rois", *LOSS_NAMES,
)  # fmt: skip


@cache
def inference_network(name):
    network = build_network(golden.config_of(golden.load(name)), "inference")
    golden.fill(network)
    return network


def run(network, data):
    outputs = call(network, [data["input_image"], data["input_image_meta"], data["input_anchors"]])
    return dict(zip(OUTPUTS, outputs, strict=True))


@on_every_backend
@pytest.mark.parametrize("name", ["e2e_r50_b1", "e2e_r101_b1"])
def test_inference_end_to_end_golden(name):
    data = golden.load(name)
    outputs = run(inference_network(name), data)
    for key in OUTPUTS:
        golden.check(f"{name} {key}", outputs[key], data[key], atol=1e-4)


@on_every_backend
@pytest.mark.parametrize("name", ["e2e_r50_b1", "e2e_r101_b1"])
def test_features_golden(name):
    data = golden.load(name)
    network = inference_network(name)
    last = {"e2e_r50_b1": "f", "e2e_r101_b1": "w"}[name]
    layers = {"C2": "res2c_out", "C3": "res3d_out", "C4": f"res4{last}_out", "C5": "res5c_out"}
    layers.update({f"P{level}": f"fpn_p{level}" for level in range(2, 7)})
    features = keras.Model(network.inputs[:1], [network.get_layer(layer).output for layer in layers.values()])
    values = call(features, [data["input_image"]])
    for key, value in zip(layers, values, strict=True):
        expected = data[key] if key in data else data[f"{key}_slice"]
        value = value if key in data else value[:, ::4, ::4, ::8]
        golden.check(f"{name} {key}", value, expected, atol=1e-4, rtol=1e-4)


@on_every_backend
@pytest.mark.parametrize("name", ["inf_r50_pad64", "inf_r50_b2"])
def test_inference_other_sizes_and_batches_golden(name):
    """Rows on the image's border hang on the last bit of a float (see ROIAlign) and are left out, but for the
    proposals and the RPN, which do not."""
    data = golden.load(name)
    network = build_network(golden.config_of(data), "inference")
    golden.fill(network)
    outputs = run(network, data)
    for key in ("rpn_rois", "rpn_class", "rpn_bbox"):
        golden.check(f"{name} {key}", outputs[key], data[key], atol=1e-4)
    settled = ~data["rpn_rois_border"].astype(bool)
    for key in ("mrcnn_class", "mrcnn_bbox"):
        golden.check(f"{name} {key}", outputs[key][settled], data[key][settled], atol=1e-4)


def training_config(data, **changes):
    return golden.config_of(data, **changes)


def training_inputs(network, data):
    names = [tensor.name for tensor in network.inputs]
    kinds = {tensor.name: tensor.dtype for tensor in network.inputs}
    return [ops.convert_to_tensor(data[f"in.{name}"].astype(kinds[name])) for name in names]


@on_every_backend
@pytest.mark.parametrize(
    "name",
    [
        "train_r50_identity",
        # A minute on JAX.
        pytest.param("train_r50_given_rois", marks=[pytest.mark.slow] if keras.backend.backend() == "jax" else []),
        # Two and a half minutes on JAX, which convolves the masks of 400 ROIs on one core.
        pytest.param("train_r50_nosubsample", marks=pytest.mark.slow),
    ],
)
def test_training_graph_with_gradients_golden(name):
    data = golden.load(name)
    network = build_network(training_config(data), "training")
    golden.fill(network)
    identity = bool(data["identity_shuffle"])
    network.get_layer("proposal_targets").shuffle = not identity

    weights = [training_config(data).LOSS_WEIGHTS[key] for key in LOSS_NAMES]
    outputs, gradients = variable_gradients(
        network, training_inputs(network, data),
        lambda outs: sum(weight * loss for weight, loss in zip(weights, outs[-5:], strict=True)),
    )  # fmt: skip
    outputs = dict(zip(TRAINING_OUTPUTS, outputs, strict=True))
    for key in ("rpn_class_logits", "rpn_class", "rpn_bbox"):
        golden.check(f"{name} {key}", outputs[key], data[f"out.{key}"], atol=1e-4)
    # The corners of given ROIs fall on the edges of masks, where XLA's rounding of the grid flips single pixels of
    # the targets (see ROIAlign).
    flips = 20 if keras.backend.backend() == "jax" and name == "train_r50_given_rois" else 1
    for index, key in enumerate(LOSS_NAMES):
        atol = 1e-4 * flips if key == "mrcnn_mask_loss" else 1e-4
        golden.check(f"{name} {key}", outputs[key], data["out.losses_f64"][index], atol=atol)
    if identity:
        for key in (
            "rpn_rois",
            "output_rois",
            "mrcnn_class_logits",
            "mrcnn_class",
            "mrcnn_bbox",
            "mrcnn_mask",
        ):
            golden.check(f"{name} {key}", outputs[key], data[f"out.{key}"], atol=1e-4)
    for key, gradient in gradients.items():
        if f"grad.{key}" in data:
            expected = data[f"grad.{key}"]
            # Wider than 1e-4, for the early layers sum over every pixel and every ROI, each in an order of its own.
            largest = float(np.abs(expected).max())
            golden.check(f"{name} gradient of {key}", gradient, expected, atol=1e-3 * flips * largest + 1e-6)
    norms = dict(zip(data["grad_names"].tolist(), data["grad_norms_f64"], strict=True))
    assert set(norms) == set(gradients)
    found = np.array([np.linalg.norm(gradients[key].astype(np.float64)) for key in norms])
    golden.check(f"{name} gradient norms", found, np.array(list(norms.values())), atol=1e-5, rtol=1e-3 * flips)
    total = np.sqrt(np.sum(found**2))
    golden.check(f"{name} global gradient norm", total, data["grad_global_norm_f64"], rtol=5e-4 * flips)


def test_the_gradient_through_proposals_can_be_stopped():
    """`legacy:` the head's box loss reaches the RPN's deltas; STOP_PROPOSAL_GRADIENT cuts that off."""
    data = golden.load("train_r50_identity")
    reached = {}
    for stop in (False, True):
        network = build_network(training_config(data, STOP_PROPOSAL_GRADIENT=stop), "training")
        golden.fill(network)
        network.get_layer("proposal_targets").shuffle = False
        _, gradients = variable_gradients(network, training_inputs(network, data), lambda outs: outs[-2])
        reached[stop] = float(np.abs(gradients["rpn_bbox_pred/kernel"]).max())
    assert reached[False] > 0
    assert reached[True] == 0


def test_mask_head_on_positives_only_changes_no_loss():
    data = golden.load("train_r50_identity")
    network = build_network(training_config(data, MASK_HEAD_POSITIVES_ONLY=True), "training")
    golden.fill(network)
    network.get_layer("proposal_targets").shuffle = False
    outputs, _ = variable_gradients(network, training_inputs(network, data), lambda outs: sum(outs[-5:]))
    for index, key in enumerate(LOSS_NAMES):
        golden.check(f"positives only {key}", outputs[index - 5], data["out.losses_f64"][index], atol=1e-4)
    assert outputs[6].shape == data["out.mrcnn_mask"].shape


@on_every_backend
@pytest.mark.parametrize("backbone, classes", [("resnet50", 4), ("resnet101", 81), ("resnet101", 4)])
def test_names_and_shapes_of_weights_are_the_contract(backbone, classes):
    contract = json.loads((golden.DATA / "weights_flat.json").read_text())[f"{backbone}_{classes}"]
    # The contract names the layers inside `rpn_model` by that model; the weights carry the inner name.
    expected = {}
    for _, weight, shape in contract:
        inner, short = weight.split("/")[-2:]
        expected[inner, short.split(":")[0]] = tuple(shape)
    config = Config.from_dict({"BACKBONE": backbone, "NUM_CLASSES": classes})
    for mode in ("inference", "training"):
        found = {
            tuple(weight.path.split("/")[-2:]): tuple(weight.shape)
            for weight in build_network(config, mode).weights
            if not weight.path.startswith(("seed", "proposal_targets"))
        }
        assert found == expected


@on_every_backend
def test_outputs_of_the_original_in_its_order():
    config = Config.from_dict({"BACKBONE": "resnet50", "NUM_CLASSES": 4})
    network = build_network(config, "inference")
    assert [tensor.name for tensor in network.inputs] == ["input_image", "input_image_meta", "input_anchors"]
    assert [tuple(tensor.shape) for tensor in network.outputs] == [
        (None, 100, 6), (None, 1000, 4), (None, 1000, 4, 4), (None, 100, 28, 28, 4), (None, 1000, 4),
        (None, None, 2), (None, None, 4),
    ]  # fmt: skip
    network = build_network(config, "training")
    assert [tensor.name for tensor in network.inputs] == [
        "input_image", "input_image_meta", "input_rpn_match", "input_rpn_bbox", "input_gt_class_ids",
        "input_gt_boxes", "input_gt_masks",
    ]  # fmt: skip
    anchors = 261888
    assert [tuple(tensor.shape) for tensor in network.outputs[:9]] == [
        (None, anchors, 2), (None, anchors, 2), (None, anchors, 4), (None, 200, 4), (None, 200, 4), (None, 200, 4, 4),
        (None, 200, 28, 28, 4), (None, 2000, 4), (None, 200, 4),
    ]  # fmt: skip
    assert [tuple(tensor.shape) for tensor in network.outputs[9:]] == [()] * 5


@on_every_backend
def test_layers_that_people_ask_for_by_name():
    names = {layer.name for layer in build_network(Config.from_dict({"NUM_CLASSES": 2}), "inference").layers}
    assert names >= {
        "res2c_out", "res3c_out", "res4w_out", "fpn_p2", "fpn_p6", "fpn_p5upsampled", "fpn_p4add", "rpn_model",

        "rpn_class", "rpn_bbox", "ROI", "roi_align_classifier", "roi_align_mask", "mrcnn_class", "mrcnn_bbox",
        "mrcnn_mask",        "mrcnn_detection",
    }  # fmt: skip


@on_every_backend
def test_levels_without_anchors_propose_nothing():
    """The original scored them too, and their boxes had no size."""
    values = {"POST_NMS_ROIS_INFERENCE": 1023}
    few, all_levels = (
        build_network(SmallConfig.from_dict({**values, "RPN_ANCHOR_SCALES": (8, 16, 24, 32, 48)[:count]}), "inference")
        for count in (3, 5)
    )
    golden.fill(all_levels)
    golden.fill(few)
    config = SmallConfig()
    image, meta, anchors = network_inputs(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), config)
    count = 3 * (16**2 + 8**2 + 4**2)
    found = dict(zip(OUTPUTS, call(few, [image, meta, anchors[:, :count]]), strict=True))
    without = np.where(np.arange(anchors.shape[1])[:, None] < count, anchors, 0)
    expected = dict(zip(OUTPUTS, call(all_levels, [image, meta, without]), strict=True))
    for name in ("rpn_class", "rpn_bbox"):
        np.testing.assert_allclose(found[name], expected[name][:, :count], atol=1e-6)
    rois = expected["rpn_rois"][0]
    assert not rois.any(axis=1).all()
    rois = rois[rois.any(axis=1)]
    np.testing.assert_allclose(found["rpn_rois"][0, : len(rois)], rois, atol=1e-6)
    sized = expected["detections"][0, :, 2] > expected["detections"][0, :, 0]
    assert sized.any()
    np.testing.assert_allclose(found["detections"][0, : sized.sum()], expected["detections"][0, sized], atol=1e-5)


def test_an_image_size_that_cannot_be_halved_six_times_is_refused():
    config = Config.from_dict({"NUM_CLASSES": 2})
    config.IMAGE_SHAPE = np.array([1000, 1000, 3])
    with pytest.raises(ConfigError, match=r"multiples of 64\. Received: 1000 x 1000"):
        build_network(config, "training")


@on_every_backend
def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="inference, training.*'predict'"):
        build_network(Config(), "predict")
