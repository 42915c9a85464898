"""Detections: ROIs, their classes and deltas -> the objects of each image.

Letters: B images, R rois, D detections, K classes (0 is background). Boxes (y1, x1, y2, x2), *normalized*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.ops.boxes import clip_boxes, decode_deltas
from mrcnn.ops.nms import first_of_largest, gather, non_max_suppression


@keras.saving.register_keras_serializable("mrcnn")
class DetectionLayer(keras.layers.Layer):
    """Refine the ROIs by their best class's deltas, drop background and weak ones, suppress overlaps.

    Args:
        max_instances: D, detections for each image; zero rows fill it up.
        min_confidence: scores below it are dropped; 0 or None drops none. Or one for each class, [K].
        nms_threshold: IoU above which a detection gives way to a better one of its class.
        bbox_std_dev: what the deltas are multiplied with.
        class_agnostic: whether a detection gives way to a better one of any class.
    """

    def __init__(
        self,
        max_instances: int = 100,
        min_confidence: float | Sequence[float] | None = 0.7,
        nms_threshold: float = 0.3,
        bbox_std_dev: Any = (0.1, 0.1, 0.2, 0.2),
        class_agnostic: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.max_instances = max_instances
        one = min_confidence is None or np.ndim(min_confidence) == 0
        self.min_confidence = min_confidence if one else [float(v) for v in min_confidence]
        self.nms_threshold = nms_threshold
        self.bbox_std_dev = [float(v) for v in bbox_std_dev]
        self.class_agnostic = class_agnostic

    def call(self, rois: Any, mrcnn_class: Any, mrcnn_bbox: Any, window: Any) -> Any:
        """rois [B, R, 4], mrcnn_class [B, R, K] probabilities, mrcnn_bbox [B, R, K, 4] deltas, window [B, 4], the
        part of the molded image that holds the image -> [B, D, (y1, x1, y2, x2, class, score)], best first."""
        classes = first_of_largest(mrcnn_class)
        scores = ops.max(mrcnn_class, axis=-1)
        deltas = ops.take_along_axis(mrcnn_bbox, classes[..., None, None], axis=2)[..., 0, :]
        boxes = decode_deltas(rois, ops.multiply(deltas, self.bbox_std_dev))
        boxes = clip_boxes(boxes, window[:, None])
        valid = classes > 0
        if self.min_confidence:
            least = self.min_confidence
            if isinstance(least, list):
                least = ops.take(ops.convert_to_tensor(least, "float32"), classes)
            valid = ops.logical_and(valid, scores >= least)
        # Class-aware suppression of all classes at once, best first, keeps what suppression class by class followed
        # by a choice of the best would: a class never needs more than D.
        groups = None if self.class_agnostic else classes
        indices, kept = non_max_suppression(boxes, scores, self.max_instances, self.nms_threshold, valid, groups)
        rows = ops.concatenate([boxes, ops.cast(classes, "float32")[..., None], scores[..., None]], axis=-1)
        return ops.where(kept[..., None], gather(rows, indices), 0.0)

    def compute_output_spec(self, rois: Any, mrcnn_class: Any, mrcnn_bbox: Any, window: Any) -> Any:
        return keras.KerasTensor((rois.shape[0], self.max_instances, 6), "float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "max_instances": self.max_instances,
            "min_confidence": self.min_confidence,
            "nms_threshold": self.nms_threshold,
            "bbox_std_dev": self.bbox_std_dev,
            "class_agnostic": self.class_agnostic,
        }
