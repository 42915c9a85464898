"""Keras layers as ONNX nodes, one kind at a time."""

from __future__ import annotations

import keras
import numpy as np
import openvino
import pytest
from keras import layers, ops

from mrcnn.engines.base import EngineError
from mrcnn.graph.builder import GraphBuilder
from mrcnn.graph.keras_layers import KerasGraph
from mrcnn.layers.normalization import BatchNorm


def randomize(model):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "seed" not in weight.path:
            middle = 1.0 if weight.name in ("gamma", "variance") or "variance" in weight.name else 0.0
            weight.assign(rng.uniform(middle - 0.5, middle + 0.5, weight.shape))


def convert(model):
    """The ONNX model of a Keras model of one image input and one output of rank 4 or 2, channels last outside."""
    graph = GraphBuilder()
    walk = KerasGraph(graph, [(model.inputs[0], graph.Transpose("image", perm=[0, 3, 1, 2]))])
    name = walk.tensor(model.outputs[0])
    rank = len(model.outputs[0].shape)
    graph.rename(graph.Transpose(name, perm=[0, 2, 3, 1]) if rank == 4 else name, "result")
    return graph.model({"image": ("B", "h", "w", 3)}, {"result": (np.float32, [None] * rank)}).SerializeToString()


def check(build, shapes=((2, 16, 24), (1, 17, 9))):
    image = keras.Input((None, None, 3), name="image")
    model = keras.Model(image, build(image))
    randomize(model)
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(convert(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    rng = np.random.default_rng(1)
    for shape in shapes:
        x = rng.normal(0, 2, (*shape, 3)).astype(np.float32)
        expected = ops.convert_to_numpy(model(x, training=False))
        np.testing.assert_allclose(compiled([x])[0], expected, atol=2e-5, rtol=1e-4)


ODD_AND_EVEN = ((1, 16, 24), (1, 17, 9), (1, 7, 12))

SIMPLE = {
    "conv": lambda x: layers.Conv2D(4, 3, padding="same")(x),
    "conv valid": lambda x: layers.Conv2D(4, 3, strides=2, use_bias=False, activation="relu")(x),
    "conv strided same": lambda x: layers.Conv2D(4, 3, strides=2, padding="same")(x),
    "conv even kernel": lambda x: layers.Conv2D(4, 4, padding="same")(x),
    "conv even kernel strided": lambda x: layers.Conv2D(4, (2, 5), strides=(2, 3), padding="same")(x),
    "conv dilated": lambda x: layers.Conv2D(4, 3, dilation_rate=2, padding="same")(x),
    "conv groups": lambda x: layers.Conv2D(6, 3, groups=3)(x),
    "depthwise": lambda x: layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same")(x),
    "transposed": lambda x: layers.Conv2DTranspose(5, 2, strides=2, activation="relu")(x),
    "dense on maps": lambda x: layers.Dense(4, activation="tanh")(x),
    "batch norm": lambda x: layers.BatchNormalization()(x),
    "batch norm bare": lambda x: BatchNorm(scale=False, center=False)(x),
    "padding": lambda x: layers.ZeroPadding2D(((1, 2), (0, 3)))(x),
    "cropping": lambda x: layers.Cropping2D(((1, 2), (0, 3)))(x),
    "cropping none": lambda x: layers.Cropping2D(((0, 0), (2, 0)))(x),
    "max pool": lambda x: layers.MaxPooling2D(3, strides=2, padding="same")(x),
    "max pool valid": lambda x: layers.MaxPooling2D(2)(x),
    "every second": lambda x: layers.MaxPooling2D(1, strides=2)(x),
    "average pool": lambda x: layers.AveragePooling2D(3, strides=2, padding="same")(x),
    "global average": lambda x: layers.GlobalAveragePooling2D()(x),
    "global max": lambda x: layers.GlobalMaxPooling2D(keepdims=True)(x),
    "nearest": lambda x: layers.UpSampling2D((2, 3))(x),
    "bilinear": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
    "rescaling": lambda x: layers.Rescaling(0.5, offset=-1)(x),
    "normalization": lambda x: layers.Normalization(mean=[1.0, 2, 3], variance=[1.0, 4, 9])(x),
    "normalization back": lambda x: layers.Normalization(mean=[1.0, 2, 3], variance=[1.0, 4, 9], invert=True)(x),
    "concatenate": lambda x: layers.Concatenate()([x, layers.Activation("relu")(x)]),
    "concatenate rows": lambda x: layers.Concatenate(axis=1)([x, x]),
    "add": lambda x: layers.Add()([x, layers.Activation("tanh")(x), x]),
    "subtract": lambda x: layers.Subtract()([x, layers.Activation("tanh")(x)]),
    "multiply": lambda x: layers.Multiply()([x, layers.Activation("sigmoid")(x)]),
    "maximum": lambda x: layers.Maximum()([x, layers.Activation("sigmoid")(x)]),
    "minimum": lambda x: layers.Minimum()([x, layers.Activation("sigmoid")(x)]),
    "average": lambda x: layers.Average()([x, layers.Activation("relu")(x)]),
    "dropout": lambda x: layers.Identity()(layers.GaussianNoise(1.0)(layers.Dropout(0.5)(x))),
    "relu6": lambda x: layers.ReLU(max_value=6)(x),
    "leaky relu": lambda x: layers.LeakyReLU(0.2)(x),
    "elu": lambda x: layers.ELU()(x),
    "softmax": lambda x: layers.Softmax()(x),
    "reshape": lambda x: layers.Reshape((1, 1, 3))(layers.GlobalAveragePooling2D()(x)),
    "dense": lambda x: layers.Dense(4, activation="relu")(layers.GlobalAveragePooling2D()(x)),
}  # fmt: skip


@pytest.mark.parametrize("kind", SIMPLE)
def test_one_layer(kind):
    check(SIMPLE[kind], ODD_AND_EVEN)


@pytest.mark.parametrize(
    "name",
    ["relu", "relu6", "sigmoid", "tanh", "silu", "swish", "hard_sigmoid", "hard_silu", "hard_swish", "elu", "softplus",
     "gelu", "linear"],
)  # fmt: skip
def test_activations(name):
    check(layers.Activation(name))


def test_layers_that_are_shared_and_models_that_are_nested():
    def build(x):
        inner = keras.Input((None, None, 4))
        nested = keras.Model(inner, layers.Activation("relu")(layers.Conv2D(4, 3, padding="same")(inner)))
        conv = layers.Conv2D(4, 1)
        return layers.Add()([nested(conv(x)), nested(nested(conv(layers.Activation("tanh")(x))))])

    check(build)


def strange(x):
    return layers.UnitNormalization(name="strange")(x)


def odd_transposed(x):
    return layers.Conv2DTranspose(4, 3, strides=2, name="strange")(x)


def odd_resize(x):
    return layers.UpSampling2D(2, interpolation="bicubic", name="strange")(x)


def odd_activation(x):
    return layers.Conv2D(2, 1, activation="mish", name="strange")(x)


def odd_axis(x):
    return layers.BatchNormalization(axis=1, name="strange")(keras.ops.reshape(x, (-1, 3, 3, 3)))


class Standardized(layers.Conv2D):
    """Computes something else than what it is derived from."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - ops.mean(kernel))


class Narrow(layers.Conv2D):
    """Computes the same as what it is derived from."""

    def __init__(self, **kwargs):
        super().__init__(2, 3, **kwargs)


class Rescaling(layers.Layer):
    """Has a known layer's name, and is another."""

    def call(self, x):
        return x - 1


def derived(x):
    return Standardized(4, 3, name="strange")(x)


def namesake(x):
    return Rescaling(name="strange")(x)


def test_a_derived_layer_that_computes_the_same():
    check(lambda x: Narrow()(x))


@pytest.mark.parametrize("build", [strange, odd_transposed, odd_resize, odd_activation, odd_axis, derived, namesake])
def test_what_has_no_form_is_refused_by_name(build):
    image = keras.Input((None, None, 3))
    with pytest.raises(EngineError, match="'strange'"):
        convert(keras.Model(image, build(image)))


def test_channels_first_is_refused():
    image = keras.Input((None, None, 3))
    conv = layers.Conv2D(2, 1, name="strange", data_format="channels_last")
    model = keras.Model(image, conv(image))
    conv.data_format = "channels_first"
    with pytest.raises(EngineError, match="'strange'"):
        convert(model)
