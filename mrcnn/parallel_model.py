"""ParallelModel: any functional model, each batch split over several devices within one process.

It is here for scripts that make one themselves. `MaskRCNN` does without: it trains on GPU_COUNT devices by the
backend's own means, with losses that are the whole batch's (see `mrcnn.parallel`).
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mrcnn.parallel import list_devices


class ParallelModel(keras.Model):
    """A model that gives each of `gpu_count` devices a part of the batch and puts together what they find.

    What has a batch axis is concatenated along it; scalars, such as losses, are averaged. Layers, weights, names, and
    methods that begin with "load" or "save" are those of the inner model.

    TensorFlow runs the parts on the devices. JAX has one program for all of them, and so its scalars are those of the
    whole batch. PyTorch has a process for each device, which `torchrun` starts, and runs the parts one after the other.

    Args:
        keras_model: a functional or sequential model.
        gpu_count: parts. With fewer devices each takes several, and a warning tells.

    Attributes:
        inner_model: `keras_model`.

    Raises:
        ValueError: an argument that cannot be.
    """

    def __init__(self, keras_model: keras.Model, gpu_count: int) -> None:
        if isinstance(gpu_count, bool) or not isinstance(gpu_count, int) or gpu_count < 1:
            raise ValueError(f"gpu_count must be a whole number of at least 1. Received: {gpu_count!r}.")
        if not getattr(keras_model, "inputs", None) or not getattr(keras_model, "outputs", None):
            raise ValueError(
                f"keras_model must be a functional model, with inputs and outputs. Received: {keras_model!r}."
            )
        if hasattr(keras_model, "data_parallel"):
            raise ValueError(
                "A training network of MaskRCNN is spread over devices by its own means: leave ParallelModel out, and "
                "set GPU_COUNT in the Config."
            )
        super().__init__(inputs=keras_model.input, outputs=keras_model.output, name=keras_model.name)
        # In a list within an object, where Keras finds no second model whose layers are these too.
        self._held = _Held(keras_model)
        self.gpu_count = gpu_count
        self.devices = list_devices()[:gpu_count]
        if len(self.devices) < gpu_count:
            warnings.warn(
                f"ParallelModel: gpu_count is {gpu_count}, and this process uses {len(self.devices)} "
                f"({', '.join(self.devices)}): it takes the parts of a batch one after the other, which is no faster "
                "than the model itself.",
                stacklevel=2,
            )

    @property
    def inner_model(self) -> keras.Model:
        return self._held.model

    def __getattribute__(self, name: str) -> Any:
        if name.startswith(("load", "save")):
            return getattr(self.inner_model, name)
        return super().__getattribute__(name)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As Keras's, but for `jit_compile`, which on TensorFlow is False: XLA's programs have one device."""
        if keras.backend.backend() == "tensorflow":
            kwargs["jit_compile"] = False
        super().compile(*args, **kwargs)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if self.gpu_count == 1:
            return self.inner_model(inputs, training=training)
        if keras.backend.backend() == "jax" and len(self.devices) > 1:
            return self.inner_model(_sharded(inputs, self.devices), training=training)
        found, counts = [], []
        for number, (part, count) in enumerate(_parts(inputs, self.gpu_count)):
            with _placed(self.devices[number % len(self.devices)]):
                found.append(self.inner_model(part, training=training))
            counts.append(count)
        return keras.tree.map_structure(lambda *outputs: _merged(outputs, counts), *found)


class _Held:
    def __init__(self, model: keras.Model) -> None:
        self.model = model


def _parts(inputs: Any, count: int) -> list[tuple[Any, Any]]:
    """Inputs, each [B, ...], as `count` of them of nearly one size, and how many of its rows are meant: none of the one
    that a part has in a batch that is too small, for layers cannot do without any."""
    batch = ops.shape(keras.tree.flatten(inputs)[0])[0]
    bounds = [batch * number // count for number in range(count + 1)]
    parts = []
    for start, end in itertools.pairwise(bounds):
        rows = max(end - start, 1) if isinstance(batch, int) else ops.maximum(end - start, 1)
        part = keras.tree.map_structure(lambda tensor, start=start, rows=rows: tensor[start : start + rows], inputs)
        parts.append((part, end - start))
    return parts


def _merged(outputs: Sequence[Any], counts: Sequence[Any]) -> Any:
    if len(outputs[0].shape) > 0:
        return ops.concatenate([output[:count] for output, count in zip(outputs, counts, strict=True)], axis=0)
    filled = ops.cast(ops.stack(counts), "float32") > 0
    return ops.sum(ops.where(filled, ops.stack(outputs), 0.0)) / ops.sum(ops.cast(filled, "float32"))


def _placed(device: str) -> contextlib.AbstractContextManager[Any]:
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.device(device)


def _sharded(inputs: Any, devices: Sequence[str]) -> Any:
    """Inputs, their batch axis spread over devices: JAX computes what follows from them there."""
    layouts = keras.distribution.DataParallel(devices=list(devices))
    return keras.tree.map_structure(
        lambda tensor: keras.distribution.distribute_tensor(tensor, layouts.get_data_layout(tensor.shape)), inputs
    )
