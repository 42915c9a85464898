"""Data-parallel training: one network on several devices, each with its part of the batch, by the backend's own means.

TensorFlow: a `tf.distribute.MirroredStrategy`. JAX: a `keras.distribution.DataParallel`. PyTorch: as many processes of
one script as there are devices, which `torchrun` starts, joined by `torch.distributed`.

The numbers are those of one device that takes the whole batch; see `mrcnn.ops.replicas`.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.config import Config
from mrcnn.devices import choose_devices
from mrcnn.ops import replicas


class ParallelError(ValueError):
    """Several devices that cannot work together. The message says what would do."""


class DataParallel:
    """How a training network is spread: on this one device.

    Attributes:
        count: devices, each of which takes the same number of a batch's images.
        rank: which part of a batch this process is to load, of `parts`.
        parts: processes that share a batch; 1 where one process feeds all devices.
    """

    count = 1
    rank = 0
    parts = 1

    def building(self) -> AbstractContextManager[Any]:
        """The scope in which the network, its optimizer and its metrics are made."""
        return contextlib.nullcontext()

    def running(self) -> AbstractContextManager[Any]:
        """The scope in which it is trained."""
        return contextlib.nullcontext()

    def align(self, model: keras.Model) -> None:
        """Give the network the same weights everywhere, before training."""

    def wait(self) -> None:
        """Let all processes come to this point."""

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in one of the processes at least; all of them come to this point."""
        return flag

    def feed(self, array: np.ndarray) -> np.ndarray:
        """An input of the network as it can be given to the backend."""
        return array

    def optimizer(self, kind: type, clip_norm: float, **arguments: Any) -> keras.optimizers.Optimizer:
        """A Keras optimizer of a `kind`; all gradients, of the whole batch, clipped together to `clip_norm`."""
        return kind(global_clipnorm=clip_norm, **arguments)

    def share(self, loss: Any) -> Any:
        """What of a replica's loss goes into its gradient, for the backend to put together."""
        return loss


class _OnTensorFlow(DataParallel):
    def __init__(self, devices: list[str]) -> None:
        import tensorflow as tf

        self.count = len(devices)
        self.strategy = tf.distribute.MirroredStrategy(devices)

    def building(self) -> AbstractContextManager[Any]:
        return self.strategy.scope()

    def feed(self, array: np.ndarray) -> np.ndarray:
        return array.astype(np.uint8) if array.dtype == bool else array  # Keras adds the first batch's parts up

    def optimizer(self, kind: type, clip_norm: float, **arguments: Any) -> keras.optimizers.Optimizer:
        # Keras adds the replicas' gradients up, after each has clipped its own. So what it is given is the gradient of
        # the whole batch divided by the replicas, and clipped to a norm so divided.
        return _of_mean_gradients(kind)(global_clipnorm=clip_norm / self.count, **arguments)

    def share(self, loss: Any) -> Any:
        return loss / replicas.count()


class _OnJAX(DataParallel):
    def __init__(self, devices: list[str]) -> None:
        self.count = len(devices)
        self.distribution = keras.distribution.DataParallel(devices=devices)

    def building(self) -> AbstractContextManager[Any]:
        return self.distribution.scope()

    def running(self) -> AbstractContextManager[Any]:
        return self.distribution.scope()


class _OnTorch(DataParallel):
    def __init__(self) -> None:
        from torch import distributed

        self.count = self.parts = distributed.get_world_size()
        self.rank = distributed.get_rank()

    def running(self) -> AbstractContextManager[Any]:
        return replicas.processes()

    def align(self, model: keras.Model) -> None:
        from torch import distributed

        for variable in [*model.variables, *model.optimizer.variables]:
            if variable.value.is_floating_point():  # not the seeds, which are the same everywhere
                distributed.broadcast(variable.value.data, src=0)

    def wait(self) -> None:
        from torch import distributed

        distributed.barrier()

    def any(self, flag: bool) -> bool:
        from torch import distributed

        flags = [flag] * self.parts
        distributed.all_gather_object(flags, flag)
        return any(flags)

    def optimizer(self, kind: type, clip_norm: float, **arguments: Any) -> keras.optimizers.Optimizer:
        return _of_mean_gradients(kind)(global_clipnorm=clip_norm, **arguments)


def _of_mean_gradients(kind: type) -> type:
    """An optimizer that takes the mean of the replicas' gradients before it clips them."""

    class OfMeanGradients(kind):
        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            super().apply(replicas.mean(list(grads)), trainable_variables)

    OfMeanGradients.__name__ = OfMeanGradients.__qualname__ = kind.__name__
    return OfMeanGradients


def data_parallel(config: Config) -> DataParallel:
    """How a training network of a configuration is spread over the devices that there are.

    It takes GPU_COUNT of them; with a warning, if there are fewer, as many of them as GPU_COUNT can be divided by. They
    are GPUs (or TPUs); CPU devices only where there are none, for tests.

    Raises:
        ParallelError: PyTorch's processes are not as many as GPU_COUNT.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        return _torch_processes(config)
    if config.GPU_COUNT == 1:
        return DataParallel()
    devices = list_devices()
    used = max(n for n in range(1, min(config.GPU_COUNT, len(devices)) + 1) if config.GPU_COUNT % n == 0)
    if used < config.GPU_COUNT:
        _tell_of_fewer(config, used, f"{len(devices)} device{'s' * (len(devices) > 1)} here ({', '.join(devices)})")
    if used == 1:
        return DataParallel()
    return (_OnTensorFlow if backend == "tensorflow" else _OnJAX)(devices[:used])


def list_devices() -> list[str]:
    """Names of the devices that this process can compute on: the GPUs (or TPUs); the CPU only where there are none. On
    PyTorch it is one."""
    backend = keras.backend.backend()
    if backend == "jax":
        return keras.distribution.list_devices()
    if backend == "torch":
        return [str(ops.zeros(()).device)]
    import tensorflow as tf

    logical = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name.removeprefix("/device:") for device in logical]


def _torch_processes(config: Config) -> DataParallel:
    from torch import cuda, distributed

    started = int(os.environ.get("WORLD_SIZE", 1))
    if started == 1:
        if config.GPU_COUNT > 1:
            _tell_of_fewer(
                config, 1, f"one process. PyTorch has one for each device: torchrun --nproc-per-node {config.GPU_COUNT}"
            )
        return DataParallel()
    if config.GPU_COUNT % started:
        raise ParallelError(
            f"torchrun has started {started} processes, and GPU_COUNT is {config.GPU_COUNT}. Set GPU_COUNT to "
            f"{started}: a batch is GPU_COUNT x IMAGES_PER_GPU images, and each process takes its part of it."
        )
    if cuda.is_available() and config.GPUS is None:  # each its own; of GPUS it has taken its own already
        choose_devices([int(os.environ.get("LOCAL_RANK", 0)) % cuda.device_count()])
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if cuda.is_available() else "gloo")
    return _OnTorch()


def _tell_of_fewer(config: Config, used: int, there: str) -> None:
    parts = "takes the whole batch" if used == 1 else f"each take 1/{used} of the batch"
    warnings.warn(
        f"GPU_COUNT is {config.GPU_COUNT}, and there {'is' if there.startswith(('1 ', 'one')) else 'are'} {there}. "
        f"Training runs on {used}, which {parts} of {config.BATCH_SIZE} images: the results are the same, time and "
        "memory are not. If memory does not suffice, lower GPU_COUNT or IMAGES_PER_GPU.",
        stacklevel=2,
    )
