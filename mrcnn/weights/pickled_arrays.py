"""numpy's arrays in pickles: stand-ins for what numpy 1 and 2 ask for when arrays, scalars and types are loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from mrcnn.weights.contents import WeightsError
from mrcnn.weights.unpickling import Known, Shell

_TYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_MOST_DIMENSIONS = 8


class DType(Shell):
    """A type of numbers, `kind` such as "f4" or "<f4"."""

    def __init__(self, kind: Any, *_: Any) -> None:
        if isinstance(kind, bytes):
            kind = kind.decode("latin-1")
        if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
            raise WeightsError(f"an array of type {str(kind)[:20]!r}, which holds no plain numbers")
        self.dtype = np.dtype(kind)

    def build(self, state: Any) -> None:
        """Take the order of bytes; types of several parts are refused."""
        order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
        if any(part is not None for part in state[2:5]) or order not in ("<", ">", "|", "="):
            raise WeightsError("an array whose values have several parts")
        self.dtype = self.dtype.newbyteorder("<" if order == "=" else order)


class Array(Shell):
    """An array, whose values come as its state."""

    def __init__(self, values: np.ndarray | None = None) -> None:
        self.values = values

    def build(self, state: Any) -> None:
        """Take (version, shape, type, whether columns come first, bytes)."""
        _, shape, dtype, columns_first, data = state
        self.values = array_of(data, dtype, shape, bool(columns_first))

    def array(self) -> np.ndarray:
        """The values."""
        if self.values is None:
            raise WeightsError("an array without values")
        return self.values


def array_of(data: Any, dtype: Any, shape: Any, columns_first: bool = False) -> np.ndarray:
    """An array [shape] of bytes, as large as its shape says and no larger."""
    if isinstance(data, str):  # bytes of Python 2
        data = data.encode("latin-1")
    if not isinstance(dtype, DType) or not isinstance(data, bytes | bytearray):
        raise WeightsError("an array that holds no plain numbers")
    shape = checked_shape(shape)
    if math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise WeightsError(f"an array of shape {shape} and type {dtype.dtype} has {len(data)} bytes")
    return np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if columns_first else "C")


def checked_shape(shape: Any) -> tuple[int, ...]:
    """A shape as it is.

    Raises:
        WeightsError: it is none.
    """
    fine = isinstance(shape, tuple | list) and len(shape) <= _MOST_DIMENSIONS
    if not fine or not all(type(side) is int and side >= 0 for side in shape):
        raise WeightsError("an array of a shape that cannot be")
    if math.prod(side or 1 for side in shape) >= 2**48:
        raise WeightsError("an array larger than any")
    return tuple(shape)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    return array_of(data, dtype, ()).item()


def _empty(kind: Any, *_: Any) -> Array:
    if not isinstance(kind, Known) or kind.name != "numpy.ndarray":
        raise WeightsError("an array of a kind of its own")
    return Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    return Array(array_of(data, dtype, shape, order == "F"))


NUMPY: dict[str, Callable[..., Any] | None] = {
    "numpy.ndarray": None,
    "numpy.dtype": DType,
    **{
        f"numpy.{core}.{name}": make
        for core in ("core", "_core")
        for name, make in (
            ("multiarray._reconstruct", _empty), ("multiarray.scalar", _scalar), ("numeric._frombuffer", _from_buffer)
        )
    },
}  # fmt: skip
