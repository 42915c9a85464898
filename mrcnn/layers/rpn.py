"""The region proposal network: objectness and box deltas for every anchor (Faster R-CNN, section 3.1).

Letters: B images, A anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops


def build_rpn_model(anchor_stride: int, anchors_per_location: int, depth: int, conv_size: int = 512) -> keras.Model:
    """The network that all levels share, as the nested model `rpn_model`.

    Args:
        anchor_stride: 1 for anchors at every cell, 2 for every second one.
        anchors_per_location: the number of ratios.
        depth: channels of the pyramid.
        conv_size: channels of the shared convolution.

    Returns:
        A model: feature map [B, H, W, depth] -> class logits [B, A, 2] (background, foreground), class probabilities
        [B, A, 2], deltas [B, A, 4].
    """
    feature_map = layers.Input((None, None, depth), name="input_rpn_feature_map")
    outputs = rpn_head(feature_map, anchor_stride, anchors_per_location, conv_size)
    return keras.Model(feature_map, outputs, name="rpn_model")


def rpn_head(feature_map: Any, anchor_stride: int, anchors_per_location: int, conv_size: int = 512) -> list[Any]:
    """The layers of `build_rpn_model`, on one feature map; arguments and results as there."""
    shared = layers.Conv2D(
        conv_size, 3, strides=anchor_stride, padding="same", activation="relu", name="rpn_conv_shared"
    )(feature_map)
    # float32 whatever the precision of the rest: proposals are ranked by these, and ties would abound.
    if shared.dtype != "float32":
        shared = ops.cast(shared, "float32")  # once, and not in each of the two
    logits = layers.Conv2D(2 * anchors_per_location, 1, dtype="float32", name="rpn_class_raw")(shared)
    logits = layers.Reshape((-1, 2), dtype="float32")(logits)
    probabilities = layers.Softmax(dtype="float32", name="rpn_class_xxx")(logits)
    deltas = layers.Conv2D(4 * anchors_per_location, 1, dtype="float32", name="rpn_bbox_pred")(shared)
    deltas = layers.Reshape((-1, 4), dtype="float32")(deltas)
    return [logits, probabilities, deltas]


def region_proposal_network(
    feature_maps: Sequence[Any], anchor_stride: int, anchors_per_location: int, conv_size: int = 512
) -> tuple[Any, Any, Any]:
    """Class logits [B, A, 2], class probabilities [B, A, 2] and deltas [B, A, 4] over all levels, finest first."""
    rpn = build_rpn_model(anchor_stride, anchors_per_location, feature_maps[0].shape[-1], conv_size)
    outputs = zip(*(rpn(feature_map) for feature_map in feature_maps), strict=True)
    names = ("rpn_class_logits", "rpn_class", "rpn_bbox")
    logits, probabilities, deltas = (
        layers.Concatenate(axis=1, name=name, dtype="float32")(list(levels))
        for name, levels in zip(names, outputs, strict=True)
    )
    return logits, probabilities, deltas
