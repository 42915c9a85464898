"""Random sub-sampling with static shapes.

Letters: B images, N candidates, P and S slots.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from mrcnn.ops.nms import top_k


def draw(mask: Any, count: int, keys: Any) -> tuple[Any, Any]:
    """Take up to `count` of the candidates that `mask` [B, N] marks, those with the largest `keys` [B, N] first.

    With random keys from [0, 1) it is a draw without replacement; with falling keys it takes the first ones.

    Returns:
        indices [B, count] int32, and [B, count] bool: which of them are real.
    """
    missing = count - mask.shape[1]
    if missing > 0:
        mask = ops.pad(mask, [[0, 0], [0, missing]])
        keys = ops.pad(keys, [[0, 0], [0, missing]])
    values, indices = top_k(ops.where(mask, keys, -1.0), count)
    taken = values >= 0
    return ops.where(taken, indices, 0), taken


def compact(taken: Any, count: int) -> tuple[Any, Any]:
    """Positions [B, count] of the marked slots of `taken` [B, S], in their order, and [B, count] bool: the real."""
    slots = taken.shape[1]
    order = ops.cast(ops.arange(slots, 0, -1), "float32")[None]
    values, positions = top_k(ops.where(taken, order, 0.0), count)
    return positions, values > 0
