"""The five losses, as pure functions of tensors, and the layer that puts one into a graph.

Letters: B images, A anchors, T sampled rois, K classes (0 is background). Each loss is a scalar over the whole batch,
float32, and 0 where it has nothing to judge. Faster R-CNN, equation 1; Mask R-CNN, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mrcnn.config import LOSS_NAMES
from mrcnn.ops import replicas
from mrcnn.ops.nms import gather

# Probabilities are kept this far from 0 and 1 before the logarithm.
EPSILON = 1e-7


def smooth_l1(target: Any, predicted: Any, beta: float = 1.0) -> Any:
    """Smooth L1 (Fast R-CNN, equation 3), element by element: squares below `beta`, absolute values above it; with 0
    absolute values alone."""
    distance = ops.abs(target - predicted)
    if beta == 0:
        return distance
    if beta == 1:
        return ops.where(distance < 1.0, 0.5 * distance * distance, distance - 0.5)
    return ops.where(distance < beta, (0.5 / beta) * distance * distance, distance - 0.5 * beta)


def _cross_entropy(classes: Any, logits: Any) -> Any:
    """Softmax cross-entropy [...] of logits [..., K] against classes [...]."""
    log_probabilities = ops.log_softmax(logits, axis=-1)
    return -ops.sum(ops.one_hot(classes, logits.shape[-1]) * log_probabilities, axis=-1)


def _binary_cross_entropy(positive: Any, logits: Any) -> Any:
    """Binary cross-entropy [...] of logits [...] against 0 and 1 [...]."""
    return ops.relu(logits) - logits * positive + ops.log1p(ops.exp(-ops.abs(logits)))


def _real(rois: Any) -> Any:
    """Which rows [B, T] of sampled regions [B, T, 4] are no padding: 0 and 1."""
    return ops.cast(ops.any(rois != 0, axis=-1), "float32")


def _mean(values: Any, weights: Any) -> Any:
    """Mean of the values whose weight is 1; 0 where there is none. It is the whole batch's on several devices too."""
    return replicas.quotient(ops.sum(ops.where(weights > 0, values, 0.0)), ops.sum(weights))


def rpn_class_loss(rpn_match: Any, rpn_class_logits: Any) -> Any:
    """Cross-entropy of the anchors that are positive (1) or negative (-1), not neutral (0).

    rpn_match [B, A, 1] int32; rpn_class_logits [B, A, 2] (background, foreground), or [B, A, 1], the foreground.
    """
    match = rpn_match[..., 0]
    if rpn_class_logits.shape[-1] == 1:
        losses = _binary_cross_entropy(ops.cast(match == 1, "float32"), rpn_class_logits[..., 0])
    else:
        losses = _cross_entropy(ops.cast(match == 1, "int32"), rpn_class_logits)
    return _mean(losses, ops.cast(match != 0, "float32"))


def rpn_bbox_loss(
    target_bbox: Any, rpn_match: Any, rpn_bbox: Any, beta: float = 1.0, over_samples: bool = False
) -> Any:
    """Smooth L1 over the deltas of positive anchors: their mean, or with `over_samples` their sum divided by the number
    of anchors that are not neutral.

    target_bbox [B, rows, 4]: the targets of an image's positive anchors in their order, then padding; rpn_match
    [B, A, 1] int32; rpn_bbox [B, A, 4].
    """
    positive = rpn_match[..., 0] == 1
    row = ops.cumsum(ops.cast(positive, "int32"), axis=-1) - 1
    targets = gather(target_bbox, ops.clip(row, 0, ops.shape(target_bbox)[1] - 1))
    losses = smooth_l1(targets, rpn_bbox, beta)
    if over_samples:
        count = ops.sum(ops.cast(rpn_match != 0, "float32"))
        return replicas.quotient(ops.sum(ops.where(positive[..., None], losses, 0.0)), count)
    return _mean(losses, ops.cast(positive, "float32")[..., None] * ops.ones((4,)))


def mrcnn_class_loss(
    target_class_ids: Any,
    pred_class_logits: Any,
    active_class_ids: Any,
    rois: Any = None,
    per_image: bool = False,
    class_weights: Sequence[float] | None = None,
    focal_gamma: float = 0.0,
) -> Any:
    """Cross-entropy of each ROI, counted where the *predicted* class is one that the image's source knows.

    target_class_ids [B, T] int32; pred_class_logits [B, T, K]; active_class_ids [B, K] of 0 and 1. With rois [B, T, 4]
    every one of them that is no padding counts, whatever it is predicted to be.

    `legacy:` image 0's active classes hold for the whole batch unless `per_image` is True, and padding rows count as
    background.

    `class_weights` [K]: the mean over ROIs is one weighted by their target classes, so that only the relation of the
    weights matters. `focal_gamma`: each ROI's cross-entropy is multiplied by (1 - p) ** gamma, p the probability of its
    target class (Lin et al., Focal Loss for Dense Object Detection, equation 4); the mean is over as many as before.
    """
    predicted = ops.argmax(pred_class_logits, axis=-1)
    active = ops.cast(active_class_ids, "float32")
    if rois is not None:
        active = _real(rois)
    elif per_image:
        active = ops.take_along_axis(active, predicted, axis=1)
    else:
        active = ops.take(replicas.first(active[0]), predicted)
    losses = _cross_entropy(target_class_ids, pred_class_logits)
    if focal_gamma:
        # 1 - p without the rounding of p near 1; kept off 0, where a power below 1 has no gradient.
        losses = losses * ops.maximum(-ops.expm1(-losses), EPSILON) ** focal_gamma
    if class_weights is None:
        return _mean(losses, active)
    # Of the least as 1: what they sum to is then 1 or more where there is anything to judge.
    least = min(weight for weight in class_weights if weight > 0)
    weights = ops.convert_to_tensor([weight / least for weight in class_weights], "float32")
    weights = active * ops.take(weights, target_class_ids)
    return replicas.quotient(ops.sum(ops.where(weights > 0, losses * weights, 0.0)), ops.sum(weights))


def mrcnn_bbox_loss(
    target_bbox: Any, target_class_ids: Any, pred_bbox: Any, rois: Any = None, beta: float = 1.0
) -> Any:
    """Smooth L1 over the target class's deltas of positive ROIs: their mean, or, with rois [B, T, 4], their sum divided
    by the number of those that are no padding.

    target_bbox [B, T, 4]; target_class_ids [B, T] int32; pred_bbox [B, T, K, 4].
    """
    positive = target_class_ids > 0
    classes = ops.where(positive, target_class_ids, 0)
    predicted = ops.take_along_axis(pred_bbox, classes[..., None, None], axis=2)[..., 0, :]
    losses = smooth_l1(target_bbox, predicted, beta)
    if rois is not None:
        return replicas.quotient(ops.sum(ops.where(positive[..., None], losses, 0.0)), ops.sum(_real(rois)))
    return _mean(losses, ops.cast(positive, "float32")[..., None] * ops.ones((4,)))


def mrcnn_mask_loss(target_masks: Any, target_class_ids: Any, pred_masks: Any) -> Any:
    """Binary cross-entropy over the target class's mask of positive ROIs.

    target_masks [B, T, h, w] of 0 and 1; target_class_ids [B, T] int32; pred_masks [B, T, h, w, K] probabilities.
    """
    positive = target_class_ids > 0
    classes = ops.where(positive, target_class_ids, 0)
    # A sum over the classes but for one is zero: to take along the axis is slow in its gradient, which scatters.
    chosen = ops.one_hot(classes, pred_masks.shape[-1], dtype=pred_masks.dtype)[:, :, None, None]
    predicted = ops.sum(pred_masks * chosen, axis=-1)
    # A clip whose gradient is the same on all backends: they split it differently where the bound is met exactly.
    predicted = ops.where(predicted < EPSILON, EPSILON, predicted)
    predicted = ops.where(predicted > 1.0 - EPSILON, 1.0 - EPSILON, predicted)
    losses = -target_masks * ops.log(predicted) - (1.0 - target_masks) * ops.log(1.0 - predicted)
    weights = ops.cast(positive, "float32")[..., None, None] * ops.ones(target_masks.shape[2:])
    return _mean(losses, weights)


LOSSES = {
    function.__name__: function
    for function in (rpn_class_loss, rpn_bbox_loss, mrcnn_class_loss, mrcnn_bbox_loss, mrcnn_mask_loss)
}


@keras.saving.register_keras_serializable("mrcnn")
class LossLayer(keras.layers.Layer):
    """One of the five losses as a layer, named like the loss: its inputs are the function's arguments, in order, and
    `options` those that are no tensors."""

    def __init__(self, name: str, options: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if name not in LOSSES:
            raise ValueError(f"A LossLayer is named after its loss: {', '.join(LOSS_NAMES)}. Received: {name!r}.")
        super().__init__(**{"name": name, "dtype": "float32", **kwargs})
        self.options = dict(options or {})

    def call(self, *tensors: Any) -> Any:
        return LOSSES[self.name](*tensors, **self.options)

    def compute_output_spec(self, *tensors: Any) -> Any:
        return keras.KerasTensor((), "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "options": dict(self.options)}
