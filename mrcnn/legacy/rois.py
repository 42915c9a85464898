"""Random ROIs and the targets of the heads, made outside the network: for training the heads alone, and for looking at.

Letters: R random ROIs, G ground truth objects, T sampled rois, P positive ones at most, K classes (0 is background).
Boxes are (y1, x1, y2, x2) in *pixels* of the molded image. All is numpy; numpy's global generator draws, in the order
of the original's draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mrcnn.config import Config
from mrcnn.data.resizing import resize
from mrcnn.ops.boxes import compute_overlaps, encode_deltas

POSITIVE_IOU = 0.5

# This share of the random ROIs lies around the objects.
_SHARE_NEAR_OBJECTS = 0.9


def generate_random_rois(
    image_shape: Sequence[int], count: int, gt_class_ids: np.ndarray, gt_boxes: np.ndarray
) -> np.ndarray:
    """Random boxes, nine tenths of them near the objects, evenly shared between these.

    Args:
        image_shape: (height, width, ...).
        count: R.
        gt_class_ids: kept for the signature's sake.
        gt_boxes: [G, 4].

    Returns:
        [count, 4] int32, inside the image, each side at least one pixel long.

    Raises:
        ValueError: an image, or the surroundings of a box, without two different rows or columns.
    """
    height, width = int(image_shape[0]), int(image_shape[1])
    gt_boxes = np.asarray(gt_boxes).reshape(-1, 4)
    each = int(_SHARE_NEAR_OBJECTS * count / len(gt_boxes)) if len(gt_boxes) else 0
    rois = []
    for y1, x1, y2, x2 in gt_boxes:
        box_height, box_width = y2 - y1, x2 - x1
        rows = max(y1 - box_height, 0), min(y2 + box_height, height)
        columns = max(x1 - box_width, 0), min(x2 + box_width, width)
        rois.append(_random_boxes(rows, columns, each))
    rois.append(_random_boxes((0, height), (0, width), count - each * len(gt_boxes)))
    return np.concatenate(rois).astype(np.int32)


def _random_boxes(rows: tuple[int, int], columns: tuple[int, int], count: int) -> np.ndarray:
    """[count, 4] boxes whose corners lie in [low, high) of `rows` and `columns`."""
    if min(rows[1] - rows[0], columns[1] - columns[0]) < 2:
        raise ValueError(
            f"Random boxes need two rows and two columns at least. Received: rows {rows}, columns {columns}."
        )
    while True:  # twice as many as needed, so that enough are left when those without a length are gone
        vertical = np.random.randint(*rows, (2 * count, 2))  # noqa: NPY002
        horizontal = np.random.randint(*columns, (2 * count, 2))  # noqa: NPY002
        vertical, horizontal = (
            np.sort(ends[ends[:, 0] != ends[:, 1]][:count], axis=1) for ends in (vertical, horizontal)
        )
        if len(vertical) == len(horizontal) == count:
            return np.stack([vertical[:, 0], horizontal[:, 0], vertical[:, 1], horizontal[:, 1]], axis=1)


def build_detection_targets(
    rpn_rois: np.ndarray, gt_class_ids: np.ndarray, gt_boxes: np.ndarray, gt_masks: np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sample ROIs for the heads and work out what they should say, class by class.

    Positive ROIs have an IoU above 0.5 with an object; negatives fill TRAIN_ROIS_PER_IMAGE up, some of them twice if
    there are too few.

    Args:
        rpn_rois: [R, 4].
        gt_class_ids: [G]; zeros (padding) and crowds (negative) are left out.
        gt_boxes: [G, 4].
        gt_masks: [h, w, G]: mini-masks if USE_MINI_MASK, else as large as the image.
        config: TRAIN_ROIS_PER_IMAGE, ROI_POSITIVE_RATIO, NUM_CLASSES, MASK_SHAPE, BBOX_STD_DEV, USE_MINI_MASK and
            IMAGE_SHAPE are read.

    Returns:
        rois [T, 4]; class ids int32 [T]; deltas float32 [T, K, 4] / BBOX_STD_DEV; masks float32 [T, *MASK_SHAPE, K],
        bilinear and not rounded. What is not of a ROI's class is 0.

    Raises:
        ValueError: no ROI, no object, or ROIs that leave nothing to fill up with.
    """
    rpn_rois, gt_class_ids = np.asarray(rpn_rois), np.asarray(gt_class_ids)
    real = np.flatnonzero(gt_class_ids > 0)
    if len(rpn_rois) == 0 or len(real) == 0:
        raise ValueError(f"ROIs and objects are needed. Received: {len(rpn_rois)} ROIs, {len(real)} objects.")
    gt_class_ids, gt_boxes = gt_class_ids[real].astype(np.int32), np.asarray(gt_boxes)[real]
    gt_masks = np.asarray(gt_masks)[:, :, real]

    overlaps = compute_overlaps(rpn_rois, gt_boxes)
    nearest, best = overlaps.argmax(axis=1), overlaps.max(axis=1)
    keep, positives = _sample(best, config)
    total, rois = config.TRAIN_ROIS_PER_IMAGE, rpn_rois[keep]
    class_ids = np.zeros(total, np.int32)
    class_ids[:positives] = gt_class_ids[nearest[keep[:positives]]]

    deltas = np.zeros((total, config.NUM_CLASSES, 4), np.float32)
    masks = np.zeros((total, *config.MASK_SHAPE, config.NUM_CLASSES), np.float32)
    if positives:
        matched = gt_boxes[nearest[keep[:positives]]]
        deltas[np.arange(positives), class_ids[:positives]] = encode_deltas(
            rois[:positives].astype(np.float32), matched.astype(np.float32)
        )
        deltas /= np.asarray(config.BBOX_STD_DEV)
    for i in range(positives):
        truth = nearest[keep[i]]
        mask = gt_masks[:, :, truth]
        if config.USE_MINI_MASK:
            mask = _placed(mask, gt_boxes[truth], config.IMAGE_SHAPE[:2])
        y1, x1, y2, x2 = rois[i].astype(np.int32)
        masks[i, :, :, class_ids[i]] = resize(mask[y1:y2, x1:x2].astype(bool), config.MASK_SHAPE)
    return rois, class_ids, deltas, masks


def _sample(best: np.ndarray, config: Config) -> tuple[np.ndarray, int]:
    """ROIs to keep [T], by their best IoU [R], positive ones first, and how many these are."""
    total = config.TRAIN_ROIS_PER_IMAGE
    positive, negative = np.flatnonzero(best > POSITIVE_IOU), np.flatnonzero(best < POSITIVE_IOU)
    positive = _some(positive, int(total * config.ROI_POSITIVE_RATIO))
    negative = _some(negative, total - len(positive))
    missing = total - len(positive) - len(negative)
    if missing and len(negative) == 0:
        raise ValueError(
            f"Negative ROIs (IoU below {POSITIVE_IOU} with every object) must fill {total} rows (TRAIN_ROIS_PER_IMAGE) "
            f"up. Received: {len(positive)} positive ones and none that is negative."
        )
    repeated = np.random.choice(negative, missing) if missing else negative[:0]  # noqa: NPY002
    return np.concatenate([positive, negative, repeated]), len(positive)


def _some(indices: np.ndarray, count: int) -> np.ndarray:
    """`count` of them at random; all, in their order, where there are no more."""
    return np.random.choice(indices, count, replace=False) if len(indices) > count else indices  # noqa: NPY002


def _placed(mini_mask: np.ndarray, box: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A mini-mask at its place in an image of `shape`: bool [h, w]."""
    y1, x1, y2, x2 = (int(v) for v in box)
    mask = np.zeros(tuple(int(side) for side in shape), bool)
    mask[y1:y2, x1:x2] = np.round(resize(mini_mask.astype(bool), (y2 - y1, x2 - x1)))
    return mask
