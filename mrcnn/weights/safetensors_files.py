"""Files of safetensors, read without its library: a header of JSON and raw numbers. The library's reader for numpy does
not know bfloat16, and the format takes fewer lines to read than an optional package takes to ask for."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.weights.contents import WeightsError
from mrcnn.weights.pickled_arrays import checked_shape
from mrcnn.weights.torch_files import BFLOAT16, numbers_of

_KINDS = {
    "F64": "f8", "F32": "f4", "F16": "f2", "BF16": BFLOAT16, "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U8": "u1", "BOOL": "b1",
}  # fmt: skip
_LENGTH = 8
_LARGEST_HEADER = 100_000_000  # as the format has it


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins like one."""
    return 2 <= int.from_bytes(head[:_LENGTH], "little") <= _LARGEST_HEADER and head[_LENGTH : _LENGTH + 1] == b"{"


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name, those of bfloat16 as float32.

    Raises:
        WeightsError: it is truncated or damaged, or holds numbers of another kind.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(_LENGTH), "little")
        left = path.stat().st_size - _LENGTH - size
        if left < 0:
            raise WeightsError(f"{path} is truncated: its header alone has {size} bytes. Fetch or save it again.")
        try:
            header = json.loads(file.read(size))
        except (ValueError, RecursionError) as error:
            raise WeightsError(f"{path} is damaged: its header is no JSON. Fetch or save it again.") from error
        if not isinstance(header, dict):
            raise WeightsError(f"{path} is damaged: its header does not list tensors. Fetch or save it again.")
        arrays = {}
        for name, entry in header.items():
            if name != "__metadata__":
                kind, shape, start, end = _entry(path, name, entry, left)
                file.seek(_LENGTH + size + start)
                arrays[name] = numbers_of(file.read(end - start), kind).reshape(shape)
    return arrays


def _entry(path: Path, name: str, entry: Any, left: int) -> tuple[str, tuple[int, ...], int, int]:
    """Kind, shape, first and last byte of a tensor."""
    try:
        told, shape, (start, end) = entry["dtype"], checked_shape(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is damaged: its header does not say what {name} is.") from error
    kind = _KINDS.get(told) if isinstance(told, str) else None
    if kind is None:
        raise WeightsError(f"{path}: {name} is of type {told}. Read are: {', '.join(_KINDS)}.")
    size = math.prod(shape) * (2 if kind == BFLOAT16 else np.dtype(kind).itemsize)
    if type(start) is not int or type(end) is not int or not 0 <= start <= end or end - start != size:
        raise WeightsError(
            f"{path} is damaged: {name} of shape {shape} and type {told} is said to be at {start}:{end}."
        )
    if end > left:
        raise WeightsError(f"{path} is truncated: {name} ends at byte {end} of {left}. Fetch or save it again.")
    return kind, shape, start, end
