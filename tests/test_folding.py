"""Batch normalization folded into convolutions: the same numbers, fewer layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from mrcnn.folding import fold_batch_norm
from mrcnn.layers.normalization import BatchNorm
from mrcnn.network import build_network
from mrcnn.ops.boxes import clip_boxes, decode_deltas
from tests.backbones import five_convolutions
from tests.nuclei_network import in_order, network_inputs, nuclei_network, nuclei_picture
from tests.running import call
from tests.shapes import ShapesConfig

on_every_backend = pytest.mark.backends


def randomize(model, seed=0):
    """Weights that no initializer gives: each batch normalization has statistics, gamma and beta of its own."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name != "kernel":
            middle = 1.0 if "variance" in weight.name or weight.name == "gamma" else 0.0
            weight.assign(rng.uniform(middle - 0.2, middle + 0.2, weight.shape))


def normalizations(model):
    return [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


def check_same(model, folded, arrays, atol=1e-5):
    for old, new in zip(call(model, arrays), call(folded, arrays), strict=True):
        np.testing.assert_allclose(new, old, atol=atol, rtol=1e-4)


@on_every_backend
def test_a_folded_network_gives_the_same():
    config, model = nuclei_network()
    images = [nuclei_picture(count, seed=count) for count in (5, 2)]
    names = {layer.name for layer in model.layers}
    before = [ops.convert_to_numpy(weight) for weight in model.weights]
    folded = fold_batch_norm(model)
    assert normalizations(model) and not normalizations(folded)
    # The names that weights and graphs are found by are all there.
    assert {layer.name for layer in folded.layers} == names - set(normalizations(model))
    found, expected = (call(network, network_inputs(config, images)) for network in (folded, model))
    for index, count in enumerate((5, 2)):
        old, new = (in_order(outputs[0][index], outputs[3][index]) for outputs in (expected, found))
        assert len(old[0]) == count
        np.testing.assert_allclose(new[0], old[0], atol=1e-5)
        np.testing.assert_allclose(new[1], old[1], atol=1e-4)
    for index in (5, 6):  # what the RPN says
        np.testing.assert_allclose(found[index], expected[index], atol=1e-4)
    # The original is as it was: its weights, and its layers, each called where it was called.
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)
    assert model.get_layer("conv1").output.shape == folded.get_layer("conv1").output.shape
    # And the copy is one: nothing of it is the original's.
    assert not {id(weight) for weight in model.weights} & {id(weight) for weight in folded.weights}


@pytest.mark.parametrize("backbone, count", [("resnet14", 23), ("resnet50", 59), (five_convolutions, 11)])
def test_no_normalization_is_left(backbone, count):
    model = build_network(ShapesConfig.from_dict({"BACKBONE": backbone}), "inference")
    assert len(normalizations(model)) == count
    folded = fold_batch_norm(model)
    assert normalizations(folded) == []
    assert folded.count_params() == model.count_params() - sum(
        4 * layer.gamma.shape[0] for layer in model.layers if isinstance(layer, layers.BatchNormalization)
    )


def simple(build, shape=(8, 8, 3)):
    image = keras.Input(shape, name="image")
    model = keras.Model(image, build(image))
    randomize(model)
    return model


def activation_between(x):
    return layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(x))


def convolution_used_twice(x):
    x = layers.Conv2D(4, 3)(x)
    return layers.Add()([x, BatchNorm()(x)])


def convolution_that_is_an_output(x):
    x = layers.Conv2D(4, 3)(x)
    return [x, layers.BatchNormalization()(x)]


def two_after_one_convolution(x):
    conv = layers.Conv2D(3, 3, padding="same")
    x = BatchNorm(name="one")(conv(x))
    return BatchNorm(name="other")(conv(x))


def one_after_two_layers(x):
    """The same normalization follows a convolution, and the input itself."""
    norm = BatchNorm()
    return layers.Add()([norm(x), norm(layers.Conv2D(3, 3, padding="same")(x))])


def nothing_before(x):
    return BatchNorm()(x)


def statistics_of_the_batch(x):
    return BatchNorm(train_bn=True)(layers.Conv2D(4, 3)(x))


def called_in_training(x):
    return layers.BatchNormalization()(layers.Conv2D(4, 3)(x), training=True)


def over_another_axis(x):
    return layers.BatchNormalization(axis=1)(layers.Conv2D(4, 3)(x))


@on_every_backend
@pytest.mark.parametrize(
    "build",
    [activation_between, convolution_used_twice, convolution_that_is_an_output, two_after_one_convolution,
     one_after_two_layers, nothing_before, statistics_of_the_batch, called_in_training, over_another_axis],
)  # fmt: skip
def test_what_cannot_be_folded_stays(build, rng):
    model = simple(build)
    folded = fold_batch_norm(model)
    assert normalizations(folded) == normalizations(model)
    check_same(model, folded, [rng.normal(size=(2, 8, 8, 3))])


def kinds(x):
    """Each kind of layer that takes a normalization over, and normalizations without one parameter or the other."""
    x = BatchNorm(scale=False)(layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x))
    x = layers.BatchNormalization(center=False)(layers.Conv2DTranspose(5, 2, strides=2)(x))
    x = BatchNorm(train_bn=None, epsilon=0.1)(layers.Conv2D(4, 3, strides=2, dilation_rate=1, use_bias=False)(x))
    return layers.BatchNormalization(axis=-1)(layers.Dense(7)(layers.Flatten()(x)))


def shared(x):
    """A convolution and its normalization called twice stay one pair of weights."""
    conv, norm = layers.Conv2D(3, 3, padding="same"), BatchNorm()
    return norm(conv(layers.Activation("relu")(norm(conv(x)))))


def nested(x):
    """A nested model called twice, which holds a sequential one."""
    inner = keras.Input((None, None, 3))
    y = layers.Activation("relu")(BatchNorm()(layers.Conv2D(6, 3, padding="same")(inner)))
    y = keras.Sequential([keras.Input((None, None, 6)), layers.Conv2D(3, 1), layers.BatchNormalization()])(y)
    model = keras.Model(inner, [y, layers.Activation("sigmoid")(y)], name="nested")
    once, _ = model(x)
    return ops.concatenate([*model(once), 2.0 * once[:, :, :, :1]], axis=-1)


@on_every_backend
@pytest.mark.parametrize("build, weights", [(kinds, 8), (shared, 2), (nested, 4)])
def test_kinds_of_layers_and_graphs(build, weights, rng):
    model = simple(build)
    folded = fold_batch_norm(model)
    assert len(folded.weights) == weights
    check_same(model, folded, [rng.normal(size=(2, 8, 8, 3))])


@on_every_backend
def test_bfloat16_computes_where_the_mixed_policy_would():
    """Layers that declare float32 stay so, and the others hold, and not only compute, bfloat16."""
    config, model = nuclei_network()
    folded = fold_batch_norm(model, "bfloat16")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build_network(config, "inference")
    finally:
        keras.config.set_dtype_policy("float32")
    pairs = [(folded, mixed), (folded.get_layer("rpn_model"), mixed.get_layer("rpn_model"))]
    left_out = (layers.InputLayer, layers.BatchNormalization, keras.Model)
    for ours, theirs in pairs:
        found, declared = ([x for x in model.layers if not isinstance(x, left_out)] for model in (ours, theirs))
        for layer, other in zip(found, declared, strict=True):
            assert type(layer) is type(other)
            assert layer.compute_dtype == other.compute_dtype, layer.name
            assert layer.variable_dtype == layer.compute_dtype, layer.name
    assert {tensor.dtype for tensor in [*folded.inputs, *folded.outputs]} == {"float32"}
    # Rounding once, the kernel loses no more than that.
    kernel = ops.convert_to_numpy(ops.cast(folded.get_layer("conv1").kernel, "float32"))
    exact = ops.convert_to_numpy(fold_batch_norm(model).get_layer("conv1").kernel)
    np.testing.assert_allclose(kernel, exact, rtol=2**-8)


@on_every_backend
def test_boxes_of_a_bfloat16_network_are_float32():
    """A bfloat16 has 8 bits: at 1024 pixels it is wrong by pixels, so no coordinate may ever have been one."""
    config, model = nuclei_network()
    arrays = network_inputs(config, [nuclei_picture(8)])
    *_, rois, scores, deltas = call(fold_batch_norm(model, "bfloat16"), arrays)
    decoded = decode_deltas(arrays[2], deltas * np.asarray(config.RPN_BBOX_STD_DEV, np.float32))
    decoded = clip_boxes(decoded, np.array([0, 0, 1, 1], np.float32))[0]
    rois = rois[0][np.any(rois[0] != 0, axis=-1)]

    def pixels_off(boxes):
        return 1023 * np.abs(boxes[:, None] - decoded[None]).max(axis=-1).min(axis=-1).max()

    rounded = ops.convert_to_numpy(ops.cast(ops.cast(ops.convert_to_tensor(rois), "bfloat16"), "float32"))
    print(f"{len(rois)} proposals, pixels off at 1024: {pixels_off(rois):.2g}, in bfloat16 {pixels_off(rounded):.2g}")
    assert pixels_off(rois) < 1e-3
    assert pixels_off(rounded) > 1
    assert deltas.dtype == scores.dtype == np.float32


@on_every_backend
def test_a_normalization_kept_in_bfloat16_keeps_its_statistics(rng):
    model = simple(nothing_before)
    folded = fold_batch_norm(model, "bfloat16")
    for old, new in zip(model.weights, folded.weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(new), ops.convert_to_numpy(old))
    check_same(model, folded, [rng.normal(size=(2, 8, 8, 3))], atol=0.05)
    assert folded.outputs[0].dtype == "bfloat16"


def test_what_is_not_a_functional_network_is_refused():
    with pytest.raises(ValueError, match=r"functional keras\.Model\. Received: <"):
        fold_batch_norm(layers.Dense(3))
    with pytest.raises(ValueError, match=r"bfloat16.*Received: 'int8'"):
        fold_batch_norm(simple(nothing_before), "int8")
