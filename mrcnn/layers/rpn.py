"""The region proposal network: objectness and box deltas for every anchor (Faster R-CNN, section 3.1).

Letters: B images, A anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

OBJECTNESS = {"softmax": 2, "sigmoid": 1}  # numbers for each anchor


def build_rpn_model(
    anchor_stride: int,
    anchors_per_location: int,
    depth: int,
    conv_size: int = 512,
    conv_depth: int = 1,
    objectness: str = "softmax",
) -> keras.Model:
    """The network that all levels share, as the nested model `rpn_model`.

    Args:
        anchor_stride: 1 for anchors at every cell, 2 for every second one.
        anchors_per_location: the number of ratios.
        depth: channels of the pyramid.
        conv_size: channels of the shared convolutions.
        conv_depth: how many of these there are: `rpn_conv_shared`, `rpn_conv_shared2`, ...
        objectness: "softmax": two numbers for each anchor, background and foreground; "sigmoid": one.

    Returns:
        A model: feature map [B, H, W, depth] -> class logits [B, A, 2] (background, foreground), class probabilities
        [B, A, 2], deltas [B, A, 4]. With "sigmoid" [B, A, 1], the foreground, in place of [B, A, 2].
    """
    feature_map = layers.Input((None, None, depth), name="input_rpn_feature_map")
    outputs = rpn_head(feature_map, anchor_stride, anchors_per_location, conv_size, conv_depth, objectness)
    return keras.Model(feature_map, outputs, name="rpn_model")


def rpn_head(
    feature_map: Any,
    anchor_stride: int,
    anchors_per_location: int,
    conv_size: int = 512,
    conv_depth: int = 1,
    objectness: str = "softmax",
) -> list[Any]:
    """The layers of `build_rpn_model`, on one feature map; arguments and results as there."""
    shared = feature_map
    for index in range(1, conv_depth + 1):
        shared = layers.Conv2D(
            conv_size, 3, strides=anchor_stride if index == 1 else 1, padding="same", activation="relu",
            name="rpn_conv_shared" + (str(index) if index > 1 else ""),
        )(shared)  # fmt: skip
    # float32 whatever the precision of the rest: proposals are ranked by these, and ties would abound.
    if shared.dtype != "float32":
        shared = ops.cast(shared, "float32")  # once, and not in each of the two
    numbers = OBJECTNESS[objectness]
    logits = layers.Conv2D(numbers * anchors_per_location, 1, dtype="float32", name="rpn_class_raw")(shared)
    logits = layers.Reshape((-1, numbers), dtype="float32")(logits)
    if objectness == "softmax":
        probabilities = layers.Softmax(dtype="float32", name="rpn_class_xxx")(logits)
    else:
        probabilities = layers.Activation("sigmoid", dtype="float32", name="rpn_class_xxx")(logits)
    deltas = layers.Conv2D(4 * anchors_per_location, 1, dtype="float32", name="rpn_bbox_pred")(shared)
    deltas = layers.Reshape((-1, 4), dtype="float32")(deltas)
    return [logits, probabilities, deltas]


def region_proposal_network(
    feature_maps: Sequence[Any],
    anchor_stride: int,
    anchors_per_location: int,
    conv_size: int = 512,
    conv_depth: int = 1,
    objectness: str = "softmax",
) -> tuple[Any, Any, Any, list[Any]]:
    """Class logits [B, A, 2], class probabilities [B, A, 2] and deltas [B, A, 4] over all levels, finest first, and the
    logits of each level; see `build_rpn_model`."""
    depth = feature_maps[0].shape[-1]
    rpn = build_rpn_model(anchor_stride, anchors_per_location, depth, conv_size, conv_depth, objectness)
    outputs = list(zip(*(rpn(feature_map) for feature_map in feature_maps), strict=True))
    names = ("rpn_class_logits", "rpn_class", "rpn_bbox")
    logits, probabilities, deltas = (
        layers.Concatenate(axis=1, name=name, dtype="float32")(list(levels))
        for name, levels in zip(names, outputs, strict=True)
    )
    return logits, probabilities, deltas, list(outputs[0])
