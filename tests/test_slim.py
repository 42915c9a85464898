"""The network for other programs: fewer outputs, the same numbers, portable suppression."""

from __future__ import annotations

from functools import cache

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.network import build_network
from mrcnn.ops.nms import first_of_largest, non_max_suppression, portable
from mrcnn.slim import slim_network, without_background
from tests.graph.cases import build, check, config_of, inputs, keras_raw, pictures

on_every_backend = pytest.mark.backends
# Only PyTorch and TensorFlow export such a network; on JAX it takes half a minute.
pytestmark = [pytest.mark.slow] if keras.backend.backend() == "jax" else []


@cache
def network():
    config = config_of(IMAGE_MAX_DIM=128, POST_NMS_ROIS_INFERENCE=20, DETECTION_MAX_INSTANCES=8)
    return config, build(config)


@on_every_backend
def test_the_same_detections_and_their_own_masks():
    config, model = network()
    arrays = inputs(config, pictures(2, 128, 128))
    slim = slim_network(model)
    assert set(slim.output) == {"detections", "masks"}
    assert not [layer for layer in slim.layers if isinstance(layer, keras.layers.BatchNormalization)]
    tensors = [ops.convert_to_tensor(np.asarray(array, np.float32)) for array in arrays]
    outputs = {name: ops.convert_to_numpy(value) for name, value in slim(tensors, training=False).items()}
    assert outputs["masks"].shape == (2, 8, 28, 28)
    found = [
        (rows[rows[:, 4] > 0], masks[rows[:, 4] > 0])
        for rows, masks in zip(outputs["detections"], outputs["masks"], strict=True)
    ]
    check(keras_raw(model, arrays), found, (128, 128), least=5)


def test_it_is_a_copy():
    _, model = network()
    before = [ops.convert_to_numpy(weight) for weight in model.weights]
    slim = slim_network(model)
    for weight in slim.weights:
        weight.assign(ops.zeros_like(weight))
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)


def test_in_bfloat16_its_inputs_and_outputs_are_float32():
    slim = slim_network(network()[1], "bfloat16")
    assert slim.get_layer("fpn_p2").kernel.dtype == "bfloat16"
    assert {tensor.dtype for tensor in (*slim.inputs, *slim.outputs)} == {"float32"}


def test_without_background_everything_is_an_object():
    config = config_of(IMAGE_MAX_DIM=128, POST_NMS_ROIS_INFERENCE=20, DETECTION_MIN_CONFIDENCE=1.0)
    model = build_network(config, "inference")
    model.set_weights(network()[1].get_weights())
    arrays = inputs(config, pictures(1, 128, 128))
    assert len(keras_raw(model, arrays)[0][0]) == 0
    twin, twin_config = without_background(model, config)
    found = keras_raw(twin, arrays)[0][0]
    assert 3 < len(found) <= 20 and (found[:, 4] > 0).all()
    assert config.DETECTION_MIN_CONFIDENCE == 1.0 and twin_config.DETECTION_MIN_CONFIDENCE == 0
    assert len(keras_raw(model, arrays)[0][0]) == 0


@on_every_backend
def test_portable_suppression_is_the_same(rng):
    """Also where whole lists tie, and where some candidates do not take part. (PyTorch's is recorded, not run here.)"""
    corners = np.sort(rng.random((2, 60, 2, 2)), axis=2).astype(np.float32)
    boxes = ops.convert_to_tensor(corners.reshape(2, 60, 4))
    valid = ops.convert_to_tensor(rng.random((2, 60)) < 0.7)
    classes = ops.convert_to_tensor(rng.integers(0, 3, (2, 60)).astype(np.int32))
    for scores in (rng.random((2, 60)), rng.integers(0, 3, (2, 60)), np.zeros((2, 60)), -rng.random((2, 60))):
        scores = ops.convert_to_tensor(scores.astype(np.float32))
        for options in ({}, {"valid": valid}, {"valid": valid, "classes": classes}):
            expected = non_max_suppression(boxes, scores, 12, 0.3, **options)
            with portable():
                found = non_max_suppression(boxes, scores, 12, 0.3, **options)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))


@on_every_backend
def test_the_first_of_the_largest(rng):
    values = rng.integers(0, 4, (5, 7, 9)).astype(np.float32)
    values[0, 0] = [-0.0, 0.0, -1, -1, -1, -1, -1, -1, -1]
    found = ops.convert_to_numpy(first_of_largest(ops.convert_to_tensor(values)))
    np.testing.assert_array_equal(found, values.argmax(axis=-1))
    assert found.dtype == np.int32
