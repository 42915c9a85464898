"""What a replica of data-parallel training has to ask the others, so that together they compute what one device would.

A replica is one device with its part of the batch: a thread of `tf.distribute` on TensorFlow, a process on PyTorch. The
parts are of one size. On JAX there is none, for a program there is one of the whole batch however many devices run it;
nor is there outside of training. Everything here is then the plain thing.

The losses are means over the ROIs and anchors of the whole batch, whose number differs from image to image; so the mean
of the replicas' own means would not do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

_PROCESSES: ContextVar[bool] = ContextVar("mrcnn_processes", default=False)


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """On PyTorch: the processes of the default process group are replicas, in this block."""
    token = _PROCESSES.set(True)
    try:
        yield
    finally:
        _PROCESSES.reset(token)


def count() -> int:
    """Replicas that this code runs in; 1 where it is no data-parallel training."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        context = _tensorflow_context()
        return 1 if context is None else context.num_replicas_in_sync
    if backend == "torch" and _PROCESSES.get():
        import torch.distributed

        return torch.distributed.get_world_size()
    return 1


def index() -> Any:
    """The number of this replica, from 0 on: replica 0 has the first images of the batch."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        context = _tensorflow_context()
        return 0 if context is None else context.replica_id_in_sync_group
    if backend == "torch" and _PROCESSES.get():
        import torch.distributed

        return torch.distributed.get_rank()
    return 0


def mean(values: Any) -> Any:
    """Mean over the replicas of a tensor, or of each of a list of them. The gradient passes, as the mean too."""
    if count() == 1:
        return values
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return _tensorflow_context().all_reduce(tf.distribute.ReduceOp.MEAN, values)
    if isinstance(values, list | tuple):
        return _torch_means(values)
    return _torch_mean(values)


def first(value: Any) -> Any:
    """The first replica's `value`, a float tensor. No gradient flows."""
    if count() == 1:
        return value
    mine = ops.cast(ops.equal(index(), 0), value.dtype)
    return mean(ops.stop_gradient(value) * mine) * count()


def quotient(part: Any, size: Any) -> Any:
    """part / size, of the whole batch; 0 where size is.

    Args:
        part: scalar, this replica's part of a sum over the batch.
        size: scalar, how many it has summed.

    Returns:
        The same number on every replica. The gradient is that of this replica's part, so that the *mean* of all
        replicas' gradients is that of the whole.
    """
    replicas = count()
    if replicas == 1:
        return part / ops.maximum(size, 1.0)
    sums = mean(ops.stop_gradient(ops.stack([part, size]))) * replicas
    size = ops.maximum(sums[1], 1.0)
    own = part * replicas / size
    return own + ops.stop_gradient(sums[0] / size - own)


def rows(draw: Callable[[Any], Any], own: Any) -> Any:
    """The rows of this replica out of `draw(number of rows of the whole batch)`, which is the same on every replica.

    Args:
        draw: number of rows -> [rows, ...].
        own: how many of them this replica has.
    """
    replicas = count()
    if replicas == 1:
        return draw(own)
    start = index() * own
    return draw(replicas * own)[start : start + own]


def moments(x: Any, axes: list[int]) -> tuple[Any, Any]:
    """Mean and variance of `x` over `axes`, the batch's among them, and over the replicas."""
    if count() == 1:
        return ops.moments(x, axes)
    center = mean(ops.mean(x, axis=axes, keepdims=True))
    variance = mean(ops.mean(ops.square(x - center), axis=axes))
    return ops.squeeze(center, axis=axes), variance


def _tensorflow_context() -> Any:
    import tensorflow as tf

    return tf.distribute.get_replica_context()


def _torch_mean(value: Any) -> Any:
    import torch

    class Mean(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, value: Any) -> Any:
            return _torch_means([value])[0]

        @staticmethod
        def backward(_: Any, gradient: Any) -> Any:
            return _torch_means([gradient])[0]

    return Mean.apply(value)


def _torch_means(values: list[Any] | tuple[Any, ...]) -> list[Any]:
    """All in one message, for each costs its time."""
    import torch

    flat = torch.cat([value.reshape(-1) for value in values])
    torch.distributed.all_reduce(flat)  # the sum: gloo knows no mean
    flat /= torch.distributed.get_world_size()
    parts = flat.split([value.numel() for value in values])
    return [part.reshape(value.shape) for part, value in zip(parts, values, strict=True)]
