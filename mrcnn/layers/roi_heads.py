"""What is done with each region: ROIAlign, the classifier and box head, the mask head (Mask R-CNN, figure 4).

Letters: B images, R rois, C channels, K classes (0 is background). Boxes (y1, x1, y2, x2), *normalized*.

The heads fold the ROIs of all images into one batch axis, so that their layers are plain ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from mrcnn.layers.normalization import BatchNorm
from mrcnn.ops.roi_align import pyramid_roi_align


@keras.saving.register_keras_serializable("mrcnn")
class PyramidROIAlign(layers.Layer):
    """Features of a fixed size for each box, out of the pyramid level that fits its size (FPN, equation 1).

    Args:
        pool_shape: (height, width) of the result.
    """

    def __init__(self, pool_shape: Sequence[int], **kwargs: Any) -> None:
        # Coordinates are to stay float32 whatever the precision: a bfloat16 cannot tell neighboring pixels apart.
        super().__init__(**{"autocast": False, **kwargs})
        self.pool_shape = [int(side) for side in pool_shape]

    def call(self, boxes: Any, image_shape: Any, feature_maps: Sequence[Any]) -> Any:
        """boxes [B, R, 4], image_shape [B, >=2] (height, width) in pixels, feature_maps P2..P5 [B, H, W, C] ->
        [B, R, pool height, pool width, C]."""
        area = image_shape[:, 0:1] * image_shape[:, 1:2]
        return pyramid_roi_align(boxes, area, feature_maps, self.pool_shape)

    def compute_output_spec(self, boxes: Any, image_shape: Any, feature_maps: Sequence[Any]) -> Any:
        return keras.KerasTensor((*boxes.shape[:2], *self.pool_shape, feature_maps[0].shape[-1]), feature_maps[0].dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pool_shape": self.pool_shape}


def classifier_head(
    pooled: Any, num_classes: int, train_bn: bool | None = False, hidden_size: int = 1024
) -> tuple[Any, Any, Any]:
    """Which class each ROI is, and how its box should move for each class.

    Args:
        pooled: [B, R, h, w, C], R known.
        num_classes: K.
        train_bn: see `BatchNorm`.
        hidden_size: width of the two hidden layers.

    Returns:
        logits [B, R, K], probabilities [B, R, K], deltas [B, R, K, 4].
    """
    rois, size = pooled.shape[1], pooled.shape[2:4]
    x = ops.reshape(pooled, (-1, *pooled.shape[2:]))
    x = layers.Conv2D(hidden_size, size, name="mrcnn_class_conv1")(x)
    x = layers.Activation("relu")(BatchNorm(train_bn, name="mrcnn_class_bn1")(x))
    x = layers.Conv2D(hidden_size, 1, name="mrcnn_class_conv2")(x)
    x = layers.Activation("relu")(BatchNorm(train_bn, name="mrcnn_class_bn2")(x))
    x = ops.reshape(x, (-1, rois, hidden_size))
    logits = layers.Dense(num_classes, name="mrcnn_class_logits", dtype="float32")(x)
    probabilities = layers.Softmax(name="mrcnn_class", dtype="float32")(logits)
    deltas = layers.Dense(4 * num_classes, name="mrcnn_bbox_fc", dtype="float32")(x)
    deltas = layers.Reshape((rois, num_classes, 4), name="mrcnn_bbox", dtype="float32")(deltas)
    return logits, probabilities, deltas


def mask_head(pooled: Any, num_classes: int, train_bn: bool | None = False, width: int = 256) -> Any:
    """A mask of each ROI for each class.

    Args:
        pooled: [B, R, h, w, C], R known.
        num_classes: K.
        train_bn: see `BatchNorm`.
        width: channels of the convolutions.

    Returns:
        Probabilities [B, R, 2h, 2w, K].
    """
    rois, (height, side) = pooled.shape[1], pooled.shape[2:4]
    x = ops.reshape(pooled, (-1, *pooled.shape[2:]))
    for index in range(1, 5):
        x = layers.Conv2D(width, 3, padding="same", name=f"mrcnn_mask_conv{index}")(x)
        x = layers.Activation("relu")(BatchNorm(train_bn, name=f"mrcnn_mask_bn{index}")(x))
    x = layers.Conv2DTranspose(width, 2, strides=2, activation="relu", name="mrcnn_mask_deconv")(x)
    x = layers.Conv2D(num_classes, 1, activation="sigmoid", name="mrcnn_mask", dtype="float32")(x)
    return ops.reshape(x, (-1, rois, 2 * height, 2 * side, num_classes))
