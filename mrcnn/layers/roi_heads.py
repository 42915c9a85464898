"""What is done with each region: ROIAlign, the classifier and box head, the mask head (Mask R-CNN, figure 4).

Letters: B images, R rois, C channels, K classes (0 is background). Boxes (y1, x1, y2, x2), *normalized*.

The heads fold the ROIs of all images into one batch axis, so that their layers are plain ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from mrcnn.layers.normalization import NO_NORM, Norm
from mrcnn.ops.roi_align import pyramid_roi_align
from mrcnn.ops.sampled_roi_align import sampled_roi_align


@keras.saving.register_keras_serializable("mrcnn")
class PyramidROIAlign(layers.Layer):
    """Features of a fixed size for each box, out of the pyramid level that fits its size (FPN, equation 1).

    Args:
        pool_shape: (height, width) of the result.
        align: "legacy": TensorFlow's crop-and-resize, on boxes of the legacy grid. "aligned" and "unaligned": see
            `mrcnn.ops.sampled_roi_align`, as is
        sampling_ratio.
        level_rule: see `pyramid_levels`; "round" for "legacy".
    """

    def __init__(
        self,
        pool_shape: Sequence[int],
        align: str = "legacy",
        sampling_ratio: int = 2,
        level_rule: str = "round",
        **kwargs: Any,
    ) -> None:
        # Coordinates are to stay float32 whatever the precision: a bfloat16 cannot tell neighboring pixels apart.
        super().__init__(**{"autocast": False, **kwargs})
        self.pool_shape = [int(side) for side in pool_shape]
        self.align = align
        self.sampling_ratio = sampling_ratio
        self.level_rule = level_rule

    def call(self, boxes: Any, image_shape: Any, feature_maps: Sequence[Any]) -> Any:
        """boxes [B, R, 4], image_shape [B, >=2] (height, width) in pixels, feature_maps P2..P5 [B, H, W, C] ->
        [B, R, pool height, pool width, C]."""
        return self.cut(boxes, image_shape[:, 0:1] * image_shape[:, 1:2], feature_maps)

    def cut(self, boxes: Any, image_area: Any, feature_maps: Sequence[Any], image: Any = None) -> Any:
        """As `call`, with what `pyramid_roi_align` takes."""
        if self.align == "legacy":
            return pyramid_roi_align(boxes, image_area, feature_maps, self.pool_shape, image)
        return sampled_roi_align(
            boxes, image_area, feature_maps, self.pool_shape, image, aligned=self.align == "aligned",
            sampling_ratio=self.sampling_ratio, level_rule=self.level_rule,
        )  # fmt: skip

    def compute_output_spec(self, boxes: Any, image_shape: Any, feature_maps: Sequence[Any]) -> Any:
        return keras.KerasTensor((*boxes.shape[:2], *self.pool_shape, feature_maps[0].shape[-1]), feature_maps[0].dtype)

    def get_config(self) -> dict[str, Any]:
        names = ("pool_shape", "align", "sampling_ratio", "level_rule")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def classifier_head(
    pooled: Any,
    num_classes: int,
    train_bn: bool | None = False,
    hidden_size: int = 1024,
    *,
    hidden_layers: int = 2,
    hidden_norm: Norm | None = None,
    convs: int = 0,
    conv_size: int = 256,
    conv_norm: Norm = NO_NORM,
    use_bias: bool = True,
) -> tuple[Any, Any, Any]:
    """Which class each ROI is, and how its box should move for each class.

    Args:
        pooled: [B, R, h, w, C], R known.
        num_classes: K.
        train_bn: see `BatchNorm`; without `hidden_norm`.
        hidden_size: width of the hidden layers, which see the whole region.
        hidden_layers: how many of these: 1 or 2.
        hidden_norm: the normalization behind them; None: the original's, with `train_bn`.
        convs: 3x3 convolutions before them.
        conv_size: their width.
        conv_norm: the normalization behind these.
        use_bias: whether layers that are normalized have a bias; the others do.

    Returns:
        logits [B, R, K], probabilities [B, R, K], deltas [B, R, K, 4].
    """
    rois, size = pooled.shape[1], pooled.shape[2:4]
    hidden_norm = Norm("batch", train_bn) if hidden_norm is None else hidden_norm
    x = ops.reshape(pooled, (-1, *pooled.shape[2:]))
    for index in range(1, convs + 1):
        bias = use_bias or not conv_norm
        x = layers.Conv2D(conv_size, 3, padding="same", use_bias=bias, name=f"mrcnn_box_conv{index}")(x)
        x = layers.Activation("relu")(conv_norm.after(x, f"mrcnn_box_bn{index}"))
    # As convolutions with kernels of the region's size, by which a fully connected layer is known in old weights.
    bias = use_bias or not hidden_norm
    for index in range(1, hidden_layers + 1):
        kernel = size if index == 1 else 1
        x = layers.Conv2D(hidden_size, kernel, use_bias=bias, name=f"mrcnn_class_conv{index}")(x)
        x = layers.Activation("relu")(hidden_norm.after(x, f"mrcnn_class_bn{index}"))
    x = ops.reshape(x, (-1, rois, hidden_size))
    logits = layers.Dense(num_classes, name="mrcnn_class_logits", dtype="float32")(x)
    probabilities = layers.Softmax(name="mrcnn_class", dtype="float32")(logits)
    deltas = layers.Dense(4 * num_classes, name="mrcnn_bbox_fc", dtype="float32")(x)
    deltas = layers.Reshape((rois, num_classes, 4), name="mrcnn_bbox", dtype="float32")(deltas)
    return logits, probabilities, deltas


def mask_head(
    pooled: Any,
    num_classes: int,
    train_bn: bool | None = False,
    width: int = 256,
    *,
    norm: Norm | None = None,
    use_bias: bool = True,
) -> Any:
    """A mask of each ROI for each class.

    Args:
        pooled: [B, R, h, w, C], R known.
        num_classes: K.
        train_bn: see `BatchNorm`; without `norm`.
        width: channels of the convolutions.
        norm: the normalization behind each 3x3 convolution; None: the original's, with `train_bn`.
        use_bias: whether convolutions that are normalized have a bias; the others do.

    Returns:
        Probabilities [B, R, 2h, 2w, K].
    """
    rois, (height, side) = pooled.shape[1], pooled.shape[2:4]
    norm = Norm("batch", train_bn) if norm is None else norm
    x = ops.reshape(pooled, (-1, *pooled.shape[2:]))
    for index in range(1, 5):
        bias = use_bias or not norm
        x = layers.Conv2D(width, 3, padding="same", use_bias=bias, name=f"mrcnn_mask_conv{index}")(x)
        x = layers.Activation("relu")(norm.after(x, f"mrcnn_mask_bn{index}"))
    x = layers.Conv2DTranspose(width, 2, strides=2, activation="relu", name="mrcnn_mask_deconv")(x)
    x = layers.Conv2D(num_classes, 1, activation="sigmoid", name="mrcnn_mask", dtype="float32")(x)
    return ops.reshape(x, (-1, rois, 2 * height, 2 * side, num_classes))
