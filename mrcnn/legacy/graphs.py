"""The graph builders of the original: parts of the network, with its layer names, on Keras tensors.

Letters: B images, A anchors, R rois, C channels, K classes (0 is background). Boxes (y1, x1, y2, x2), *normalized*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from mrcnn.config import Config
from mrcnn.layers import resnet, roi_heads, rpn
from mrcnn.legacy.layers import PyramidROIAlign

Sides = int | Sequence[int]


def compute_backbone_shapes(config: Config, image_shape: Sequence[int]) -> Any:
    """Height and width of each pyramid level, int [levels, 2], for a molded image of `image_shape` (height, width,
    ...)."""
    return config.backbone_shapes(image_shape)


def identity_block(
    input_tensor: Any,
    kernel_size: Sides,
    filters: Sequence[int],
    stage: int,
    block: str,
    use_bias: bool = True,
    train_bn: bool | None = True,
) -> Any:
    """A bottleneck block whose shortcut is its input [B, H, W, C], C being the last of `filters`.

    Args:
        input_tensor: [B, H, W, C].
        kernel_size: of the middle convolution.
        filters: of the three convolutions.
        stage, block: 2 and "b" name the layers `res2b_branch...`.
        use_bias: of the convolutions.
        train_bn: see `mrcnn.layers.normalization.BatchNorm`.
    """
    first, second, outer = filters
    return resnet.bottleneck(
        input_tensor, (first, second), outer, f"{stage}{block}", train_bn, kernel_size=kernel_size, use_bias=use_bias
    )


def conv_block(
    input_tensor: Any,
    kernel_size: Sides,
    filters: Sequence[int],
    stage: int,
    block: str,
    strides: Sides = (2, 2),
    use_bias: bool = True,
    train_bn: bool | None = True,
) -> Any:
    """A bottleneck block whose shortcut is a 1x1 convolution; `strides` are those of the shortcut and of the first
    convolution. The other arguments: see `identity_block`."""
    first, second, outer = filters
    return resnet.bottleneck(
        input_tensor, (first, second), outer, f"{stage}{block}", train_bn,
        strides=strides, project=True, kernel_size=kernel_size, use_bias=use_bias,
    )  # fmt: skip


def resnet_graph(input_image: Any, architecture: str, stage5: bool = False, train_bn: bool | None = True) -> list[Any]:
    """A ResNet: image [B, H, W, C] -> [C1, C2, C3, C4, C5]; C5 is None without `stage5`.

    Args:
        input_image: H and W multiples of 32.
        architecture: "resnet50" or "resnet101" (or "resnet14", the small one).
        stage5: whether to build the last stage.
        train_bn: see `mrcnn.layers.normalization.BatchNorm`.

    Raises:
        ValueError: an unknown architecture.
    """
    if architecture not in resnet.BACKBONES:
        raise ValueError(f"architecture must be one of {', '.join(resnet.BACKBONES)}. Received: {architecture!r}.")
    return resnet.BACKBONES[architecture](input_image, stage5=stage5, train_bn=train_bn)


def rpn_graph(feature_map: Any, anchors_per_location: int, anchor_stride: int) -> list[Any]:
    """The region proposal network on one feature map [B, H, W, C]: class logits [B, A, 2], class probabilities
    [B, A, 2], deltas [B, A, 4]."""
    return rpn.rpn_head(feature_map, anchor_stride, anchors_per_location)


def build_rpn_model(anchor_stride: int, anchors_per_location: int, depth: int) -> keras.Model:
    """The region proposal network as a model, to be shared by all levels; `depth` is their number of channels. Its
    outputs are those of `rpn_graph`."""
    feature_map = keras.layers.Input((None, None, depth), name="input_rpn_feature_map")
    # Of one input in a list, for that is how scripts call it.
    return keras.Model([feature_map], rpn_graph(feature_map, anchors_per_location, anchor_stride), name="rpn_model")


def fpn_classifier_graph(
    rois: Any,
    feature_maps: Sequence[Any],
    image_meta: Any,
    pool_size: int,
    num_classes: int,
    train_bn: bool | None = True,
    fc_layers_size: int = 1024,
) -> tuple[Any, Any, Any]:
    """Class and box of each ROI.

    Args:
        rois: [B, R, 4], R known.
        feature_maps: [P2, P3, P4, P5], each [B, H, W, C].
        image_meta: [B, 12 + K].
        pool_size: side of the features cut out for a ROI.
        num_classes: K.
        train_bn: see `mrcnn.layers.normalization.BatchNorm`.
        fc_layers_size: width of the hidden layers.

    Returns:
        logits [B, R, K], probabilities [B, R, K], deltas [B, R, K, 4].
    """
    pooled = PyramidROIAlign([pool_size, pool_size], name="roi_align_classifier")([rois, image_meta, *feature_maps])
    return roi_heads.classifier_head(_counted(pooled), num_classes, train_bn, fc_layers_size)


def build_fpn_mask_graph(
    rois: Any,
    feature_maps: Sequence[Any],
    image_meta: Any,
    pool_size: int,
    num_classes: int,
    train_bn: bool | None = True,
) -> Any:
    """A mask of each ROI for each class: probabilities [B, R, 2 pool_size, 2 pool_size, K]. Arguments as for
    `fpn_classifier_graph`."""
    pooled = PyramidROIAlign([pool_size, pool_size], name="roi_align_mask")([rois, image_meta, *feature_maps])
    return roi_heads.mask_head(_counted(pooled), num_classes, train_bn)


def _counted(pooled: Any) -> Any:
    if pooled.shape[1] is None:
        raise ValueError(
            f"The number of ROIs must be known: Input((count, 4)), not Input((None, 4)). Received: {pooled.shape}."
        )
    return pooled
