"""Backbones that only tests use."""

from __future__ import annotations

from typing import Any

from keras import layers

from mrcnn.layers.normalization import BatchNorm


def five_convolutions(image: Any, stage5: bool = True, train_bn: bool | None = False) -> list[Any]:
    """The backbone of tests/data/tiny_keras_weights.h5: one 3x3 convolution of stride 2 for each of C1..C5."""
    features = []
    names = ["conv1", "res2a_branch2a", "res3a_branch2a", "res4a_branch2a", "res5a_branch2a"]
    x = image
    for name, width in zip(names, (8, 8, 8, 16, 16), strict=True):
        x = layers.Conv2D(width, 3, strides=2, padding="same", name=name)(x)
        x = BatchNorm(train_bn, name="bn_conv1" if name == "conv1" else name.replace("res", "bn"))(x)
        x = layers.Activation("relu")(x)
        features.append(x)
    return features
