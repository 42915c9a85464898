"""A thin hand for writing ONNX graphs: nodes are functions of tensor names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.requirements import require

# RoiAlign has its half-pixel mode, and pads may be inputs, from 16 on; nothing newer is needed.
OPSET = 17
_IR_VERSION = 8


class GraphBuilder:
    """Collects nodes and constants; every tensor is known by its name, a str."""

    def __init__(self) -> None:
        self._onnx = require("onnx", "onnx", "Writing an ONNX graph")
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._shared: dict[tuple[Any, ...], str] = {}
        self._names: dict[str, int] = {}

    def node(self, op: str, inputs: Sequence[str], outputs: int = 1, name: str | None = None, **attributes: Any) -> Any:
        """Add a node; the name of its output, or a tuple of names for several."""
        names = [self._unique(name or op) for _ in range(outputs)]
        attributes = {key: value for key, value in attributes.items() if value is not None}
        self._nodes.append(self._onnx.helper.make_node(op, list(inputs), names, name=names[0], **attributes))
        return names[0] if outputs == 1 else tuple(names)

    def __getattr__(self, op: str) -> Any:
        """`graph.Add(a, b)` is `graph.node("Add", [a, b])`."""
        if not op[:1].isupper():
            raise AttributeError(op)
        return lambda *inputs, **options: self.node(op, inputs, **options)

    def constant(self, value: Any, dtype: Any = None, name: str | None = None) -> str:
        """A constant tensor. Small ones without a name are kept once."""
        array = np.ascontiguousarray(value, dtype)
        if array.ndim == 0 or np.ndim(value) == 0:
            array = array.reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes()) if name is None and array.size <= 64 else None
        if key in self._shared:
            return self._shared[key]
        unique = self._unique(name or "constant")
        self._constants[unique] = self._onnx.numpy_helper.from_array(array, unique)
        if key is not None:
            self._shared[key] = unique
        return unique

    def floats(self, *values: float) -> str:
        """A float32 vector."""
        return self.constant(np.array(values, np.float32))

    def integers(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """A float32 scalar."""
        return self.constant(np.float32(value))

    def rename(self, tensor: str, name: str) -> str:
        """The same tensor under a name of choice, such as an output's."""
        self._names[name] = self._names.get(name, 0) + 1
        self._nodes.append(self._onnx.helper.make_node("Identity", [tensor], [name], name=name))
        return name

    def model(
        self,
        inputs: dict[str, Sequence[Any]],
        outputs: dict[str, tuple[type, Sequence[Any]]],
        metadata: dict[str, str] | None = None,
    ) -> Any:
        """The finished `onnx.ModelProto`.

        Args:
            inputs: name -> shape, with names or None for sizes that are open; all float32.
            outputs: name -> (numpy type, shape).
            metadata: key-value pairs to be stored in it.
        """
        helper = self._onnx.helper

        def info(name: str, dtype: Any, shape: Sequence[Any]) -> Any:
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))

        graph = helper.make_graph(
            self._nodes,
            "mask_rcnn",
            [info(name, np.float32, shape) for name, shape in inputs.items()],
            [info(name, dtype, shape) for name, (dtype, shape) in outputs.items()],
            list(self._constants.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)
        model.producer_name = "mrcnn"
        helper.set_model_props(model, metadata or {})
        return model

    def _unique(self, name: str) -> str:
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return f"{name}:{count}" if count else name
