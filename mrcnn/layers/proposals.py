"""Proposals: anchors moved by the RPN's deltas, the best that do not overlap (Faster R-CNN, section 3.3).

Letters: B images, A anchors, R rois; boxes (y1, x1, y2, x2), *normalized*.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mrcnn.ops.boxes import clip_boxes, decode_deltas
from mrcnn.ops.nms import gather, non_max_suppression, top_k


@keras.saving.register_keras_serializable("mrcnn")
class ProposalLayer(keras.layers.Layer):
    """RPN outputs and anchors -> the proposals of each image.

    Args:
        proposal_count: R, proposals for each image; zero boxes fill it up.
        nms_threshold: IoU above which a proposal gives way to a better one.
        pre_nms_limit: how many, by score, enter the suppression.
        bbox_std_dev: what the deltas are multiplied with.
    """

    def __init__(
        self,
        proposal_count: int,
        nms_threshold: float,
        pre_nms_limit: int = 6000,
        bbox_std_dev: Any = (0.1, 0.1, 0.2, 0.2),
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.proposal_count = proposal_count
        self.nms_threshold = nms_threshold
        self.pre_nms_limit = pre_nms_limit
        self.bbox_std_dev = [float(v) for v in bbox_std_dev]

    def call(self, rpn_class: Any, rpn_bbox: Any, anchors: Any) -> Any:
        """rpn_class [B, A, 2], rpn_bbox [B, A, 4] and anchors [B, A, 4] -> proposals [B, R, 4]."""
        _, _, boxes, indices, kept = self.steps(rpn_class, rpn_bbox, anchors)
        return ops.where(kept[..., None], gather(boxes, indices), 0.0)

    def steps(self, rpn_class: Any, rpn_bbox: Any, anchors: Any) -> tuple[Any, Any, Any, Any, Any]:
        """As `call` -> the anchors that score best [B, N, 4], these moved, and clipped to the image; the indices
        [B, R] of the proposals among them, and which of these are real [B, R]."""
        count, scored = anchors.shape[1], rpn_class.shape[1]
        if count is not None and scored is not None and count != scored:
            raise ValueError(
                f"There are {count} anchors, and the RPN scored {scored} places: BACKBONE_STRIDES (or "
                "COMPUTE_BACKBONE_SHAPE) are not those of the backbone's feature maps."
            )
        limit = (
            ops.minimum(self.pre_nms_limit, ops.shape(anchors)[1]) if count is None else min(self.pre_nms_limit, count)
        )
        scores, best = top_k(rpn_class[..., 1], limit)
        deltas = ops.multiply(gather(rpn_bbox, best), self.bbox_std_dev)
        chosen = gather(anchors, best)
        moved = decode_deltas(chosen, deltas)
        boxes = clip_boxes(moved, (0.0, 0.0, 1.0, 1.0))
        return chosen, moved, boxes, *non_max_suppression(boxes, scores, self.proposal_count, self.nms_threshold)

    def compute_output_spec(self, rpn_class: Any, rpn_bbox: Any, anchors: Any) -> Any:
        return keras.KerasTensor((rpn_class.shape[0], self.proposal_count, 4), "float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "proposal_count": self.proposal_count,
            "nms_threshold": self.nms_threshold,
            "pre_nms_limit": self.pre_nms_limit,
            "bbox_std_dev": self.bbox_std_dev,
        }
