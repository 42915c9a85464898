"""Small networks of the modern recipes: built, run, folded, exported, trained; each on every backend."""

from __future__ import annotations

from functools import cache

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.data.samples import SampleMaker
from mrcnn.engines.keras_engine import KerasEngine
from mrcnn.folding import fold_batch_norm
from mrcnn.network import build_network
from mrcnn.presets import PRESETS
from mrcnn.training import set_trainable
from mrcnn.weights import load_weights, save_weights
from tests import golden
from tests.graph.cases import inputs as inputs_of
from tests.graph.cases import pictures
from tests.running import call, variable_gradients
from tests.shapes import Shapes, ShapesConfig

on_every_backend = pytest.mark.backends

SMALL = {
    "BACKBONE": "resnet14", "RPN_CONV_SIZE": 64, "PRE_NMS_LIMIT": 60, "PRE_NMS_LIMIT_TRAINING": 80,
    "POST_NMS_ROIS_TRAINING": 100, "POST_NMS_ROIS_INFERENCE": 50, "TRAIN_ROIS_PER_IMAGE": 32, "IMAGE_MIN_DIM": 96,
    "IMAGE_MAX_DIM": 128, "BOX_HEAD_CONV_SIZE": 32, "DETECTION_MAX_INSTANCES": 30, "DETECTION_MIN_CONFIDENCE": 0.3,
    "NORM_EPSILON": 1e-3, "MINI_MASK_SHAPE": (28, 28), "IMAGES_PER_GPU": 2,
}  # fmt: skip
BY_CLASS = {
    "DETECTION_CLASS_CONFIDENCE": (0.0, 0.2, 0.0, 0.45), "DETECTION_NMS_THRESHOLD": 0.1, "DETECTION_MAX_INSTANCES": 200,
}  # fmt: skip
# JAX compiles each network for half a minute: in `make test` it has one recipe of them.
slow_on_jax = pytest.mark.slow if keras.backend.backend() == "jax" else pytest.mark.backends
RECIPES = [
    name if name == "modern" else pytest.param(name, marks=slow_on_jax) for name in PRESETS if name != "legacy"
]  # fmt: skip


def config_of(recipe, **changes):
    return ShapesConfig.from_dict({**PRESETS[recipe], **SMALL, **changes})


@cache
def network_of(recipe, **changes):
    config = config_of(recipe, **dict(changes))
    network = build_network(config, "inference")
    golden.fill_small(network, seed=3)
    calm(config, network)
    return config, network


def calm(config, network):
    """Bring deltas and logits to a size at which boxes stay boxes and scores differ."""
    arrays = inputs_of(config, pictures(1, 96, 128))
    rpn = network.get_layer("rpn_model").get_layer("rpn_bbox_pred")
    for layer, output, spread in (
        (rpn, network.outputs[6], 0.1 / float(config.RPN_BBOX_STD_DEV[0])),
        (network.get_layer("mrcnn_bbox_fc"), network.outputs[2], 1.0),
        (network.get_layer("mrcnn_class_logits"), network.get_layer("mrcnn_class_logits").output, 2.0),
    ):
        (values,) = call(keras.Model(network.inputs, [output]), arrays)
        layer.kernel.assign(layer.kernel * (spread / values.std()))


@on_every_backend
@pytest.mark.parametrize("recipe", RECIPES)
def test_an_engine_finds_what_the_network_does(recipe):
    """Two images of other sizes; the batch normalizations folded in the engine."""
    config, network = network_of(recipe)
    arrays = inputs_of(config, pictures(2, 80, 112))
    detections, classes, _, masks, rois, rpn_class, rpn_bbox = call(network, arrays)
    anchors = arrays[2].shape[1]
    assert rpn_class.shape == (2, anchors, 1) and rpn_bbox.shape == (2, anchors, 4)
    window = arrays[1][:, 7:11] / np.tile(arrays[0].shape[1:3], 2)
    assert rois.shape == (2, 50, 4) and (rois[..., 2:] <= window[:, None, 2:] + 1e-6).all()
    real = (rois != 0).any(axis=-1)
    assert real.sum() > 40
    assert ((rois[..., 2:] > rois[..., :2]).all(axis=-1) == real).all()
    found = KerasEngine(network, config, fold=True).run(*arrays)
    for index, (rows, own) in enumerate(found):
        expected = detections[index][detections[index, :, 4] > 0]
        assert len(rows) == len(expected) >= 5
        assert (rows[:, 5] >= 0.3).all() and (np.diff(rows[:, 5]) <= 0).all()
        np.testing.assert_allclose(rows, expected, atol=1e-3)
        picked = masks[index][np.arange(len(rows)), :, :, rows[:, 4].astype(int)]
        np.testing.assert_allclose(own, picked, atol=5e-3)
    assert classes.shape == (2, 50, config.NUM_CLASSES)


@on_every_backend
def test_all_classes_of_a_region_are_kept():
    """Against a slow oracle: every class that scores enough, suppressed class by class, the best of all."""
    config, network = network_of("modern")
    arrays = inputs_of(config, pictures(1, 96, 128))
    detections, probabilities, deltas, _, rois, *_ = call(network, arrays)
    shape = np.tile(arrays[0].shape[1:3], 2)
    found = []
    for roi in range(rois.shape[1]):
        for label in range(1, config.NUM_CLASSES):
            score = probabilities[0, roi, label]
            y1, x1, y2, x2 = rois[0, roi].astype(np.float64)
            dy, dx, dh, dw = (deltas[0, roi, label] * config.BBOX_STD_DEV).astype(np.float64)
            height, width = (y2 - y1) * np.exp(min(dh, config.BBOX_LOG_LIMIT)), (x2 - x1) * np.exp(dw)
            y, x = (y1 + y2) / 2 + dy * (y2 - y1), (x1 + x2) / 2 + dx * (x2 - x1)
            box = np.clip([y - height / 2, x - width / 2, y + height / 2, x + width / 2], 0, 1)
            if score >= 0.3 and box[2] > box[0] and box[3] > box[1]:
                found.append((score, label, *box))
    found.sort(reverse=True)
    kept = []
    for one in found:
        if all(one[1] != other[1] or overlap(one[2:], other[2:]) <= 0.5 for other in kept):
            kept.append(one)
    kept = np.array(kept[: config.DETECTION_MAX_INSTANCES])
    rows = detections[0][detections[0, :, 4] > 0]
    assert len(rows) == len(kept) > 10
    assert len({tuple(row) for row in np.round(rows[:, :4] * shape)}) > 5
    np.testing.assert_allclose(rows, np.column_stack([kept[:, 2:], kept[:, 1], kept[:, 0]]), atol=1e-3)


@on_every_backend
@slow_on_jax
def test_least_scores_by_class_and_suppression_across_classes():
    """Of what a region scores enough in, whatever its class; 0.0 for a class: everything."""
    least = BY_CLASS["DETECTION_CLASS_CONFIDENCE"]
    config, network = network_of("modern", **BY_CLASS)
    _, agnostic = network_of("modern", DETECTION_NMS_CLASS_AGNOSTIC=True, **BY_CLASS)
    arrays = inputs_of(config, pictures(1, 96, 128))
    for one, is_agnostic in ((network, False), (agnostic, True)):
        rows = call(one, arrays)[0][0]
        rows = rows[rows[:, 4] > 0]
        classes = rows[:, 4].astype(int)
        assert (rows[:, 5] >= np.array(least)[classes]).all()
        if not is_agnostic:
            assert rows[classes == 1, 5].min() < 0.45 and rows[classes == 2, 5].min() < 0.2
        overlaps = max(
            overlap(a, b) for i, a in enumerate(rows) for b in rows[:i] if is_agnostic or a[4] == b[4]
        )  # fmt: skip
        across = max(overlap(a, b) for i, a in enumerate(rows) for b in rows[:i])
        assert overlaps <= 0.1 + 1e-5 and (across <= 0.1 + 1e-5) == is_agnostic


def overlap(a, b):
    inside = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return inside / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside)


def training_batch(config, network, count=2):
    maker = SampleMaker(Shapes(count, size=80), config)
    samples = [maker.make(index, np.random.default_rng(index)) for index in range(count)]
    return [
        ops.convert_to_tensor(np.stack([sample[x.name] for sample in samples]).astype(x.dtype)) for x in network.inputs
    ]


@on_every_backend
@pytest.mark.parametrize("recipe", [pytest.param("torchvision_v1", marks=slow_on_jax), "modern"])
def test_a_training_step_has_losses_and_gradients(recipe):
    config = config_of(recipe)
    network = build_network(config, "training")
    golden.fill_small(network, seed=3)
    outputs, gradients = variable_gradients(
        network, training_batch(config, network), lambda outs: sum(outs[-5:])
    )  # fmt: skip
    losses = np.array([float(x) for x in outputs[-5:]])
    assert np.isfinite(losses).all() and (losses > 0).all(), losses
    assert (outputs[8] != 0).any(axis=-1).sum() > 32
    for name in ("conv1/kernel", "fpn_p2/kernel", "rpn_bbox_pred/kernel", "mrcnn_bbox_fc/kernel", "mrcnn_mask/kernel"):
        assert np.isfinite(gradients[name]).all() and np.abs(gradients[name]).max() > 0
    normalized = [name for name in gradients if name.endswith("gamma")]
    assert bool(normalized) == (config.NORM == "batch")


def test_a_frozen_normalization_never_trains():
    network = build_network(config_of("torchvision_v1"), "training")
    set_trainable(network, ".*")
    names = {weight.path.split("/")[-1] for weight in network.trainable_weights}
    assert names == {"kernel", "bias"}
    again = type(network.get_layer("bn_conv1")).from_config(network.get_layer("bn_conv1").get_config())
    assert again.frozen


@on_every_backend
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_weights_there_and_back(tmp_path, norm):
    """Of a network with everything: two convolutions in the RPN, four in the box head, normalization everywhere."""
    config, network = network_of("torchvision_v2", NORM=norm)
    for name in ("w.h5", "w.weights.h5"):
        save_weights(network, tmp_path / name)
        other = build_network(config, "inference")
        report = load_weights(other, tmp_path / name)
        assert report.complete and not report.excluded
        for one, two in zip(network.weights, other.weights, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(two))


def test_all_of_the_batch_normalizations_fold():
    _, network = network_of("torchvision_v2")
    folded = fold_batch_norm(network)
    assert not [layer.name for layer in folded.layers if isinstance(layer, keras.layers.BatchNormalization)]
    _, network = network_of("torchvision_v2", NORM="group")
    kinds = {type(layer).__name__ for layer in fold_batch_norm(network).layers}
    assert "GroupNormalization" in kinds
