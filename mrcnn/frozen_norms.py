"""Training with frozen batch normalization at the cost of none.

With stored statistics a batch normalization multiplies and shifts each channel. The convolution before it can do that:
its kernel is multiplied and its bias shifted in every step anew, so that gradients reach kernel, bias, gamma and beta
as if the two were apart, and the maps between them, the largest part of a step's memory, are never made.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

from mrcnn.folding import foldable, graph_nodes
from mrcnn.layers.normalization import BatchNorm


class FrozenNorms:
    """Runs a functional network, its frozen batch normalizations done by the convolutions before them.

    Args:
        model: functional. Layers, weights and names stay as they are.
    """

    def __init__(self, model: keras.Model) -> None:
        self._nodes = list(graph_nodes(model))
        self._inputs, self._outputs = list(model.inputs), model.outputs
        norms = foldable(model)
        # JAX calls a network in a way that does not hand this on by itself.
        self._told = {id(n.operation) for n in self._nodes if "training" in _arguments(n.operation)}
        own = {id(node.operation): node.operation for node in self._nodes}  # those of nested models stay
        self._pairs = {
            key: _FoldedConvolution(own[key], norm, name=own[key].name)
            for key, norm in norms.items()
            if id(norm) in own and type(own.get(key)) is layers.Conv2D
        }
        for node in self._nodes:  # to multiply these kernels would cost more than it saves
            if id(node.operation) in self._pairs and _is_one_cell(node.operation, node.outputs[0]):
                self._pairs.pop(id(node.operation))
        # A norm behind another convolution too, that is not among these, is left alone.
        apart = {id(norm) for key, norm in norms.items() if key not in self._pairs}
        self._pairs = {key: pair for key, pair in self._pairs.items() if id(pair.normalization) not in apart}

    def takes(self, tensors: Any) -> bool:
        """Whether there is something to gain, and the inputs are such as the network states."""
        flat = keras.tree.flatten(tensors)
        return bool(self._pairs) and [len(x.shape) for x in flat] == [len(t.shape) for t in self._inputs]

    def __call__(self, tensors: Any, training: bool | None) -> list[Any]:
        """The network's outputs for its inputs, inside of its own `call`."""
        found = {
            id(known): ops.convert_to_tensor(x, dtype=known.dtype)
            for known, x in zip(self._inputs, keras.tree.flatten(tensors), strict=True)
        }
        pairs = {key: pair for key, pair in self._pairs.items() if _is_frozen(pair.normalization, training)}
        done = {id(pair.normalization) for pair in pairs.values()}
        for node in self._nodes:
            arguments, options = node.arguments.fill_in(found)
            operation = pairs.get(id(node.operation), node.operation)
            if training is not None and id(operation) in self._told:
                options = {**options, "training": training}
            outputs = arguments[0] if id(operation) in done else operation(*arguments, **options)
            outputs = keras.tree.flatten(outputs)
            found.update({id(known): x for known, x in zip(node.outputs, outputs, strict=True)})
        return [found[id(tensor)] for tensor in self._outputs]


class _FoldedConvolution(layers.Layer):
    """A convolution and the batch normalization behind it as one. A layer, for inside of its own call variables come in
    the precision that they are kept in."""

    def __init__(self, convolution: layers.Conv2D, normalization: layers.BatchNormalization, **kwargs: Any) -> None:
        super().__init__(dtype=convolution.dtype_policy, autocast=False, **kwargs)
        self._parts = _Parts(convolution, normalization)
        self.built = True

    @property
    def normalization(self) -> layers.BatchNormalization:
        return self._parts.normalization

    def call(self, x: Any) -> Any:
        conv, norm = self._parts.convolution, self._parts.normalization
        scale = ops.rsqrt(ops.cast(norm.moving_variance, "float32") + norm.epsilon)
        if norm.gamma is not None:
            scale = scale * norm.gamma
        shift = -norm.moving_mean if conv.bias is None else conv.bias - norm.moving_mean
        shift = shift * scale
        if norm.beta is not None:
            shift = shift + norm.beta
        y = ops.conv(
            ops.cast(x, self.compute_dtype),
            ops.cast(conv.kernel * scale, self.compute_dtype),
            strides=list(conv.strides),
            padding=conv.padding,
            data_format=conv.data_format,
            dilation_rate=conv.dilation_rate,
        )
        shape = (1, 1, 1, -1) if conv.data_format == "channels_last" else (1, -1, 1, 1)
        return ops.add(y, ops.reshape(ops.cast(shift, self.compute_dtype), shape))


@dataclass(frozen=True)
class _Parts:
    """Keras does not look into this, and so takes them for no parts of another layer."""

    convolution: layers.Conv2D
    normalization: layers.BatchNormalization


def _is_one_cell(conv: layers.Conv2D, output: Any) -> bool:
    """Whether each map that a convolution makes is a single cell, as the class head's are: the kernel is the larger."""
    sides = output.shape[1:3] if conv.data_format == "channels_last" else output.shape[2:4]
    return tuple(sides) == (1, 1)


def _arguments(operation: Any) -> Any:
    return inspect.signature(operation.call).parameters if isinstance(operation, layers.Layer) else ()


def _is_frozen(norm: layers.BatchNormalization, training: bool | None) -> bool:
    """Whether a batch normalization takes its stored statistics in this call."""
    if isinstance(norm, BatchNorm) and norm.train_bn is not None:
        return not norm.train_bn
    return not training or not norm.trainable
