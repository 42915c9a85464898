"""RPN targets: which anchors should say "object", which "background", and how far the first are from their
objects.

Letters: A anchors, G ground truth boxes, T = RPN_TRAIN_ANCHORS_PER_IMAGE rows of box targets, S blocks of
anchors; boxes (y1, x1, y2, x2) in *pixels* of the molded image. Faster R-CNN, section 3.1.2.

A 1024 x 1024 image has 261,888 anchors and most of them are far from any object or far from its size. So
anchors are taken in blocks of neighbors, each with a bound on the IoU it can reach, and IoU is computed only
where it can matter. The result is that of the full A x G table to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mrcnn.ops.boxes import box_area, compute_overlaps, encode_deltas

POSITIVE_IOU = 0.7
NEGATIVE_IOU = 0.3
CROWD_IOU = 0.001

# A block is a few rows of a level's grid: small enough to lie in a thin strip, large enough to keep blocks
# few.
_BLOCK = 1536
# Bounds are rounded too: this keeps one that is right to the last bit from being taken for less.
_SLACK = 1 + 1e-9


def build_rpn_targets(
    image_shape: Any,
    anchors: np.ndarray,
    gt_class_ids: np.ndarray,
    gt_boxes: np.ndarray,
    config: Any,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Match anchors with ground truth boxes and sample those that train the RPN.

    An anchor is positive when its IoU with an object is 0.7 or more, or the highest that this object has with
    any anchor (all anchors that share the highest); negative when its IoU with every object is below 0.3 and
    it touches no crowd; else neutral. At most half of the T are positive, and negatives fill up the rest,
    both drawn at random where there are too many.

    legacy: an object that overlaps no anchor used to make every such anchor positive; here it makes none.

    Args:
        image_shape: (height, width, ...) of the molded image. Kept for the signature's sake: anchors that
            reach over the border take part.
        anchors: [A, 4].
        gt_class_ids: [G] integers; negative for crowds, 0 for padding, which is left out.
        gt_boxes: [G, 4].
        config: a `Config`; RPN_TRAIN_ANCHORS_PER_IMAGE and RPN_BBOX_STD_DEV are read.
        rng: draws the sample. None: a generator with seed 0, so that equal input gives equal output.

    Returns:
        rpn_match: [A] int32, 1 positive, -1 negative, 0 neutral.
        rpn_bbox: [T, 4] float64, (dy, dx, log dh, log dw) / RPN_BBOX_STD_DEV of the positive anchors, in
            their order, then zeros.

    Raises:
        ValueError: arrays whose shapes do not fit together.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    anchors = np.asarray(anchors, np.float64)
    gt_class_ids = np.asarray(gt_class_ids)
    gt_boxes = np.asarray(gt_boxes, np.float64)
    if gt_boxes.size == 0:
        gt_boxes = gt_boxes.reshape(0, 4)
    if anchors.ndim != 2 or anchors.shape[1] != 4:
        raise ValueError(f"anchors must be [A, 4]. Received: shape {anchors.shape}.")
    if gt_boxes.shape != (gt_class_ids.size, 4):
        raise ValueError(
            f"gt_boxes must be [G, 4] with G the number of gt_class_ids, {gt_class_ids.size}. "
            f"Received: shape {gt_boxes.shape}."
        )
    objects, crowds = gt_boxes[gt_class_ids > 0], gt_boxes[gt_class_ids < 0]
    blocks = _Blocks(anchors)

    rpn_match = np.full(len(anchors), -1, np.int32)
    for crowd in crowds:
        near, overlaps = blocks.overlaps(crowd, at_least=CROWD_IOU)
        rpn_match[near[overlaps >= CROWD_IOU]] = 0
    positive = np.zeros(len(anchors), bool)
    for box in objects:
        near, overlaps = blocks.overlaps(box, at_least=NEGATIVE_IOU, and_best=True)
        best = overlaps.max(initial=0.0)
        rpn_match[near[overlaps >= NEGATIVE_IOU]] = 0
        if best > 0:
            positive[near[(overlaps >= POSITIVE_IOU) | (overlaps == best)]] = True
    rpn_match[positive] = 1

    total = int(config.RPN_TRAIN_ANCHORS_PER_IMAGE)
    positives = _keep_some(rpn_match, np.flatnonzero(positive), total // 2, rng)
    _keep_some(rpn_match, np.flatnonzero(rpn_match == -1), total - len(positives), rng)

    rpn_bbox = np.zeros((total, 4))
    if len(positives):
        nearest = compute_overlaps(anchors[positives], objects).argmax(axis=1)
        deltas = encode_deltas(anchors[positives], objects[nearest])
        rpn_bbox[: len(positives)] = deltas / np.asarray(config.RPN_BBOX_STD_DEV, np.float64)
    return rpn_match, rpn_bbox


def _keep_some(rpn_match: np.ndarray, indices: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Make all but `count` of the anchors at `indices` neutral; the indices kept, in ascending order."""
    if len(indices) <= count:
        return indices
    value = rpn_match[indices[0]]
    kept = np.sort(rng.choice(indices, count, replace=False))
    rpn_match[indices] = 0
    rpn_match[kept] = value
    return kept


class _Blocks:
    """Anchors in runs of neighbors, with each run's bounding box and range of areas."""

    def __init__(self, anchors: np.ndarray) -> None:
        self.anchors = anchors
        self.count = len(anchors)
        starts = np.arange(0, self.count, _BLOCK)
        self.size = _BLOCK
        area = box_area(anchors)
        # One contiguous copy a column: reductions along the strided one are several times slower.
        columns = [np.ascontiguousarray(anchors[:, i]) for i in range(4)]
        if len(starts):
            self.low = np.stack([np.minimum.reduceat(c, starts) for c in columns[:2]], axis=-1)
            self.high = np.stack([np.maximum.reduceat(c, starts) for c in columns[2:]], axis=-1)
            self.smallest, self.largest = np.minimum.reduceat(area, starts), np.maximum.reduceat(area, starts)
        else:
            self.low = self.high = np.zeros((0, 2))
            self.smallest = self.largest = np.zeros(0)

    def bounds(self, box: np.ndarray) -> np.ndarray:
        """[S] what the IoU of `box` [4] with an anchor of each block cannot exceed.

        The intersection is at most the anchor and at most what the box shares with the block; the union is at
        least the box and at least the anchor.
        """
        shared = np.minimum(self.high, box[2:]) - np.maximum(self.low, box[:2])
        intersection = np.minimum(np.maximum(shared, 0).prod(axis=-1), self.largest)
        union = np.maximum(self.smallest, box_area(box))
        return np.where(union > 0, intersection / np.where(union > 0, union, 1), 0) * _SLACK

    def overlaps(self, box: np.ndarray, at_least: float, and_best: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Indices [n] and IoUs [n] of all anchors whose IoU with `box` [4] is `at_least` or more, and with
        `and_best` of those with the highest IoU above 0; others may be among them."""
        bounds = self.bounds(box)
        chosen = bounds >= at_least
        if and_best and bounds.any():
            chosen[bounds.argmax()] = True
        near, overlaps = self._compute(box, chosen)
        if and_best:
            missed = ~chosen & (bounds > 0) & (bounds >= overlaps.max(initial=0.0))
            if missed.any():
                more, their_overlaps = self._compute(box, missed)
                near, overlaps = np.concatenate([near, more]), np.concatenate([overlaps, their_overlaps])
        return near, overlaps

    def _compute(self, box: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Neighboring blocks are joined into runs, so that anchors are read as views.
        edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8)))
        near, overlaps = [np.zeros(0, np.intp)], [np.zeros(0)]
        for start, stop in zip(edges[::2] * self.size, edges[1::2] * self.size, strict=True):
            stop = min(stop, self.count)
            iou = compute_overlaps(self.anchors[start:stop], box[None])[:, 0]
            some = np.flatnonzero(iou > 0)
            near.append(some + start)
            overlaps.append(iou[some])
        return np.concatenate(near), np.concatenate(overlaps)
