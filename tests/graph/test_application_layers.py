"""Layers that networks of keras.applications have as ONNX nodes, one kind at a time."""

from __future__ import annotations

import keras
import pytest
from keras import layers
from keras.src.applications.convnext import LayerScale

import mrcnn.graph.application_layers  # noqa: F401 - makes its layers known
from mrcnn.engines.base import EngineError
from tests.graph.test_keras_layers import ODD_AND_EVEN, check, convert

KINDS = {
    "layer normalization": lambda x: layers.LayerNormalization(epsilon=1e-6)(x),
    "layer normalization bare": lambda x: layers.LayerNormalization(axis=[-1], center=False, scale=False)(x),
    "layer normalization of vectors": lambda x: layers.LayerNormalization()(layers.GlobalAveragePooling2D()(x)),
    "layer scale": lambda x: LayerScale(0.5, 3)(x),
    "layer scale of vectors": lambda x: LayerScale(0.5, 3)(layers.GlobalAveragePooling2D()(x)),
    "separable": lambda x: layers.SeparableConv2D(4, 3, strides=2, padding="same", depth_multiplier=2)(x),
    "separable bare": lambda x: layers.SeparableConv2D(4, 3, use_bias=False, activation="relu")(x),
    "hard sigmoid of numbers": lambda x: layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0),
    "sum of tensors": lambda x: x + layers.Activation("tanh")(x),
    "product of tensors": lambda x: layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_layers(kind):
    check(KINDS[kind], ODD_AND_EVEN)


def test_what_has_no_form():
    image = keras.Input((4, 4, 3), name="image")
    with pytest.raises(
        EngineError, match=r"'rows': layer normalization has an ONNX form here along the last axis.*axis .1. of 4"
    ):
        convert(keras.Model(image, layers.LayerNormalization(axis=1, name="rows")(image)))
    with pytest.raises(EngineError, match="combines a tensor with a number or one of another rank"):
        convert(keras.Model(image, image + keras.ops.ones((4, 4, 3))))
