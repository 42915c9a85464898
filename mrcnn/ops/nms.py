"""Greedy non-maximum suppression with a result of static size and a mask that says which of it is real.

Letters: B images, N candidates, K results. Boxes (y1, x1, y2, x2) in any one unit.

The rules are TensorFlow's, on every backend: a candidate falls when its IoU with a kept one is *above* the threshold;
ties in score go to the lower index; swapped corners are put in order; a box without area overlaps nothing.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

# Candidates of one image of which all pairs are compared: 2048 make 17 MB of each of some numbers.
_MOST_PAIRED = 2048

_PORTABLE: contextvars.ContextVar[bool] = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """What is traced meanwhile has no kernels of TensorFlow's own in it and no loops of Python's: LiteRT has not got
    the one, and `torch.export` cannot record the other."""
    token = _PORTABLE.set(True)
    try:
        yield
    finally:
        _PORTABLE.reset(token)


def is_portable() -> bool:
    """Whether what is traced now is to be `portable`."""
    return _PORTABLE.get()


def first_of_largest(values: Any) -> Any:
    """Where the largest of the last axis is, the first of equals: [..., N] -> [...] int32.

    Keras's argmax looks at the bits of zeros on TensorFlow, which LiteRT has no operation for."""
    positions = ops.arange(ops.shape(values)[-1], dtype="int32")
    largest = values == ops.amax(values, axis=-1, keepdims=True)
    return ops.amin(ops.where(largest, positions, positions[-1:]), axis=-1)


def top_k(scores: Any, k: Any) -> tuple[Any, Any]:
    """The k largest of [B, N], largest first, as (values, indices) [B, k]. Ties go to the lower index."""
    if keras.backend.backend() == "torch":  # torch.topk leaves the order of ties open
        indices = ops.argsort(-scores, axis=-1)[:, :k]  # a stable sort
        return ops.take_along_axis(scores, indices, axis=-1), ops.cast(indices, "int32")
    values, indices = ops.top_k(scores, k)
    return values, ops.cast(indices, "int32")


def gather(values: Any, indices: Any) -> Any:
    """values [B, N, ...] at indices [B, K] -> [B, K, ...]."""
    shape = ops.shape(values)
    batch = ops.expand_dims(ops.arange(shape[0], dtype="int32") * shape[1], -1)
    flat = ops.reshape(values, (-1, *shape[2:]))
    return ops.take(flat, ops.cast(indices, "int32") + batch, axis=0)


def candidates(scores: Any, least: float | None, most: int) -> tuple[Any, Any]:
    """The entries of [B, N] of at least `least`, largest first.

    Args:
        scores: [B, N], finite.
        least: None: all.
        most: how many there can be in a row, from 1 to N.

    Returns:
        indices [B, C] int32 and [B, C] bool: which of them are real. C is the largest number in a row where the backend
        lets it differ from call to call, else `most`.
    """
    count = most
    if least is not None and keras.backend.backend() != "jax" and not _PORTABLE.get():
        enough = ops.sum(ops.cast(scores >= least, "int32"), axis=-1)
        count = ops.clip(ops.max(enough), 1, most)
        count = count if keras.backend.backend() == "tensorflow" else int(count)
    values, indices = top_k(scores, count)
    return indices, ops.ones_like(values, dtype="bool") if least is None else values >= least


def non_max_suppression(
    boxes: Any, scores: Any, max_outputs: int, iou_threshold: float, valid: Any = None, classes: Any = None
) -> tuple[Any, Any]:
    """Keep the best-scored boxes that do not overlap a better one.

    Args:
        boxes: [B, N, 4] float32.
        scores: [B, N] float32, finite.
        max_outputs: K, how many to keep at most.
        iou_threshold: from 0 to 1.
        valid: [B, N] bool, the candidates that take part; None: all.
        classes: [B, N] int; boxes of different classes do not suppress each other. None: they are all of one class.

    Returns:
        indices [B, K] int32, best first, 0 where nothing is left; kept [B, K] bool. No gradient flows.
    """
    boxes, scores = ops.stop_gradient(boxes), ops.stop_gradient(scores)
    if valid is not None:
        scores = ops.where(valid, scores, float("-inf"))
    # TensorFlow's kernel for classes takes the IoU of all pairs.
    few = classes is None or (boxes.shape[1] is not None and boxes.shape[1] <= _MOST_PAIRED)
    if few and keras.backend.backend() == "tensorflow" and not _PORTABLE.get():
        return _native_tensorflow(boxes, scores, max_outputs, iou_threshold, classes)
    return _greedy(boxes, scores, max_outputs, iou_threshold, classes)


def _overlaps_with_one(boxes: Any, one: Any) -> Any:
    """IoU of boxes [..., N, 4] with one [..., 1, 4], in the order of TensorFlow's kernel, to the last bit."""
    low = ops.maximum(
        ops.minimum(boxes[..., :2], boxes[..., 2:]), ops.minimum(one[..., :2], one[..., 2:])
    )  # the corner nearer the origin of the intersection
    high = ops.minimum(ops.maximum(boxes[..., :2], boxes[..., 2:]), ops.maximum(one[..., :2], one[..., 2:]))
    sides = ops.relu(high - low)
    intersection = sides[..., 0] * sides[..., 1]
    area, area_one = _absolute_area(boxes), _absolute_area(one)
    union = area + area_one - intersection
    real = ops.logical_and(area > 0, area_one > 0)
    return ops.where(real, intersection, ops.zeros_like(union)) / ops.where(real, union, ops.ones_like(union))


def _absolute_area(boxes: Any) -> Any:
    sides = ops.abs(boxes[..., 2:] - boxes[..., :2])
    return sides[..., 0] * sides[..., 1]


def _native_tensorflow(
    boxes: Any, scores: Any, max_outputs: int, iou_threshold: float, classes: Any
) -> tuple[Any, Any]:
    """TensorFlow's C++ kernels, image by image inside the graph: they know no batch axis."""
    import tensorflow as tf

    def pad(indices: Any) -> tuple[Any, Any]:
        count = tf.shape(indices)[0]
        return (
            tf.ensure_shape(tf.pad(indices, [[0, max_outputs - count]]), [max_outputs]),
            tf.range(max_outputs) < count,
        )

    def one_class(inputs: tuple[Any, Any]) -> tuple[Any, Any]:
        image_boxes, image_scores = inputs
        return pad(
            tf.image.non_max_suppression(
                image_boxes, image_scores, max_outputs, iou_threshold, score_threshold=scores.dtype.min
            )
        )

    def class_by_class(inputs: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        image_boxes, image_scores, image_classes = inputs
        overlaps = _overlaps_with_one(image_boxes[None], image_boxes[:, None])
        overlaps = tf.where(image_classes[:, None] == image_classes[None], overlaps, 0.0)
        # This kernel has no score threshold that excludes minus infinity, so what is invalid goes first.
        candidates = tf.where(image_scores > scores.dtype.min)[:, 0]
        kept = tf.image.non_max_suppression_overlaps(
            tf.gather(tf.gather(overlaps, candidates), candidates, axis=1),
            tf.gather(image_scores, candidates), max_outputs, iou_threshold,
        )  # fmt: skip
        return pad(tf.cast(tf.gather(candidates, kept), "int32"))

    signature = (tf.TensorSpec([max_outputs], tf.int32), tf.TensorSpec([max_outputs], tf.bool))
    if classes is None:
        return tf.map_fn(one_class, (boxes, scores), fn_output_signature=signature)
    return tf.map_fn(class_by_class, (boxes, scores, classes), fn_output_signature=signature)


def _greedy(boxes: Any, scores: Any, max_outputs: int, iou_threshold: float, classes: Any) -> tuple[Any, Any]:
    """All images at once, one kept box a step: for backends without a kernel of their own.

    No number is made a tensor inside the loop, for `torch.export` cannot store such a loop."""
    batch, count = ops.shape(scores)
    positions = ops.arange(count, dtype="int32")[None]
    slots = ops.arange(max_outputs, dtype="int32")[None]
    gone_score = ops.full((1, 1), float("-inf"), scores.dtype)

    def anything_left(step: Any, left: Any, indices: Any, kept: Any) -> Any:
        return ops.logical_and(step < max_outputs, ops.any(left > float("-inf")))

    def keep_best(step: Any, left: Any, indices: Any, kept: Any) -> tuple[Any, ...]:
        best = first_of_largest(left)[:, None]
        found = ops.take_along_axis(left, best, axis=-1) > float("-inf")
        suppressed = _overlaps_with_one(boxes, gather(boxes, best)) > iou_threshold
        if classes is not None:
            suppressed = ops.logical_and(suppressed, classes == ops.take_along_axis(classes, best, axis=-1))
        gone = ops.logical_or(suppressed, positions == best)
        here = ops.logical_and(slots == step, found)
        return (
            step + 1,
            ops.where(gone, gone_score, left),
            ops.where(here, best, indices),
            ops.logical_or(kept, here),
        )

    empty = ops.zeros((batch, max_outputs), "int32")
    _, _, indices, kept = _while_loop(
        anything_left,
        keep_best,
        (ops.convert_to_tensor(0, "int32"), scores, empty, ops.zeros((batch, max_outputs), "bool")),
    )
    return indices, kept


def _while_loop(condition: Any, body: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    if keras.backend.backend() == "torch" and _PORTABLE.get():  # where Keras's is one of Python, which is not recorded
        from torch._higher_order_ops.while_loop import while_loop

        return while_loop(condition, body, tuple(value.clone() for value in state))
    return ops.while_loop(condition, body, state)
