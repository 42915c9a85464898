"""Layers of keras.applications' networks as ONNX nodes that others hardly have; see `mrcnn.graph.keras_layers`."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from mrcnn.engines.base import EngineError
from mrcnn.graph.keras_layers import (
    _TO_CHANNELS_FIRST,
    _TO_CHANNELS_LAST,
    KerasGraph,
    _elementwise,
    _handles,
    padding,
    values_of,
)


@_handles("LayerNormalization")
def _layer_normalization(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    rank = len(node.input_tensors[0].shape)
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    if [axis % rank for axis in axes] != [rank - 1]:
        raise EngineError(
            f"Layer {layer.name!r}: layer normalization has an ONNX form here along the last axis. Received: "
            f"axis {layer.axis} of {rank}. The engine keras runs it."
        )
    graph, channels = to.graph, node.input_tensors[0].shape[-1]
    scale = values_of(layer.gamma) if layer.scale else np.ones(channels)
    shift = values_of(layer.beta) if layer.center else np.zeros(channels)
    x = graph.Transpose(inputs[0], perm=_TO_CHANNELS_LAST) if rank == 4 else inputs[0]
    constants = [graph.constant(value, np.float32) for value in (scale, shift)]
    y = graph.node("LayerNormalization", [x, *constants], name=layer.name, axis=-1, epsilon=layer.epsilon)
    return graph.Transpose(y, perm=_TO_CHANNELS_FIRST) if rank == 4 else y


@_handles("LayerScale")
def _layer_scale(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    scale = values_of(layer.gamma)
    shape = (-1, 1, 1) if len(node.input_tensors[0].shape) == 4 else (-1,)
    return to.graph.Mul(inputs[0], to.graph.constant(scale.reshape(shape), np.float32))


@_handles("SeparableConv2D")
def _separable(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    graph, kernel = to.graph, values_of(layer.depthwise_kernel)
    height, width, channels, multiplier = kernel.shape
    kernel = kernel.reshape(height, width, 1, channels * multiplier).transpose(3, 2, 0, 1)
    x = graph.node(
        "Conv", [inputs[0], graph.constant(kernel, np.float32, f"{layer.name}/depthwise_kernel")],
        name=f"{layer.name}/depthwise", group=channels, kernel_shape=[height, width], strides=list(layer.strides),
        dilations=list(layer.dilation_rate),
        **padding(layer.padding, (height, width), layer.strides, layer.dilation_rate),
    )  # fmt: skip
    pointwise = values_of(layer.pointwise_kernel).transpose(3, 2, 0, 1)
    last = [x, graph.constant(pointwise, np.float32, f"{layer.name}/pointwise_kernel")]
    if layer.use_bias:
        last.append(graph.constant(values_of(layer.bias), np.float32, f"{layer.name}/bias"))
    return to.activate(layer.activation, graph.node("Conv", last, name=layer.name), layer)


@_handles("Add", "Multiply")
def _with_a_number(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    """Sums and products with a number too, as `x + 3.0` makes them."""
    numbers = [value for value in node.arguments.args if isinstance(value, Real) and not isinstance(value, bool)]
    if len(inputs) != 1 or len(numbers) != 1 or len(node.arguments.args) != 2:
        return _elementwise(to, layer, inputs, node)
    op = "Add" if "Add" in [kind.__name__ for kind in type(layer).__mro__] else "Mul"
    return to.graph.node(op, [inputs[0], to.graph.scalar(float(numbers[0]))], name=layer.name)
