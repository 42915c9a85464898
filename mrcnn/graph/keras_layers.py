"""Keras layers as ONNX nodes: walks a functional model from wanted tensors back to its inputs.

What Keras holds as [B, H, W, C] is [B, C, H, W] in the graph, as every runtime wants it; tensors of other ranks are
laid out as in Keras. Sizes stay open. Layers are read, never run, so that any backend serves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from mrcnn.engines.base import EngineError
from mrcnn.graph.builder import GraphBuilder

_TO_CHANNELS_FIRST, _TO_CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]

Handler = Callable[["KerasGraph", Any, list[str], Any], str]
_HANDLERS: dict[str, Handler] = {}


def _handles(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        _HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def values_of(variable: Any) -> np.ndarray:
    """A variable's values, float32."""
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32")), np.float32)


class KerasGraph:
    """Writes the part of a functional model that some tensors depend on.

    Args:
        graph: where the nodes go.
        given: names in the graph of the Keras tensors that are there already: the inputs, usually.
    """

    def __init__(self, graph: GraphBuilder, given: Sequence[tuple[Any, str]]) -> None:
        self.graph = graph
        self._done = {id(tensor): name for tensor, name in given}

    def tensor(self, wanted: Any) -> str:
        """The name in the graph of a Keras tensor.

        Raises:
            EngineError: it depends on a layer that has no ONNX form here.
        """
        # Without recursion over layers: a deep backbone would exceed Python's limit.
        waiting = [wanted]
        while waiting:
            tensor = waiting[-1]
            if id(tensor) in self._done:
                waiting.pop()
                continue
            operation, node_index, _ = tensor._keras_history
            node = operation._inbound_nodes[node_index]
            missing = [parent for parent in node.input_tensors if id(parent) not in self._done]
            if missing:
                waiting += missing
            else:
                self._write(operation, node)
        return self._done[id(wanted)]

    def _write(self, operation: Any, node: Any) -> None:
        inputs = [self._done[id(tensor)] for tensor in node.input_tensors]
        if isinstance(operation, keras.Model):
            inside = KerasGraph(self.graph, list(zip(operation.inputs, inputs, strict=True)))
            names = [inside.tensor(tensor) for tensor in operation.outputs]
        else:
            handler = _handler_of(type(operation))
            if handler is None or getattr(operation, "data_format", None) == "channels_first":
                raise EngineError(
                    f"Layer {operation.name!r} ({type(operation).__name__}) has no ONNX form here, which the engines "
                    f"openvino and onnxruntime need. Known: {', '.join(sorted(_HANDLERS))}. The engine keras runs any."
                )
            names = [handler(self, operation, inputs, node)]
        self._done.update({id(tensor): name for tensor, name in zip(node.output_tensors, names, strict=True)})

    # Parts of handlers

    def conv(self, layer: Any, x: str, kernel: np.ndarray, groups: int = 1) -> str:
        """A convolution with a kernel [h, w, C in / groups, C out], its bias and its activation."""
        inputs = [x, self.graph.constant(kernel.transpose(3, 2, 0, 1), np.float32, f"{layer.name}/kernel")]
        if layer.use_bias:
            inputs.append(self.graph.constant(values_of(layer.bias), np.float32, f"{layer.name}/bias"))
        y = self.graph.node(
            "Conv", inputs, name=layer.name, group=groups, kernel_shape=list(kernel.shape[:2]),
            strides=list(layer.strides), dilations=list(layer.dilation_rate),
            **padding(layer.padding, kernel.shape[:2], layer.strides, layer.dilation_rate),
        )  # fmt: skip
        return self.activate(layer.activation, y, layer)

    def activate(self, function: Any, x: str, layer: Any) -> str:
        """An activation by its Keras function."""
        name = getattr(function, "__name__", str(function))
        if function is None or name == "linear":
            return x
        graph = self.graph
        writers: dict[str, Callable[[], str]] = {
            "relu": lambda: graph.Relu(x),
            "relu6": lambda: graph.Clip(x, graph.scalar(0.0), graph.scalar(6.0)),
            "sigmoid": lambda: graph.Sigmoid(x),
            "tanh": lambda: graph.Tanh(x),
            "silu": lambda: graph.Mul(x, graph.Sigmoid(x)),
            "swish": lambda: graph.Mul(x, graph.Sigmoid(x)),
            "hard_sigmoid": lambda: graph.HardSigmoid(x, alpha=1 / 6, beta=0.5),
            "hard_silu": lambda: graph.Mul(x, graph.HardSigmoid(x, alpha=1 / 6, beta=0.5)),
            "hard_swish": lambda: graph.Mul(x, graph.HardSigmoid(x, alpha=1 / 6, beta=0.5)),
            "elu": lambda: graph.Elu(x, alpha=1.0),
            "softplus": lambda: graph.Softplus(x),
            "gelu": lambda: graph.Mul(
                graph.Mul(x, graph.scalar(0.5)),
                graph.Add(graph.Erf(graph.Mul(x, graph.scalar(2**-0.5))), graph.scalar(1.0)),
            ),
        }
        if name not in writers:
            raise EngineError(
                f"Layer {layer.name!r} has the activation {name!r}, which has no ONNX form here. Known: "
                f"{', '.join(sorted(writers))}. The engine keras runs any."
            )
        return writers[name]()


def _handler_of(kind: type) -> Handler | None:
    """What writes layers of a class: a known one, or one derived from it that computes nothing else."""
    for ancestor in kind.__mro__:
        if ancestor.__module__.split(".")[0] in ("keras", "mrcnn"):
            if ancestor.__name__ in _HANDLERS:
                return _HANDLERS[ancestor.__name__]
        elif not {name for name in vars(ancestor) if not name.startswith("__") or name == "__call__"} <= _HARMLESS:
            return None
    return None


# What a derived class may define and still compute the same.
_HARMLESS = {"build", "get_config", "from_config"}


def padding(
    mode: str, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int] = (1, 1)
) -> dict[str, Any]:
    """Attributes for Keras's padding. With strides, "same" depends on the size of the input, which is open."""
    if mode == "valid":
        return {}
    reach = [(side - 1) * rate for side, rate in zip(kernel, dilation, strict=True)]
    if max(strides) > 1 or any(total % 2 for total in reach):
        return {"auto_pad": "SAME_UPPER"}
    return {"pads": [total // 2 for total in reach] * 2}


@_handles("Conv2D")
def _conv2d(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    return to.conv(layer, inputs[0], values_of(layer.kernel), layer.groups)


@_handles("Conv2DTranspose")
def _conv2d_transpose(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    kernel = values_of(layer.kernel)  # [h, w, C out, C in]
    if layer.output_padding is not None or tuple(kernel.shape[:2]) != tuple(layer.strides):
        raise EngineError(
            f"Layer {layer.name!r}: a transposed convolution has an ONNX form here where its kernel is as large as its "
            f"strides. Received: kernel {kernel.shape[:2]}, strides {tuple(layer.strides)}. The engine keras runs any."
        )
    inputs = [inputs[0], to.graph.constant(kernel.transpose(3, 2, 0, 1), np.float32, f"{layer.name}/kernel")]
    if layer.use_bias:
        inputs.append(to.graph.constant(values_of(layer.bias), np.float32, f"{layer.name}/bias"))
    y = to.graph.node(
        "ConvTranspose", inputs, name=layer.name, kernel_shape=list(kernel.shape[:2]), strides=list(layer.strides)
    )
    return to.activate(layer.activation, y, layer)


@_handles("DepthwiseConv2D")
def _depthwise(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    kernel = values_of(layer.kernel)
    height, width, channels, multiplier = kernel.shape
    return to.conv(layer, inputs[0], kernel.reshape(height, width, 1, channels * multiplier), channels)


@_handles("Dense")
def _dense(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    if len(node.input_tensors[0].shape) == 4:  # a 1x1 convolution
        kernel = to.graph.constant(values_of(layer.kernel).T[:, :, None, None], np.float32, f"{layer.name}/kernel")
        bias = [to.graph.constant(values_of(layer.bias), np.float32, f"{layer.name}/bias")] if layer.use_bias else []
        return to.activate(layer.activation, to.graph.node("Conv", [inputs[0], kernel, *bias], name=layer.name), layer)
    y = to.graph.MatMul(inputs[0], to.graph.constant(values_of(layer.kernel), np.float32, f"{layer.name}/kernel"))
    if layer.use_bias:
        y = to.graph.Add(y, to.graph.constant(values_of(layer.bias), np.float32, f"{layer.name}/bias"))
    return to.activate(layer.activation, y, layer)


@_handles("BatchNormalization")
def _batch_normalization(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    """With the stored statistics; what a convolution before it takes in is folded there, see `mrcnn.folding`."""
    channels_last = layer.axis in (-1, len(node.input_tensors[0].shape) - 1)
    if getattr(layer, "train_bn", False) or not channels_last:
        raise EngineError(
            f"Layer {layer.name!r} normalizes with the batch's own statistics or along an axis that is not the last, "
            "which has no ONNX form here. The engine keras runs it."
        )
    mean, variance = values_of(layer.moving_mean), values_of(layer.moving_variance)
    scale = (values_of(layer.gamma) if layer.scale else 1.0) / np.sqrt(variance + layer.epsilon)
    shift = (values_of(layer.beta) if layer.center else 0.0) - mean * scale
    return _affine(to, inputs[0], scale, shift, len(node.input_tensors[0].shape) == 4)


@_handles("GroupNormalization")
def _group_normalization(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    rank = len(node.input_tensors[0].shape)
    if layer.axis not in (-1, rank - 1) or rank != 4:
        raise EngineError(
            f"Layer {layer.name!r}: group normalization has an ONNX form here along the last of four axes. Received: "
            f"axis {layer.axis} of {rank}. The engine keras runs it."
        )
    graph = to.graph
    groups = graph.Reshape(inputs[0], graph.integers(0, layer.groups, -1))
    ones, zeros = (graph.constant(np.full(layer.groups, value, np.float32)) for value in (1, 0))
    normalized = graph.node("InstanceNormalization", [groups, ones, zeros], name=layer.name, epsilon=layer.epsilon)
    y = graph.Reshape(normalized, graph.Shape(inputs[0]))
    scale = values_of(layer.gamma) if layer.scale else np.ones(1)
    return _affine(to, y, scale, values_of(layer.beta) if layer.center else np.zeros(1), True)


def _affine(to: KerasGraph, x: str, scale: Any, shift: Any, image: bool) -> str:
    """x * scale + shift, of channels."""
    shape = (-1, 1, 1) if image else (-1,)
    scale, shift = (to.graph.constant(np.asarray(v, np.float32).reshape(shape)) for v in (scale, shift))
    return to.graph.Add(to.graph.Mul(x, scale), shift)


@_handles("Rescaling")
def _rescaling(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    return _affine(to, inputs[0], layer.scale, layer.offset, len(node.input_tensors[0].shape) == 4)


@_handles("Normalization")
def _normalization(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    mean, variance = (np.asarray(keras.ops.convert_to_numpy(v)).ravel() for v in (layer.mean, layer.variance))
    scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
    if layer.invert:
        scale, shift = 1 / scale, mean
    else:
        shift = -mean * scale
    return _affine(to, inputs[0], scale, shift, len(node.input_tensors[0].shape) == 4)


@_handles("Activation")
def _activation(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    return to.activate(layer.activation, inputs[0], layer)


@_handles("ReLU")
def _relu(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    if layer.threshold:
        raise EngineError(
            f"Layer {layer.name!r}: a ReLU with a threshold has no ONNX form here. The engine keras runs it."
        )
    slope = float(layer.negative_slope)
    y = to.graph.LeakyRelu(inputs[0], alpha=slope) if slope else to.graph.Relu(inputs[0])
    return to.graph.Min(y, to.graph.scalar(float(layer.max_value))) if layer.max_value is not None else y


@_handles("LeakyReLU")
def _leaky_relu(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    return to.graph.LeakyRelu(inputs[0], alpha=float(layer.negative_slope))


@_handles("ELU")
def _elu(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    return to.graph.Elu(inputs[0], alpha=float(layer.alpha))


@_handles("Softmax")
def _softmax(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    rank, axis = len(node.input_tensors[0].shape), layer.axis
    if rank == 4 and isinstance(axis, int):
        axis = _TO_CHANNELS_FIRST.index(axis % 4)
    return to.graph.Softmax(inputs[0], axis=axis, name=layer.name)


@_handles("ZeroPadding2D")
def _zero_padding(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    (top, bottom), (left, right) = layer.padding
    return to.graph.Pad(inputs[0], to.graph.integers(0, 0, top, left, 0, 0, bottom, right))


@_handles("Cropping2D")
def _cropping(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    (top, bottom), (left, right) = layer.cropping
    far = np.iinfo(np.int64).max
    ends = to.graph.integers(-bottom or far, -right or far)
    return to.graph.Slice(inputs[0], to.graph.integers(top, left), ends, to.graph.integers(2, 3))


@_handles("MaxPooling2D", "AveragePooling2D")
def _pooling(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    if max(layer.pool_size) == 1:  # every second pixel, which runtimes do slowly as a pooling
        return _every(to, inputs[0], layer.strides)
    op = "MaxPool" if "MaxPooling2D" in [c.__name__ for c in type(layer).__mro__] else "AveragePool"
    return to.graph.node(
        op, inputs, name=layer.name, kernel_shape=list(layer.pool_size), strides=list(layer.strides),
        **padding(layer.padding, layer.pool_size, layer.strides),
    )  # fmt: skip


def _every(to: KerasGraph, x: str, strides: Sequence[int]) -> str:
    graph, far = to.graph, np.iinfo(np.int64).max
    return graph.Slice(
        x, graph.integers(0, 0), graph.integers(far, far), graph.integers(2, 3), graph.integers(*strides)
    )


@_handles("GlobalAveragePooling2D", "GlobalMaxPooling2D")
def _global_pooling(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    op = "GlobalAveragePool" if "Average" in type(layer).__name__ else "GlobalMaxPool"
    y = to.graph.node(op, inputs, name=layer.name)
    return y if layer.keepdims else to.graph.Squeeze(y, to.graph.integers(2, 3))


@_handles("UpSampling2D")
def _up_sampling(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    if layer.interpolation not in ("nearest", "bilinear"):
        raise EngineError(
            f"Layer {layer.name!r}: up-sampling {layer.interpolation!r} has no ONNX form here. Known: nearest, "
            "bilinear."
        )
    scales = to.graph.constant(np.array([1, 1, *layer.size], np.float32))
    if layer.interpolation == "bilinear":
        modes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    else:
        modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return to.graph.node("Resize", [inputs[0], "", scales], name=layer.name, **modes)


@_handles("Reshape")
def _reshape(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    x, target = inputs[0], getattr(layer, "target_shape", None) or layer.newshape[1:]
    if len(node.input_tensors[0].shape) == 4:
        x = to.graph.Transpose(x, perm=_TO_CHANNELS_LAST)
    y = to.graph.Reshape(x, to.graph.integers(0, *target))
    return to.graph.Transpose(y, perm=_TO_CHANNELS_FIRST) if len(target) == 3 else y


@_handles("Flatten")
def _flatten(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    x = inputs[0]
    if len(node.input_tensors[0].shape) == 4:
        x = to.graph.Transpose(x, perm=_TO_CHANNELS_LAST)
    return to.graph.Reshape(x, to.graph.integers(0, -1))


@_handles("Concatenate")
def _concatenate(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    rank = len(node.input_tensors[0].shape)
    axis = layer.axis % rank
    return to.graph.node("Concat", inputs, name=layer.name, axis=_TO_CHANNELS_FIRST.index(axis) if rank == 4 else axis)


@_handles("Add", "Multiply", "Subtract", "Maximum", "Minimum", "Average")
def _elementwise(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    if len(inputs) < 2 or len({len(tensor.shape) for tensor in node.input_tensors}) > 1:
        raise EngineError(
            f"Layer {layer.name!r} ({type(layer).__name__}) combines a tensor with a number or one of another rank, "
            "which has no ONNX form here. The engine keras runs it."
        )
    kind = next(c.__name__ for c in type(layer).__mro__ if c.__name__ in _ELEMENTWISE)
    y = inputs[0]
    for other in inputs[1:]:
        y = to.graph.node(_ELEMENTWISE[kind], [y, other], name=layer.name)
    return to.graph.Div(y, to.graph.scalar(float(len(inputs)))) if kind == "Average" else y


_ELEMENTWISE = {
    "Add": "Add",
    "Multiply": "Mul",
    "Subtract": "Sub",
    "Maximum": "Max",
    "Minimum": "Min",
    "Average": "Add",
}


@_handles("Identity", "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "ActivityRegularization")
def _identity(to: KerasGraph, layer: Any, inputs: list[str], node: Any) -> str:
    return inputs[0]
