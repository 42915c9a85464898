"""A backbone of five convolutions in place of a ResNet, as a callable BACKBONE and its COMPUTE_BACKBONE_SHAPE.

COMPAT_BACKBONE=resnet50 in the environment puts the ResNet back.
"""

import math
import os

import keras.layers as KL
import numpy as np

import mrcnn.model as modellib
from mrcnn.config import Config

NAMES = ["conv1", "res2a_branch2a", "res3a_branch2a", "res4a_branch2a", "res5a_branch2a"]
FILTERS = [8, 8, 8, 16, 16]


def build(input_image, stage5=True, train_bn=None):
    """[C1, C2, C3, C4, C5], each half as large as the one before."""
    stages = []
    x = input_image
    for name, filters in zip(NAMES, FILTERS, strict=True):
        x = KL.Conv2D(filters, (3, 3), strides=(2, 2), padding="same", name=name)(x)
        bn_name = "bn_conv1" if name == "conv1" else name.replace("res", "bn")
        x = modellib.BatchNorm(name=bn_name)(x, training=train_bn)
        x = KL.Activation("relu")(x)
        stages.append(x)
    return stages if stage5 else [*stages[:4], None]


def shapes(image_shape):
    """Height and width of P2..P6."""
    return np.array([[math.ceil(image_shape[0] / s), math.ceil(image_shape[1] / s)] for s in (4, 8, 16, 32, 64)])


class BackboneConfig(Config):
    BACKBONE = os.environ.get("COMPAT_BACKBONE", staticmethod(build))
    COMPUTE_BACKBONE_SHAPE = None if "COMPAT_BACKBONE" in os.environ else staticmethod(shapes)
