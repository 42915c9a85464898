"""Detections: ROIs, their classes and deltas -> the objects of each image.

Letters: B images, R rois, D detections, C candidates, K classes (0 is background). Boxes (y1, x1, y2, x2),
*normalized*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.ops.boxes import MAX_LOG_SCALE, clip_boxes, decode_deltas, large_enough
from mrcnn.ops.nms import candidates, first_of_largest, gather, non_max_suppression

# Below any score that matters, and above what is no score at all.
_ABOVE_NONE = 1e-9


@keras.saving.register_keras_serializable("mrcnn")
class DetectionLayer(keras.layers.Layer):
    """Refine the ROIs by their classes' deltas, drop background and weak ones, suppress overlaps.

    Args:
        max_instances: D, detections for each image; zero rows fill it up.
        min_confidence: scores below it are dropped; 0 or None drops none. Or one for each class, [K].
        nms_threshold: IoU above which a detection gives way to a better one of its class.
        bbox_std_dev: what the deltas are multiplied with.
        class_agnostic: whether a detection gives way to a better one of any class.
        log_limit: the most that the logarithm of a box's growth can be.
        min_size: boxes with a side below it, in pixels, are dropped, with 0 those without area; None: none.
        all_classes: True: a ROI gives a detection of every class that scores enough. False (`legacy:`): of its best.
    """

    def __init__(
        self,
        max_instances: int = 100,
        min_confidence: float | Sequence[float] | None = 0.7,
        nms_threshold: float = 0.3,
        bbox_std_dev: Any = (0.1, 0.1, 0.2, 0.2),
        class_agnostic: bool = False,
        log_limit: float = MAX_LOG_SCALE,
        min_size: float | None = None,
        all_classes: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.max_instances = max_instances
        one = min_confidence is None or np.ndim(min_confidence) == 0
        self.min_confidence = min_confidence if one else [float(v) for v in min_confidence]
        self.nms_threshold = nms_threshold
        self.bbox_std_dev = [float(v) for v in bbox_std_dev]
        self.class_agnostic = class_agnostic
        self.log_limit = log_limit
        self.min_size = min_size
        self.all_classes = all_classes

    def call(self, rois: Any, mrcnn_class: Any, mrcnn_bbox: Any, window: Any, image_shape: Any = None) -> Any:
        """rois [B, R, 4], mrcnn_class [B, R, K] probabilities, mrcnn_bbox [B, R, K, 4] deltas, window [B, 4], the
        part of the molded image that holds the image, image_shape [B, 2] (height, width) in pixels, for `min_size` ->
        [B, D, (y1, x1, y2, x2, class, score)], best first."""
        choose = self._of_all_classes if self.all_classes else self._of_best_class
        rois, deltas, classes, scores, valid = choose(rois, mrcnn_class, mrcnn_bbox)
        boxes = decode_deltas(rois, ops.multiply(deltas, self.bbox_std_dev), self.log_limit)
        boxes = clip_boxes(boxes, window[:, None])
        if self.min_size is not None:
            valid = ops.logical_and(valid, large_enough(boxes, self.min_size, image_shape[:, None]))
        # Class-aware suppression of all classes at once, best first, keeps what suppression class by class followed
        # by a choice of the best would: a class never needs more than D.
        groups = None if self.class_agnostic else classes
        indices, kept = non_max_suppression(boxes, scores, self.max_instances, self.nms_threshold, valid, groups)
        rows = ops.concatenate([boxes, ops.cast(classes, "float32")[..., None], scores[..., None]], axis=-1)
        return ops.where(kept[..., None], gather(rows, indices), 0.0)

    def _of_best_class(self, rois: Any, mrcnn_class: Any, mrcnn_bbox: Any) -> tuple[Any, ...]:
        """For each ROI: itself, and its best class's deltas, number, score, and whether it counts."""
        classes = first_of_largest(mrcnn_class)
        scores = ops.max(mrcnn_class, axis=-1)
        deltas = ops.take_along_axis(mrcnn_bbox, classes[..., None, None], axis=2)[..., 0, :]
        valid = classes > 0
        if self.min_confidence:
            least = self.min_confidence
            if isinstance(least, list):
                least = ops.take(ops.convert_to_tensor(least, "float32"), classes)
            valid = ops.logical_and(valid, scores >= least)
        return rois, deltas, classes, scores, valid

    def _of_all_classes(self, rois: Any, mrcnn_class: Any, mrcnn_bbox: Any) -> tuple[Any, ...]:
        """The same of C pairs of a ROI and a class, best first."""
        count, foreground = mrcnn_class.shape[1], mrcnn_class.shape[2] - 1
        scores = mrcnn_class[..., 1:]
        least = self.min_confidence or None
        if isinstance(least, list):
            scores = ops.where(scores >= ops.convert_to_tensor(least[1:], "float32"), scores, -1.0)
            least = max(min(least[1:]), _ABOVE_NONE)
        scores = ops.reshape(scores, (-1, count * foreground))
        # The scores of a ROI sum to 1: that many can be as high.
        most = foreground if least is None else max(1, min(foreground, int(1.0 / least)))
        indices, real = candidates(scores, least, count * most)
        deltas = gather(ops.reshape(mrcnn_bbox[:, :, 1:], (-1, count * foreground, 4)), indices)
        return gather(rois, indices // foreground), deltas, indices % foreground + 1, gather(scores, indices), real

    def compute_output_spec(
        self, rois: Any, mrcnn_class: Any, mrcnn_bbox: Any, window: Any, image_shape: Any = None
    ) -> Any:
        return keras.KerasTensor((rois.shape[0], self.max_instances, 6), "float32")

    def get_config(self) -> dict[str, Any]:
        names = ("max_instances", "min_confidence", "nms_threshold", "bbox_std_dev", "class_agnostic", "log_limit",
                 "min_size", "all_classes")  # fmt: skip
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
