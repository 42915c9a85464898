"""Files that torch.save wrote, without torch: the zip archives of PyTorch 1.6 and later, and the files before them (as
torchvision's are that were released until 2021). Numbers of type bfloat16, which numpy lacks, become float32.

A zip archive holds `data.pkl`, in which tensors refer to storages, and a file of raw numbers for each storage. In the
older files four pickles come first (a magic number, a version, facts about the machine, the data), then the storages'
keys as another, then of each storage how many numbers it has, and these.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mrcnn.weights.contents import WeightsError
from mrcnn.weights.pickled_arrays import NUMPY, checked_shape
from mrcnn.weights.unpickling import CURE, Inert, Known, Shell, read_pickle

ZIP_MAGIC = b"PK\x03\x04"
OLD_MAGIC = 0x1950A86A20F9469CFC6C
_OLD_VERSION = 1001

BFLOAT16 = "bfloat16"
_STORAGES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": BFLOAT16, "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "b1",
}  # fmt: skip
_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")

# What other zip archives hold, and what they are.
_OTHER_ARCHIVES = {
    "constants.pkl": "a TorchScript program. Save its weights: torch.save(torch.jit.load(path).state_dict(), other)",
    "model.weights.h5": "a .keras file. Save its weights: model.save_weights('name.weights.h5')",
    "serialized_exported_program.json": "a program of torch.export. Save the state dict of its model",
}


class Storage:
    """Numbers of one kind, in a row; `read` gives them."""

    def __init__(self, kind: str, count: int, read: Callable[[], np.ndarray] | None = None) -> None:
        self.kind = kind
        self.count = count
        self.read = read
        self._values: np.ndarray | None = None

    @property
    def item_size(self) -> int:
        """Bytes of a number."""
        return 2 if self.kind == BFLOAT16 else np.dtype(self.kind).itemsize

    def values(self) -> np.ndarray:
        """The numbers, read once."""
        if self._values is None:
            if self.read is None:
                raise WeightsError("a tensor whose numbers are not in the file")
            self._values = self.read()
        return self._values


class Tensor(Shell):
    """A tensor: a part of a storage."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> None:
        if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
            raise WeightsError("a tensor without numbers")
        self.storage = storage
        self.offset = offset
        self.shape, self.stride = checked_shape(size), checked_shape(stride)
        if len(self.shape) != len(self.stride):
            raise WeightsError(f"a tensor of shape {self.shape} with {len(self.stride)} strides")
        last = offset + sum((side - 1) * step for side, step in zip(self.shape, self.stride, strict=True))
        count = math.prod(self.shape)
        if count and (last >= storage.count or count > storage.count):
            raise WeightsError(f"a tensor of shape {self.shape} in a storage of {storage.count} numbers")

    def build(self, state: Any) -> None:
        """Leave attributes out that somebody gave it."""

    def array(self) -> np.ndarray:
        """Its numbers."""
        values = self.storage.values()
        if 0 in self.shape:
            return np.zeros(self.shape, values.dtype)
        strides = [step * values.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides, writeable=False)


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise WeightsError("a parameter that is no tensor")
    return data


TORCH: dict[str, Callable[..., Any] | None] = {
    **NUMPY,
    "torch._utils._rebuild_tensor": Tensor,
    "torch._utils._rebuild_tensor_v2": Tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": lambda sides=(): tuple(sides),
    "torch.device": lambda *_: Inert(),
    **{f"torch.{name}": None for name in _DTYPES},
    **{f"{module}.{name}": None for module in ("torch", "torch.cuda") for name in _STORAGES},
}


def numbers_of(data: bytes, kind: str, big_endian: bool = False) -> np.ndarray:
    """The numbers that bytes stand for, those of bfloat16 as float32."""
    order = ">" if big_endian else "<"
    if kind != BFLOAT16:
        return np.frombuffer(data, np.dtype(kind).newbyteorder(order))
    return (np.frombuffer(data, f"{order}u2").astype(np.uint32) << 16).view(np.float32)


def read_zip(path: Path) -> Any:
    """What torch.save put into a zip archive: containers, with `Tensor` and `Array` in them.

    Raises:
        WeightsError: it is another archive or a damaged one, or holds more than tensors and containers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path)
    except WeightsError:
        raise
    # What zipfile has to say against damaged archives comes in many types.
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, IndexError, struct.error) as error:
        raise WeightsError(f"{path} is truncated or damaged: {error}. Fetch or save it again.") from error


def _read_archive(archive: zipfile.ZipFile, path: Path) -> Any:
    entries = {info.filename: info for info in archive.infolist()}
    for name in entries:
        other = _OTHER_ARCHIVES.get(name.rpartition("/")[2])
        if other is not None:
            raise WeightsError(f"{path} is {other}.")
    found = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
    if len(found) != 1:
        raise WeightsError(f"{path} is a zip archive, but none that torch.save wrote: it has no data.pkl.")
    folder, size = found[0].removesuffix("data.pkl"), path.stat().st_size

    def read(name: str) -> bytes:
        info = entries.get(folder + name)
        if info is None:
            raise WeightsError(f"{path} is damaged: it has no {folder + name}.")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise WeightsError(f"{path}: {info.filename} is compressed, which torch.save does not do. Save it again.")
        if info.file_size > size:
            raise WeightsError(f"{path} is truncated or damaged: {info.filename} is larger than the file.")
        return archive.read(info)

    order = read("byteorder").strip() if f"{folder}byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise WeightsError(f"{path} is damaged: its order of bytes is {order[:10]!r}.")
    storages: dict[str, Storage] = {}
    total = 0

    def persistent(identifier: Any) -> Storage:
        nonlocal total
        kind, key, count = _storage_of(identifier, 5)
        if key not in storages:
            info = entries.get(f"{folder}data/{key}")
            storage = Storage(kind, count)
            if info is None or info.file_size // storage.item_size != count:
                has = "is missing" if info is None else f"has {info.file_size} bytes"
                raise WeightsError(f"a storage of {count} numbers of type {kind} {has} (data/{key})")
            storages[key] = storage
            total += count * storage.item_size
            if total > size:
                raise WeightsError("its storages are larger than itself")
            storage.read = lambda: numbers_of(
                read(f"data/{key}")[: count * storage.item_size], kind, big_endian=order == b"big"
            )
        if (storages[key].kind, storages[key].count) != (kind, count):
            raise WeightsError(f"the storage data/{key} is two things at once")
        return storages[key]

    made = read_pickle(io.BytesIO(read("data.pkl")), f"{path}", TORCH, persistent)
    for storage in storages.values():  # while the archive is open
        storage.values()
    return made


def read_old(file: BinaryIO, path: Path) -> Any:
    """What torch.save wrote before it wrote archives; the file is behind the magic number. See `read_zip`."""
    where = str(path)
    if read_pickle(file, where, TORCH) != _OLD_VERSION:
        raise WeightsError(f"{path} is of a version of torch.save that is not known. {CURE}, with another.")
    facts = read_pickle(file, where, TORCH)
    big_endian = isinstance(facts, dict) and facts.get("little_endian") is False
    storages: dict[str, Storage] = {}

    def persistent(identifier: Any) -> Storage:
        kind, key, count = _storage_of(identifier, 6)
        storage = storages.setdefault(key, Storage(kind, count))
        if (storage.kind, storage.count) != (kind, count):
            raise WeightsError("a storage is two things at once")
        return storage

    made = read_pickle(file, where, TORCH, persistent)
    keys = read_pickle(file, where, TORCH)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise WeightsError(f"{path} is damaged: it does not tell the order of its storages.")
    for key in keys:
        storage = storages.get(key)
        if storage is None:
            raise WeightsError(f"{path} is damaged: it has a storage that no tensor is in.")
        head = file.read(8)
        told = int.from_bytes(head, "big" if big_endian else "little")
        if len(head) < 8 or told != storage.count:
            raise WeightsError(f"{path} is truncated or damaged: a storage of {storage.count} numbers has {told}.")
        size = storage.count * storage.item_size
        left = path.stat().st_size - file.tell()
        if size > left:
            raise WeightsError(f"{path} is truncated: a storage has {size} bytes, of which {left} are there.")
        values = numbers_of(file.read(size), storage.kind, big_endian)
        storage.read = lambda values=values: values
    if any(storage.read is None for storage in storages.values()):
        raise WeightsError(f"{path} is damaged: tensors are in storages that it does not have.")
    return made


def _storage_of(identifier: Any, length: int) -> tuple[str, str, int]:
    """The kind of numbers, key and count of the storage that a persistent id stands for."""
    if not isinstance(identifier, tuple) or len(identifier) != length or identifier[0] not in ("storage", b"storage"):
        raise WeightsError("it refers to something that is no storage of numbers")
    _, kind, key, _, count, *view = identifier
    name = kind.name.rpartition(".")[2] if isinstance(kind, Known) else None
    if name not in _STORAGES or not isinstance(key, str) or type(count) is not int or not 0 <= count < 2**48:
        raise WeightsError("a storage of no known kind")
    if any(part is not None for part in view):
        raise WeightsError("a storage that is part of another, as PyTorch 0.3 wrote them")
    return _STORAGES[name], key, count
