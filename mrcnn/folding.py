"""A network prepared for inference: batch normalization folded into convolutions, in a precision of choice.

With stored statistics a batch normalization multiplies and shifts each channel, which the convolution before it can
do in its kernel and bias for nothing. The folded network is a copy, so that the original can be trained on.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

from mrcnn.layers.normalization import BatchNorm

# Layers with weights that compute in float32 whatever the precision of the rest: what they say is what proposals are
# ranked by, where boxes are, and how sure a detection is. `network.py` and `layers/` declare the same.
_FLOAT32_LAYERS = ("rpn_class_raw", "rpn_bbox_pred", "mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask")

_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.Conv2DTranspose, layers.Dense)
_NORMALIZATIONS = (layers.BatchNormalization, BatchNorm)


def fold_batch_norm(model: keras.Model, dtype: str | None = None) -> keras.Model:
    """Copy a functional network, each batch normalization folded into the convolution or dense layer before it.

    What cannot be folded stays: one that takes the batch's statistics, one whose convolution is used elsewhere too or
    has an activation, one that follows no convolution. Nested models are copied with their insides, shared layers
    stay shared, and all layers keep their names.

    Args:
        model: functional or sequential, built; it is left as it is. Later changes of its weights do not reach the copy.
        dtype: what the copy's layers hold and compute, such as "bfloat16"; None: what they do in `model`. Scores,
            boxes and masks, and whatever is made of these alone, stay float32.

    Returns:
        A functional model with the inputs and outputs of `model`.

    Raises:
        ValueError: a model that is not functional, or a dtype that is not of floating point.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
        raise ValueError(f"fold_batch_norm takes a built functional keras.Model. Received: {model!r}.")
    if dtype is not None and dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"dtype must be float32, bfloat16, float16 or None. Received: {dtype!r}.")
    return _Copy(model, dtype).of_graph(model)


class _Copy:
    """The copies made of one network's operations."""

    def __init__(self, model: keras.Model, dtype: str | None) -> None:
        self.dtype = dtype
        self.normalization_of = foldable(model)
        self.folded = {id(layer) for layer in self.normalization_of.values()}
        self.copies: dict[int, Any] = {}

    def of_graph(self, model: keras.Model, dtypes: list[str] | None = None) -> keras.Model:
        """Copy a functional model; `dtypes` are those of its inputs if not the ones that it states."""
        inputs = [
            keras.Input(batch_shape=tensor.shape, dtype=dtype, name=tensor.name)
            for tensor, dtype in zip(model.inputs, dtypes or [t.dtype for t in model.inputs], strict=True)
        ]
        tensors = {id(old): new for old, new in zip(model.inputs, inputs, strict=True)}
        for node in graph_nodes(model):
            arguments, options = node.arguments.fill_in(tensors)
            if id(node.operation) in self.folded:
                outputs = tensors[id(node.input_tensors[0])]
            else:
                operation = self._of_operation(node.operation, [tensors[id(t)].dtype for t in node.input_tensors])
                outputs = operation(*arguments, **options)
                self._copy_weights(node.operation, operation)
            new = keras.tree.flatten(outputs)
            tensors.update({id(old): tensor for old, tensor in zip(node.outputs, new, strict=True)})
        # `input` and `output` of a sequential model are those of a call of it, where it was called.
        single = isinstance(model, keras.Sequential)
        return keras.Model(
            inputs[0] if single else keras.tree.pack_sequence_as(model.input, inputs),
            keras.tree.map_structure(lambda t: tensors[id(t)], model.outputs[0] if single else model.output),
            name=model.name,
        )

    def _of_operation(self, operation: Any, dtypes: list[str]) -> Any:
        """The copy of an operation, made at its first call, where `dtypes` are those of its inputs."""
        if id(operation) not in self.copies:
            if _is_graph(operation):
                made = self.of_graph(operation, dtypes)
            elif isinstance(operation, layers.Layer):
                made = self._of_layer(operation, dtypes)
            else:
                made = copy.copy(operation)
                made._inbound_nodes, made._outbound_nodes = [], []  # whose calls are the original's
            self.copies[id(operation)] = made
        return self.copies[id(operation)]

    def _of_layer(self, layer: Any, dtypes: list[str]) -> Any:
        config = layer.get_config()
        if self.dtype is not None:
            if not layer.weights:  # goes with what it is given
                config["dtype"] = self.dtype if self.dtype in dtypes else config["dtype"]
            elif layer.name in _FLOAT32_LAYERS:
                config["dtype"] = "float32"
            elif isinstance(layer, layers.BatchNormalization) and self.dtype != "float32":
                config["dtype"] = f"mixed_{self.dtype}"  # statistics are few, and need their digits
            else:
                config["dtype"] = self.dtype
        if type(layer) in _CONVOLUTIONS:
            config["use_bias"] = layer.use_bias or id(layer) in self.normalization_of
            config.update({key: "zeros" for key in config if key.endswith("_initializer")})  # in place of random ones
        return type(layer).from_config(config)

    def _copy_weights(self, old: Any, new: Any) -> None:
        """Give a copied layer its weights, folded where it is to be; a nested model has its own by now."""
        if not isinstance(old, layers.Layer) or _is_graph(old):
            return
        if id(old) in self.normalization_of:
            kernel, bias = _fold(old, self.normalization_of[id(old)])
            new.kernel.assign(kernel)
            new.bias.assign(bias)
            return
        for weight, value in zip(new.weights, old.weights, strict=True):
            weight.assign(keras.ops.convert_to_numpy(value))


def graph_nodes(model: keras.Model) -> Iterator[Any]:
    """The calls of a functional model's operations, without its inputs, each after those that it depends on."""
    done = {id(tensor) for tensor in model.inputs}
    left = [(tensor, False) for tensor in reversed(model.outputs)]
    while left:
        tensor, ready = left.pop()
        if id(tensor) in done:
            continue
        history = tensor._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        if not ready:
            left.append((tensor, True))
            left.extend((parent, False) for parent in node.input_tensors)
            continue
        done.update(id(output) for output in node.outputs)
        yield node


def _is_graph(operation: Any) -> bool:
    return isinstance(operation, keras.Model) and bool(getattr(operation, "outputs", None))


def _graphs(model: keras.Model) -> list[tuple[list[Any], list[Any]]]:
    """The calls and the outputs of a model, and of every model nested in it."""
    graphs, left, seen = [], [model], set()
    while left:
        nested = left.pop()
        if id(nested) not in seen:
            seen.add(id(nested))
            nodes = list(graph_nodes(nested))
            graphs.append((nodes, list(nested.outputs)))
            left.extend(node.operation for node in nodes if _is_graph(node.operation))
    return graphs


def foldable(model: keras.Model) -> dict[int, Any]:
    """By the id of a convolution, the batch normalization that it can take over."""
    graphs = _graphs(model)
    # What a layer of two graphs is followed by in one of them, it need not be in the other.
    homes = Counter(operation for nodes, _ in graphs for operation in {id(node.operation) for node in nodes})
    found = {}
    for nodes, outputs in graphs:
        calls: dict[int, list[Any]] = {}
        users: dict[int, list[Any]] = {id(tensor): [model] for tensor in outputs}
        for node in nodes:
            calls.setdefault(id(node.operation), []).append(node)
            for tensor in node.input_tensors:
                users.setdefault(id(tensor), []).append(node.operation)
        for norm in (node.operation for node in nodes if type(node.operation) in _NORMALIZATIONS):
            before = [call.input_tensors[0]._keras_history.operation for call in calls[id(norm)]]
            results = [call.outputs[0] for layer in before for call in calls.get(id(layer), [])]
            if (
                all(homes[id(layer)] == 1 for layer in [norm, *before])
                and all(_uses_stored_statistics(call) for call in calls[id(norm)])
                and all(_is_linear(layer, norm) for layer in before)
                and all(users[id(result)] == [norm] for result in results)
            ):
                found.update({id(layer): norm for layer in before})
    return found


def _uses_stored_statistics(call: Any) -> bool:
    """Whether this call of a batch normalization does at inference."""
    training = [*call.arguments.args[1:], call.arguments.kwargs.get("training")]
    return not getattr(call.operation, "train_bn", None) and not any(value is True for value in training)


def _is_linear(layer: Any, norm: Any) -> bool:
    """Whether `layer` is a convolution or the like, without activation, whose channels are what `norm` normalizes."""
    if type(layer) not in _CONVOLUTIONS or layer.activation is not keras.activations.linear:
        return False
    rank = len(norm._inbound_nodes[0].outputs[0].shape)
    channels = 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1
    return norm.axis % rank == channels


def _fold(layer: Any, norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of `layer` followed by `norm`."""

    def value(weight: Any, default: float) -> np.ndarray:
        return np.float64(default) if weight is None else keras.ops.convert_to_numpy(weight).astype(np.float64)

    scale = value(norm.gamma, 1.0) / np.sqrt(value(norm.moving_variance, 1.0) + norm.epsilon)
    bias = (value(layer.bias if layer.use_bias else None, 0.0) - value(norm.moving_mean, 0.0)) * scale
    kernel = value(layer.kernel, 1.0)
    if isinstance(layer, layers.DepthwiseConv2D):
        by_channel = scale.reshape(kernel.shape[-2:])  # [h, w, channels, multiplier]
    elif isinstance(layer, layers.Conv2DTranspose):
        by_channel = scale[:, None]  # [h, w, filters, channels]
    else:
        by_channel = scale
    return (kernel * by_channel).astype(np.float32), (bias + value(norm.beta, 0.0)).astype(np.float32)
