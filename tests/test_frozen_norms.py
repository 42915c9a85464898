"""Frozen batch normalization inside of the convolutions before it, against the two apart."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from mrcnn.frozen_norms import FrozenNorms
from mrcnn.layers.normalization import BatchNorm
from mrcnn.training import TrainingModel
from tests import running


def fill(model, rng):
    for weight in model.weights:
        value = rng.normal(size=weight.shape, scale=0.5)
        weight.assign(np.exp(value) if weight.name == "moving_variance" else value)


def make(train_bn=False, plain=False):
    """Convolutions of several kinds, each with its normalization, and ones that cannot be folded."""

    def norm(name, **options):
        return layers.BatchNormalization(name=name, **options) if plain else BatchNorm(train_bn, name=name, **options)

    image = layers.Input((8, 9, 3))
    x = norm("bn_a")(layers.Conv2D(4, 3, strides=2, padding="same", name="a")(image))
    x = layers.Activation("relu")(x)
    y = norm("bn_b", scale=False)(layers.Conv2D(4, 3, dilation_rate=2, padding="same", use_bias=False, name="b")(x))
    z = norm("bn_c", center=False)(layers.Conv2D(4, 1, activation="tanh", name="c")(x))  # not folded
    x = norm("bn_d")(layers.Conv2DTranspose(4, 2, strides=2, name="d")(layers.Add()([y, z])))  # nor this
    w = norm("bn_e")(layers.Conv2D(4, x.shape[1:3], name="e")(x))  # nor this: one cell
    return TrainingModel(image, [x, y, w], name="net")


def total(outputs):
    return sum(ops.sum(ops.sin(output)) for output in outputs)


def apart(model, inputs, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(FrozenNorms, "takes", lambda *_: False)
        return running.variable_gradients(model, inputs, total)


@pytest.mark.parametrize(
    "kind", [*(pytest.param(kind, marks=pytest.mark.backends) for kind in ("frozen", "flag")), "layer", "frozen layer"]
)
def test_outputs_and_gradients_are_those_of_the_two_apart(kind, rng, monkeypatch):
    model = make(train_bn={"frozen": False, "flag": None}.get(kind), plain=kind.endswith("layer"))
    fill(model, rng)
    if kind == "frozen layer":
        for layer in model.layers:
            layer.trainable = not layer.name.startswith("bn")
    image = ops.convert_to_tensor(rng.normal(size=(2, 8, 9, 3)).astype(np.float32))
    state = [ops.convert_to_numpy(weight) for weight in model.weights]
    expected_outputs, expected = apart(model, image, monkeypatch)
    for weight, value in zip(model.weights, state, strict=True):
        weight.assign(value)
    calls = []
    for layer in model.layers:
        if layer.name.startswith("bn"):
            monkeypatch.setattr(
                layer, "call", lambda *a, call=layer.call, name=layer.name, **k: (calls.append(name), call(*a, **k))[1]
            )
    outputs, found = running.variable_gradients(model, image, total)
    for output, wanted in zip(outputs, expected_outputs, strict=True):
        np.testing.assert_allclose(output, wanted, atol=2e-5)
    assert set(found) == set(expected)
    for name, wanted in expected.items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-4, err_msg=name)
    # Those that take the batch's statistics, and those that no convolution can take over, are run themselves.
    stored = kind in ("frozen", "frozen layer")
    assert set(calls) == ({"bn_c", "bn_d", "bn_e"} if stored else {"bn_a", "bn_b", "bn_c", "bn_d", "bn_e"})


def test_at_inference_all_are_folded(rng, monkeypatch):
    model = make(train_bn=None)
    fill(model, rng)
    image = ops.convert_to_tensor(rng.normal(size=(2, 8, 9, 3)).astype(np.float32))
    found = [ops.convert_to_numpy(output) for output in model(image, training=False)]
    monkeypatch.setattr(FrozenNorms, "takes", lambda *_: False)
    for output, wanted in zip(found, model(image, training=False), strict=True):
        np.testing.assert_allclose(output, ops.convert_to_numpy(wanted), atol=2e-5)


@pytest.mark.backends
def test_mixed_precision_scales_the_kernel_before_it_is_rounded(rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        image = layers.Input((4, 4, 8))
        x = BatchNorm(False, epsilon=0.0, name="bn")(layers.Conv2D(3, 1, name="conv")(image))
        model = TrainingModel(image, x)
    finally:
        keras.config.set_dtype_policy("float32")
    conv, norm = model.get_layer("conv"), model.get_layer("bn")
    # 1 + 2^-9 is 1 in bfloat16; times this gamma it is 1 + 2^-7, which bfloat16 can tell from 1.
    share = (1 + 2.0**-7) / (1 + 2.0**-9)
    conv.kernel.assign(np.full(conv.kernel.shape, 1 + 2.0**-9))
    norm.gamma.assign(np.full(3, share))
    pixel = np.zeros((1, 4, 4, 8), np.float32)
    pixel[..., 0] = 1.0
    (output,) = keras.tree.flatten(model(ops.convert_to_tensor(pixel), training=True))
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    np.testing.assert_array_equal(ops.convert_to_numpy(ops.cast(output, "float32")), 1 + 2.0**-7)


def test_the_weights_are_the_networks_own():
    model = make()
    before = [weight.path for weight in model.weights]
    model(ops.zeros((1, 8, 9, 3)), training=True)
    assert [weight.path for weight in model.weights] == before
    assert "frozen_norms" in vars(model)  # it was folded
