"""The graph functions of the original: boxes, metas, targets, detections and losses, on tensors.

Letters: B images, N, M boxes, A anchors, R rois, T sampled rois, D detections, K classes (0 is background). Boxes
(y1, x1, y2, x2), *normalized* unless it says pixels. What takes one image here has no batch axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn import losses
from mrcnn.config import Config
from mrcnn.data.image_meta import ImageMeta
from mrcnn.data.molding import ordered, statistics
from mrcnn.data.molding import unmold_image as _unmold_image
from mrcnn.layers.detections import DetectionLayer
from mrcnn.layers.targets import DetectionTargetLayer
from mrcnn.legacy.layers import detection_options, target_options
from mrcnn.ops.boxes import clip_boxes, compute_overlaps, decode_deltas, denormalize_boxes, normalize_boxes

# Boxes


def apply_box_deltas_graph(boxes: Any, deltas: Any) -> Any:
    """Boxes [N, 4] moved by `deltas` [N, (dy, dx, log dh, log dw)]."""
    return decode_deltas(*_tensors(boxes, deltas))


def clip_boxes_graph(boxes: Any, window: Any) -> Any:
    """Boxes [N, 4] cut to `window` [4]."""
    return clip_boxes(*_tensors(boxes, window))


def log2_graph(x: Any) -> Any:
    """The logarithm to base 2."""
    return ops.log(_tensors(x)[0]) / math.log(2.0)


def overlaps_graph(boxes1: Any, boxes2: Any) -> Any:
    """Intersection over union of all pairs of boxes1 [N, 4] and boxes2 [M, 4]: [N, M]."""
    return compute_overlaps(*_tensors(boxes1, boxes2))


def trim_zeros_graph(boxes: Any, name: str = "trim_zeros") -> tuple[Any, Any]:
    """`boxes` [N, 4] without the rows that are all zero, and which rows these are not: bool [N].

    The result's size depends on values, which JAX cannot trace. `name` is kept for the signature's sake."""
    (boxes,) = _tensors(boxes)
    non_zeros = ops.any(boxes != 0, axis=1)
    return ops.take(boxes, ops.nonzero(non_zeros)[0], axis=0), non_zeros


def batch_pack_graph(x: Any, counts: Any, num_rows: int) -> Any:
    """The first `counts[i]` rows of each x[i], one after the other.

    Args:
        x: [B, rows, ...].
        counts: [B] integers.
        num_rows: B.
    """
    return ops.concatenate([x[i, : counts[i]] for i in range(num_rows)], axis=0)


def norm_boxes_graph(boxes: Any, shape: Any) -> Any:
    """Pixel boxes [..., 4] to normalized ones, in an image of `shape` [..., 2] (height, width)."""
    return normalize_boxes(*_tensors(boxes, shape))


def denorm_boxes_graph(boxes: Any, shape: Any) -> Any:
    """Normalized boxes [..., 4] to pixel ones, int32, rounded half to even; `shape` as for `norm_boxes_graph`."""
    return denormalize_boxes(*_tensors(boxes, shape))


# Images and their metas


def compose_image_meta(
    image_id: int,
    original_image_shape: Sequence[int],
    image_shape: Sequence[int],
    window: Sequence[int],
    scale: float,
    active_class_ids: Sequence[int],
) -> np.ndarray:
    """The meta array [12 + K], float64, of one image; the fields are told by `mrcnn.data.image_meta.ImageMeta`."""
    return ImageMeta(image_id, original_image_shape, image_shape, window, scale, active_class_ids).to_array()


def parse_image_meta(meta: np.ndarray) -> dict[str, np.ndarray]:
    """Metas [B, 12 + K] -> a dict of image_id [B], original_image_shape [B, 3], image_shape [B, 3], window [B, 4] in
    pixels, scale [B] and active_class_ids [B, K]: int32, scale float32."""
    return ImageMeta.parse(np.asarray(meta))


def parse_image_meta_graph(meta: Any) -> dict[str, Any]:
    """As `parse_image_meta`, of a tensor; the fields keep its type."""
    return ImageMeta.parse(_tensors(meta)[0])


def mold_image(images: np.ndarray, config: Config) -> np.ndarray:
    """As `mrcnn.data.molding.mold_image`, of images [..., H, W, C]; but float64, of float32 values."""
    values = ordered(np.asarray(images).astype(np.float32), config)
    mean, std = statistics(config, values.shape[-1])
    return (values - mean) / std


def unmold_image(normalized_images: np.ndarray, config: Config) -> np.ndarray:
    """The inverse of `mold_image`: uint8, rounded (the original cut the fraction off)."""
    return _unmold_image(normalized_images, config)


# Targets and detections


def detection_targets_graph(
    proposals: Any, gt_class_ids: Any, gt_boxes: Any, gt_masks: Any, config: Config
) -> tuple[Any, Any, Any, Any]:
    """The targets of one image's heads, sampled at random.

    Args:
        proposals: [R, 4], zero-padded.
        gt_class_ids: [G] int32, zero-padded, negative for crowds.
        gt_boxes: [G, 4].
        gt_masks: [h, w, G] bool.
        config: its fields about ROIs are read.

    Returns:
        rois [T, 4], class ids [T] int32, deltas [T, 4], masks [T, mask height, mask width]; see `DetectionTargetLayer`.
    """
    layer = DetectionTargetLayer(**target_options(config))
    inputs = _tensors(proposals, gt_class_ids, gt_boxes, gt_masks)
    return tuple(output[0] for output in layer(*(tensor[None] for tensor in inputs)))


def refine_detections_graph(rois: Any, probs: Any, deltas: Any, window: Any, config: Config) -> Any:
    """The detections of one image.

    Args:
        rois: [R, 4].
        probs: [R, K].
        deltas: [R, K, 4].
        window: [4], the part of the molded image that holds the image.
        config: its fields about detections are read.

    Returns:
        [DETECTION_MAX_INSTANCES, (y1, x1, y2, x2, class, score)], zero-padded.
    """
    inputs = _tensors(rois, probs, deltas, window)
    return DetectionLayer(**detection_options(config))(*(tensor[None] for tensor in inputs))[0]


# Losses: scalars, 0 where there is nothing to judge


def smooth_l1_loss(y_true: Any, y_pred: Any) -> Any:
    """Smooth L1, element by element."""
    return losses.smooth_l1(*_tensors(y_true, y_pred))


def rpn_class_loss_graph(rpn_match: Any, rpn_class_logits: Any) -> Any:
    """See `mrcnn.losses.rpn_class_loss`: rpn_match [B, A, 1] int32, rpn_class_logits [B, A, 2]."""
    return losses.rpn_class_loss(*_tensors(rpn_match, rpn_class_logits))


def rpn_bbox_loss_graph(config: Config, target_bbox: Any, rpn_match: Any, rpn_bbox: Any) -> Any:
    """See `mrcnn.losses.rpn_bbox_loss`: target_bbox [B, rows, 4], rpn_match [B, A, 1] int32, rpn_bbox [B, A, 4].
    `config` is kept for the signature's sake."""
    return losses.rpn_bbox_loss(*_tensors(target_bbox, rpn_match, rpn_bbox))


def mrcnn_class_loss_graph(target_class_ids: Any, pred_class_logits: Any, active_class_ids: Any) -> Any:
    """See `mrcnn.losses.mrcnn_class_loss`: target_class_ids [B, T], pred_class_logits [B, T, K], active_class_ids
    [B, K]."""
    target_class_ids, *others = _tensors(target_class_ids, pred_class_logits, active_class_ids)
    return losses.mrcnn_class_loss(ops.cast(target_class_ids, "int32"), *others)


def mrcnn_bbox_loss_graph(target_bbox: Any, target_class_ids: Any, pred_bbox: Any) -> Any:
    """See `mrcnn.losses.mrcnn_bbox_loss`: target_bbox [B, T, 4], target_class_ids [B, T], pred_bbox [B, T, K, 4]."""
    target_bbox, target_class_ids, pred_bbox = _tensors(target_bbox, target_class_ids, pred_bbox)
    return losses.mrcnn_bbox_loss(target_bbox, ops.cast(target_class_ids, "int32"), pred_bbox)


def mrcnn_mask_loss_graph(target_masks: Any, target_class_ids: Any, pred_masks: Any) -> Any:
    """See `mrcnn.losses.mrcnn_mask_loss`: target_masks [B, T, h, w], target_class_ids [B, T], pred_masks
    [B, T, h, w, K]."""
    target_masks, target_class_ids, pred_masks = _tensors(target_masks, target_class_ids, pred_masks)
    return losses.mrcnn_mask_loss(target_masks, ops.cast(target_class_ids, "int32"), pred_masks)


def _tensors(*values: Any) -> list[Any]:
    return [value if isinstance(value, keras.KerasTensor) else _tensor(value) for value in values]


def _tensor(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        value = value.astype(np.float32)  # what numpy makes of most things, and no backend mixes with float32
    return ops.convert_to_tensor(value)
