"""The layers of the original, made from a configuration and called with one list: golden numbers, use in graphs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn import model as modellib
from mrcnn.config import Config
from mrcnn.layers import normalization
from tests import golden
from tests.test_layers import TARGET_CASES, sort_rows


def config_of(**fields):
    return type("C", (Config,), {"NUM_CLASSES": 4, **fields})()


def config_from(data, **fields):
    told = {key[len("cfg.") :]: value for key, value in data.items() if key.startswith("cfg.") and key[4:].isupper()}
    return config_of(**{name: value.tolist() for name, value in told.items()}, **fields)


def call(layer, *arrays):
    outputs = layer([ops.convert_to_tensor(array) for array in arrays])
    return (
        [ops.convert_to_numpy(output) for output in outputs]
        if isinstance(outputs, list)
        else (ops.convert_to_numpy(outputs))
    )


@pytest.mark.parametrize("case", ["prelimit", "full", "padded", "tied_scores"])
def test_proposals_golden(case):
    data = golden.part("layers_proposal", case)
    layer = modellib.ProposalLayer(
        proposal_count=int(data["cfg.proposal_count"]), nms_threshold=float(data["cfg.nms_threshold"]),
        config=config_from(data), name="ROI",
    )  # fmt: skip
    actual = call(layer, data["in.rpn_probs"], data["in.rpn_bbox"], data["in.anchors"])
    golden.check(f"ProposalLayer {case}", actual, data["out"], atol=1e-6)


@pytest.mark.parametrize("case", ["default", "noconf", "max10", "nms.7", "all_background", "tied"])
def test_detections_golden(case):
    data = golden.part("layers_detection", case)
    layer = modellib.DetectionLayer(config_from(data), name="mrcnn_detection")
    actual = call(layer, *(data[f"in.{name}"] for name in ("rois", "mrcnn_class", "mrcnn_bbox", "image_meta")))
    golden.check(f"DetectionLayer {case}", actual, data["out"], atol=1e-6)


@pytest.mark.parametrize("case", ["1024", "512x768", "128"])
def test_roi_align_golden(case):
    data = golden.load("layers_roialign")
    for size in (7, 14):
        layer = modellib.PyramidROIAlign([size, size], name="roi_align_classifier")
        inputs = [data["in.boxes"], data[f"{case}.in.image_meta"], *(data[f"in.P{level}"] for level in (2, 3, 4, 5))]
        golden.check(f"PyramidROIAlign {case} {size}", call(layer, *inputs), data[f"{case}.out.{size}"], atol=1e-4)


@pytest.mark.parametrize("case", [case for case in TARGET_CASES if "identity" not in case])
def test_targets_golden(case):
    data = golden.part("layers_detection_target", case)
    layer = modellib.DetectionTargetLayer(config_from(data), name="proposal_targets")
    actual = call(layer, *(data[f"in.{name}"] for name in ("proposals", "gt_class_ids", "gt_boxes", "gt_masks")))
    names = ("rois", "target_class_ids", "target_deltas", "target_mask")
    for image in range(2):
        expected = sort_rows(*(data[f"sorted{image}.{name}"] for name in names))
        ours = sort_rows(*(value[image] for value in actual))
        for name, value, wanted in zip(names, ours, expected, strict=True):
            golden.check(f"DetectionTargetLayer {case} image {image} {name}", value, wanted, atol=1e-5)


def test_what_a_configuration_says_about_targets_is_heard():
    """The modern switches too: the ROIs are filled up with negatives."""
    data = golden.part("layers_detection_target", "no_gt")
    inputs = [data[f"in.{name}"] for name in ("proposals", "gt_class_ids", "gt_boxes", "gt_masks")]
    for fill, expected in ((False, 0), (True, 16)):
        config = config_from(data, ROI_FILL_NEGATIVES=fill)
        rois = call(modellib.DetectionTargetLayer(config), *inputs)[0]
        assert np.any(rois != 0, axis=-1).sum(axis=1).tolist() == [expected, expected]


def test_layers_without_a_configuration_take_the_default():
    assert modellib.DetectionLayer().max_instances == 100
    assert modellib.ProposalLayer(5, 0.7).pre_nms_limit == 6000


@pytest.mark.parametrize(
    ("make", "inputs", "outputs"),
    [
        (lambda c: modellib.ProposalLayer(9, 0.6, c, name="ROI"), [(2, 50, 2), (2, 50, 4), (2, 50, 4)], (2, 9, 4)),
        (lambda c: modellib.DetectionLayer(c), [(2, 9, 4), (2, 9, 4), (2, 9, 4, 4), (2, 16)], (2, 7, 6)),
        (lambda c: modellib.PyramidROIAlign([7, 7]), [(2, 9, 4), (2, 16), (2, 32, 32, 8)], (2, 9, 7, 7, 8)),
        (
            lambda c: modellib.DetectionTargetLayer(c, name="targets"),
            [(2, 9, 4), (2, 5), (2, 5, 4), (2, 56, 56, 5)],
            [(2, 200, 4), (2, 200), (2, 200, 4), (2, 200, 28, 28)],
        ),
    ],
    ids=["ProposalLayer", "DetectionLayer", "PyramidROIAlign", "DetectionTargetLayer"],
)
def test_layers_tell_their_shapes_and_are_saved(make, inputs, outputs):
    layer = make(config_of(DETECTION_MAX_INSTANCES=7))
    assert layer.compute_output_shape(inputs) == outputs
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    assert again.compute_output_shape(inputs) == outputs


@pytest.mark.backends
def test_a_graph_of_the_old_layers_in_a_model():
    data = golden.part("layers_proposal", "padded")
    names = ("rpn_probs", "rpn_bbox", "anchors")
    inputs = [keras.layers.Input(data[f"in.{name}"].shape[1:], name=name) for name in names]
    layer = modellib.ProposalLayer(
        int(data["cfg.proposal_count"]), float(data["cfg.nms_threshold"]), config_from(data), name="ROI"
    )
    model = keras.Model(inputs, layer(inputs))
    actual = model([ops.convert_to_tensor(data[f"in.{name}"]) for name in names])
    golden.check("ProposalLayer in a model", ops.convert_to_numpy(actual), data["out"], atol=1e-6)


@pytest.mark.backends
@pytest.mark.parametrize("told", [False, None, True])
def test_batch_norm_keeps_what_it_was_told_at_its_call(told, rng):
    """A functional model would overrule a call's `training` by its own phase."""
    x = rng.normal(3, 2, (4, 5, 5, 2)).astype(np.float32)
    by_batch = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3)
    by_store = x / np.sqrt(1 + 1e-3)
    image = keras.layers.Input((5, 5, 2))
    model = keras.Model(image, modellib.BatchNorm(name="bn")(image, training=told))
    for training in (False, True):
        expected = by_batch if (training if told is None else told) else by_store
        actual = model(ops.convert_to_tensor(x), training=training)
        np.testing.assert_allclose(ops.convert_to_numpy(actual), expected, atol=1e-5)
        if told is not False:
            model.get_layer("bn").moving_mean.assign([0, 0])
            model.get_layer("bn").moving_variance.assign([1, 1])
    assert isinstance(model.get_layer("bn"), normalization.BatchNorm)


def test_batch_norm_on_arrays_does_as_each_call_says(rng):
    x = ops.convert_to_tensor(rng.normal(3, 2, (4, 5, 5, 2)).astype(np.float32))
    layer = modellib.BatchNorm(axis=-1)
    by_batch = ops.convert_to_numpy(layer(x, training=True))
    assert abs(by_batch.mean()) < 1e-4
    stored = ops.convert_to_numpy(layer(x, training=False))
    assert stored.mean() > 1
