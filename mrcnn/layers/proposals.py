"""Proposals: anchors moved by the RPN's deltas, the best that do not overlap (Faster R-CNN, section 3.3).

Letters: B images, A anchors, L pyramid levels, N candidates, R rois; boxes (y1, x1, y2, x2), *normalized*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mrcnn.ops.boxes import MAX_LOG_SCALE, clip_boxes, decode_deltas, large_enough
from mrcnn.ops.nms import gather, non_max_suppression, top_k


@keras.saving.register_keras_serializable("mrcnn")
class ProposalLayer(keras.layers.Layer):
    """RPN outputs and anchors -> the proposals of each image.

    Args:
        proposal_count: R, proposals for each image; zero boxes fill it up.
        nms_threshold: IoU above which a proposal gives way to a better one.
        pre_nms_limit: how many, by score, enter the suppression; of each level where levels are given.
        bbox_std_dev: what the deltas are multiplied with.
        log_limit: the most that the logarithm of a box's growth can be.
        min_size: boxes with a side below it, in pixels, are dropped, with 0 those without area; None: none.
    """

    def __init__(
        self,
        proposal_count: int,
        nms_threshold: float,
        pre_nms_limit: int = 6000,
        bbox_std_dev: Any = (0.1, 0.1, 0.2, 0.2),
        log_limit: float = MAX_LOG_SCALE,
        min_size: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.proposal_count = proposal_count
        self.nms_threshold = nms_threshold
        self.pre_nms_limit = pre_nms_limit
        self.bbox_std_dev = [float(v) for v in bbox_std_dev]
        self.log_limit = log_limit
        self.min_size = min_size

    def call(
        self,
        scores: Any,
        rpn_bbox: Any,
        anchors: Any,
        window: Any = None,
        image_shape: Any = None,
        levels: Sequence[Any] | None = None,
    ) -> Any:
        """Choose the proposals.

        Args:
            scores: [B, A, n], of which the last is the foreground's: what they are ranked by.
            rpn_bbox: [B, A, 4] deltas.
            anchors: [B, A, 4].
            window: [B, 4], what boxes are clipped to; None: the molded image.
            image_shape: [B, 2] (height, width) in pixels, for `min_size`.
            levels: for each pyramid level a tensor whose second axis has its anchors, in the order of `anchors`: limit
                and suppression are then those of each level by itself. None: of all together.

        Returns:
            [B, R, 4].
        """
        _check_counts(scores, anchors)
        if levels is None:
            _, _, boxes, indices, kept = self.steps(scores, rpn_bbox, anchors, window, image_shape)
            return ops.where(kept[..., None], gather(boxes, indices), 0.0)
        return self._by_level(scores[..., -1], rpn_bbox, anchors, window, image_shape, levels)

    def steps(
        self, scores: Any, rpn_bbox: Any, anchors: Any, window: Any = None, image_shape: Any = None
    ) -> tuple[Any, Any, Any, Any, Any]:
        """As `call` without levels -> the anchors that score best [B, N, 4], these moved, and clipped; the indices
        [B, R] of the proposals among them, and which of these are real [B, R]."""
        count = anchors.shape[1]
        limit = (
            ops.minimum(self.pre_nms_limit, ops.shape(anchors)[1]) if count is None else min(self.pre_nms_limit, count)
        )
        values, best = top_k(scores[..., -1], limit)
        chosen, moved, boxes = self._moved(best, rpn_bbox, anchors, window)
        valid = None if self.min_size is None else large_enough(boxes, self.min_size, image_shape[:, None])
        kept = non_max_suppression(boxes, values, self.proposal_count, self.nms_threshold, valid)
        return chosen, moved, boxes, *kept

    def _moved(self, best: Any, rpn_bbox: Any, anchors: Any, window: Any) -> tuple[Any, Any, Any]:
        deltas = ops.multiply(gather(rpn_bbox, best), self.bbox_std_dev)
        chosen = gather(anchors, best)
        moved = decode_deltas(chosen, deltas, self.log_limit)
        return chosen, moved, clip_boxes(moved, (0.0, 0.0, 1.0, 1.0) if window is None else window[:, None])

    def _by_level(
        self, scores: Any, rpn_bbox: Any, anchors: Any, window: Any, image_shape: Any, levels: Sequence[Any]
    ) -> Any:
        """Each level is made one of as many candidates, so that all of them are suppressed at once."""
        batch, limit, start = ops.shape(scores)[0], self.pre_nms_limit, 0
        nothing = ops.full((batch, limit), float("-inf"), "float32")
        values, indices = [], []
        for level in levels:
            count = ops.shape(level)[1]
            own, best = top_k(ops.concatenate([scores[:, start : start + count], nothing], axis=1), limit)
            values.append(own)
            indices.append(ops.where(own > float("-inf"), best, 0) + start)
            start = start + count
        values, indices = ops.concatenate(values, axis=1), ops.concatenate(indices, axis=1)  # [B, L * limit]
        _, _, boxes = self._moved(indices, rpn_bbox, anchors, window)
        valid = values > float("-inf")
        if self.min_size is not None:
            valid = ops.logical_and(valid, large_enough(boxes, self.min_size, image_shape[:, None]))

        most, rows = min(self.proposal_count, limit), (-1, limit)
        places, kept = non_max_suppression(
            ops.reshape(boxes, (*rows, 4)), ops.reshape(values, rows), most, self.nms_threshold,
            ops.reshape(valid, rows),
        )  # fmt: skip
        first = ops.arange(len(levels), dtype="int32")[:, None] * limit  # where the candidates of a level begin
        places = ops.reshape(ops.reshape(places, (-1, len(levels), most)) + first, (-1, len(levels) * most))
        kept = ops.reshape(kept, (-1, len(levels) * most))
        best, order = top_k(
            ops.where(kept, gather(values, places), float("-inf")), min(self.proposal_count, len(levels) * most)
        )
        found = ops.where((best > float("-inf"))[..., None], gather(boxes, gather(places, order)), 0.0)
        return ops.pad(found, [[0, 0], [0, self.proposal_count - found.shape[1]], [0, 0]])

    def compute_output_spec(
        self,
        scores: Any,
        rpn_bbox: Any,
        anchors: Any,
        window: Any = None,
        image_shape: Any = None,
        levels: Sequence[Any] | None = None,
    ) -> Any:
        return keras.KerasTensor((scores.shape[0], self.proposal_count, 4), "float32")

    def get_config(self) -> dict[str, Any]:
        names = ("proposal_count", "nms_threshold", "pre_nms_limit", "bbox_std_dev", "log_limit", "min_size")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _check_counts(scores: Any, anchors: Any) -> None:
    count, scored = anchors.shape[1], scores.shape[1]
    if count is not None and scored is not None and count != scored:
        raise ValueError(
            f"There are {count} anchors, and the RPN scored {scored} places: BACKBONE_STRIDES (or "
            "COMPUTE_BACKBONE_SHAPE) are not those of the backbone's feature maps."
        )
