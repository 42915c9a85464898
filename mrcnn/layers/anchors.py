"""Anchors as a constant of the training graph. Letters: B images, A anchors; boxes *normalized*."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.ops.anchors import generate_pyramid_anchors
from mrcnn.ops.boxes import normalize_boxes


@keras.saving.register_keras_serializable("mrcnn")
class Anchors(keras.layers.Layer):
    """The anchors of a fixed image size, repeated for each image of the batch.

    Args:
        scales, ratios, feature_shapes, feature_strides, anchor_stride, rounded: see `generate_pyramid_anchors`.
        image_shape: (height, width) in pixels.
        grid: see `normalize_boxes`.
    """

    def __init__(
        self,
        scales: Sequence[float],
        ratios: Sequence[float],
        feature_shapes: Any,
        feature_strides: Sequence[Any],
        anchor_stride: int,
        image_shape: Sequence[int],
        rounded: bool = False,
        grid: str = "legacy",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.arguments = {
            "scales": list(scales),
            "ratios": list(ratios),
            "feature_shapes": np.asarray(feature_shapes).tolist(),
            "feature_strides": list(feature_strides),
            "anchor_stride": anchor_stride,
            "rounded": rounded,
        }
        self.image_shape = tuple(image_shape)
        self.grid = grid
        self.boxes = normalize_boxes(generate_pyramid_anchors(**self.arguments), self.image_shape, grid)

    def call(self, image: Any) -> Any:
        """image [B, H, W, C] -> anchors [B, A, 4]."""
        boxes = ops.convert_to_tensor(self.boxes)[None]
        return ops.broadcast_to(boxes, (ops.shape(image)[0], *self.boxes.shape))

    def compute_output_spec(self, image: Any) -> Any:
        return keras.KerasTensor((image.shape[0], *self.boxes.shape), "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.arguments, "image_shape": self.image_shape, "grid": self.grid}
