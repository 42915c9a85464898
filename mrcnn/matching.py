"""Matching detections to ground truth in one image, and the average precision of one image (numpy only).

Letters: P predictions, G ground-truth instances, N, M masks; H, W height and width. Boxes are (y1, x1, y2,
x2) in pixels, y2 and x2 one outside; masks are [H, W, N]. These are the helpers that notebooks call one image
at a time; the figures to report come from `mrcnn.evaluation`, which scores a whole data set by the rules of
COCO.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mrcnn.ops.boxes import compute_overlaps

# Pixels taken at once when masks are compared: bounds the float copies to some tens of megabytes.
_PIXELS_PER_BLOCK = 1 << 16


def trim_zeros(x: np.ndarray) -> np.ndarray:
    """`x` [N, C] without the rows that are all zero: arrays are padded with such rows.

    Raises:
        ValueError: `x` is not two-dimensional.
    """
    x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"trim_zeros takes an array of shape [rows, columns]. Received shape: {x.shape}.")
    return x[np.any(x != 0, axis=1)]


def compute_overlaps_masks(masks1: np.ndarray, masks2: np.ndarray) -> np.ndarray:
    """Intersection over union of all pairs of masks.

    Args:
        masks1: [H, W, N], bool, or numbers that count as inside above 0.5.
        masks2: [H, W, M], of the same height and width.

    Returns:
        float32 [N, M], from 0 to 1; 0 where both masks are empty. With no mask on one side, the empty float64
        array of that shape.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    masks1, masks2 = np.asarray(masks1), np.asarray(masks2)
    if masks1.ndim != 3 or masks2.ndim != 3:
        raise ValueError(f"Masks must have the shape [H, W, N]. Received: {masks1.shape} and {masks2.shape}.")
    count1, count2 = masks1.shape[-1], masks2.shape[-1]
    if count1 == 0 or count2 == 0:
        return np.zeros((count1, count2))
    if masks1.shape[:2] != masks2.shape[:2]:
        raise ValueError(
            f"Masks to compare must have one height and width. Received: {masks1.shape[:2]} and {masks2.shape[:2]}."
        )
    pixels1, pixels2 = masks1.reshape(-1, count1), masks2.reshape(-1, count2)
    intersections = np.zeros((count1, count2))
    areas1, areas2 = np.zeros(count1), np.zeros(count2)
    # A product of 0/1 matrices counts the common pixels: exact in float32 within a block, and over blocks in
    # float64.
    for start in range(0, len(pixels1), _PIXELS_PER_BLOCK):
        block1 = (pixels1[start : start + _PIXELS_PER_BLOCK] > 0.5).astype(np.float32)
        block2 = (pixels2[start : start + _PIXELS_PER_BLOCK] > 0.5).astype(np.float32)
        intersections += block1.T @ block2
        areas1 += block1.sum(axis=0)
        areas2 += block2.sum(axis=0)
    unions = areas1[:, None] + areas2[None, :] - intersections
    # float32 before the division, as in the original: a threshold may sit on the last digit.
    return intersections.astype(np.float32) / np.maximum(unions, 1).astype(np.float32)


def compute_matches(
    gt_boxes: np.ndarray,
    gt_class_ids: np.ndarray,
    gt_masks: np.ndarray,
    pred_boxes: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    pred_masks: np.ndarray,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Match predictions, best score first, each to the free ground truth of its class that its mask overlaps
    most.

    Rows of zeros at the end of `gt_boxes` and `pred_boxes` are padding and are ignored.

    Args:
        gt_boxes: [G, 4].
        gt_class_ids: [G].
        gt_masks: [H, W, G].
        pred_boxes: [P, 4].
        pred_class_ids: [P].
        pred_scores: [P].
        pred_masks: [H, W, P].
        iou_threshold: the least mask IoU of a match.
        score_threshold: legacy: it is compared with the *IoU* as well, not with the score; the larger of the
            two thresholds decides.

    Returns:
        gt_match: float64 [G], for each ground truth the row of its prediction, or -1.
        pred_match: float64 [P], for each prediction the row of its ground truth, or -1. Predictions are
            numbered **in order of falling score**, here and in the other two.
        overlaps: [P, G], IoUs of the masks.

    Raises:
        ValueError: boxes, class ids, scores and masks differ in number.
    """
    gt_boxes, pred_boxes = _trim_boxes(gt_boxes, "gt_boxes"), _trim_boxes(pred_boxes, "pred_boxes")
    gt_count, pred_count = len(gt_boxes), len(pred_boxes)
    gt_class_ids = _rows(gt_class_ids, gt_count, "gt_class_ids")
    pred_class_ids = _rows(pred_class_ids, pred_count, "pred_class_ids")
    pred_scores = _rows(pred_scores, pred_count, "pred_scores")
    gt_masks = _columns(gt_masks, gt_count, "gt_masks")
    pred_masks = _columns(pred_masks, pred_count, "pred_masks")

    # legacy: turning an ascending order around puts the later of two equals first.
    by_score = np.argsort(pred_scores, kind="stable")[::-1]
    pred_class_ids = pred_class_ids[by_score]
    overlaps = compute_overlaps_masks(pred_masks[..., by_score], gt_masks)

    gt_match, pred_match = np.full(gt_count, -1.0), np.full(pred_count, -1.0)
    least = max(iou_threshold, score_threshold)
    for prediction, row in enumerate(overlaps):
        for truth in np.argsort(row, kind="stable")[::-1]:
            if row[truth] < least:
                break
            if gt_match[truth] < 0 and gt_class_ids[truth] == pred_class_ids[prediction]:
                gt_match[truth], pred_match[prediction] = prediction, truth
                break
    return gt_match, pred_match, overlaps


def compute_ap(
    gt_boxes: np.ndarray,
    gt_class_ids: np.ndarray,
    gt_masks: np.ndarray,
    pred_boxes: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    pred_masks: np.ndarray,
    iou_threshold: float = 0.5,
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Average precision of one image at one IoU threshold: the area under its precision-recall steps (Pascal
    VOC 2010 and later). Classes are not averaged: all predictions stand in one list.

    Args: as for `compute_matches`.

    Returns:
        mAP: the average precision. An image without ground truth has 0, as in the original: leave such images
            out of a mean.
        precisions, recalls: float64 [P + 2], after each prediction, with an end point added on either side;
            precisions never rise.
        overlaps: [P, G], see `compute_matches`.
    """
    gt_match, pred_match, overlaps = compute_matches(
        gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks, iou_threshold
    )
    hits = np.cumsum(pred_match > -1)
    precisions = hits / (np.arange(len(pred_match)) + 1)
    # float32 here decides the last digits of old results.
    recalls = hits.astype(np.float32) / np.float32(max(len(gt_match), 1))
    precisions = np.concatenate([[0.0], precisions, [0.0]])
    recalls = np.concatenate([[0.0], recalls, [1.0]])
    precisions = np.maximum.accumulate(precisions[::-1])[::-1]
    steps = np.flatnonzero(recalls[1:] != recalls[:-1]) + 1
    average = np.sum((recalls[steps] - recalls[steps - 1]) * precisions[steps])
    return average, precisions, recalls, overlaps


def compute_ap_range(
    gt_box: np.ndarray,
    gt_class_id: np.ndarray,
    gt_mask: np.ndarray,
    pred_box: np.ndarray,
    pred_class_id: np.ndarray,
    pred_score: np.ndarray,
    pred_mask: np.ndarray,
    iou_thresholds: Iterable[float] | None = None,
    verbose: int = 1,
) -> float:
    """The mean of `compute_ap` over IoU thresholds, 0.5 to 0.95 in steps of 0.05 where none are given.

    Args: as for `compute_matches`; `verbose` prints one line for each threshold and one for the mean.

    Raises:
        ValueError: `iou_thresholds` is empty.
    """
    thresholds = np.arange(0.5, 1.0, 0.05) if iou_thresholds is None else np.asarray(list(iou_thresholds))
    if len(thresholds) == 0:
        raise ValueError("compute_ap_range needs at least one IoU threshold. Received: none.")
    averages = []
    for threshold in thresholds:
        average, *_ = compute_ap(
            gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask, threshold
        )
        if verbose:
            print(f"AP @{threshold:.2f}:\t {average:.3f}")
        averages.append(average)
    mean = np.mean(averages)
    if verbose:
        print(f"AP @{thresholds[0]:.2f}-{thresholds[-1]:.2f}:\t {mean:.3f}")
    return mean


def compute_recall(pred_boxes: np.ndarray, gt_boxes: np.ndarray, iou: float) -> tuple[float, np.ndarray]:
    """Which part of the ground-truth boxes some prediction covers.

    Args:
        pred_boxes: [P, 4], in the units of `gt_boxes`; each counts for the one box it overlaps most.
        gt_boxes: [G, 4].
        iou: the least IoU.

    Returns:
        recall: 0 to 1; 0 without ground truth.
        positive_ids: int64, rows of the predictions that reach `iou`.
    """
    pred_boxes, gt_boxes = np.asarray(pred_boxes), np.asarray(gt_boxes)
    if len(pred_boxes) == 0 or len(gt_boxes) == 0:
        return 0.0, np.zeros(0, np.int64)
    overlaps = compute_overlaps(pred_boxes, gt_boxes)
    positive_ids = np.flatnonzero(overlaps.max(axis=1) >= iou)
    covered = np.unique(overlaps.argmax(axis=1)[positive_ids])
    return len(covered) / len(gt_boxes), positive_ids


def _trim_boxes(boxes: np.ndarray, name: str) -> np.ndarray:
    boxes = np.asarray(boxes)
    if boxes.size == 0:
        return np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} must have the shape [N, 4]. Received: {boxes.shape}.")
    return trim_zeros(boxes)


def _rows(values: np.ndarray, count: int, name: str) -> np.ndarray:
    values = np.asarray(values)
    if len(values) < count:
        raise ValueError(f"{name} must hold one entry for each of the {count} boxes. Received: {len(values)}.")
    return values[:count]


def _columns(masks: np.ndarray, count: int, name: str) -> np.ndarray:
    masks = np.asarray(masks)
    if masks.ndim != 3 or masks.shape[-1] < count:
        raise ValueError(
            f"{name} must have the shape [H, W, N] with one mask for each of the {count} boxes. "
            f"Received shape: {masks.shape}."
        )
    return masks[..., :count]
