"""State dicts out of files, whoever wrote them: torch.save, pickle.dump, safetensors. No framework is needed, and
nothing in a file is run; see `mrcnn.weights.unpickling`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.weights.contents import WeightsError, describe, listed
from mrcnn.weights.pickled_arrays import Array
from mrcnn.weights.safetensors_files import is_safetensors, read_safetensors
from mrcnn.weights.torch_files import OLD_MAGIC, TORCH, ZIP_MAGIC, Tensor, read_old, read_zip
from mrcnn.weights.unpickling import read_pickle

# Under what names checkpoints keep the state dict, the averaged one last: it is asked for by its name.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "model_state", "blobs", "model_ema", "ema_state_dict", "net")
# What wrappers of networks put before all names.
_PREFIXES = ("module.", "_orig_mod.", "model.")
_PICKLES = (".pkl", ".pickle", ".pth", ".pt", ".bin")


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of a state dict, by name. In a checkpoint that holds other things too, it is looked for.

    Args:
        path: a `.pth` (of either format of torch.save), `.pkl` (of arrays, as detectron2's) or `.safetensors`. The
            contents decide, not the name.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: it is none of these, truncated or damaged, asks for more than arrays and containers, or holds no
            state dict.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no weights file {path}.")
    if not path.is_file():
        raise WeightsError(f"{path} is not a file. A file of weights is wanted: .pth, .pkl or .safetensors.")
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(ZIP_MAGIC):
        return _state_dict(read_zip(path), path)
    if head.startswith(b"\x80") or (path.suffix.lower() in _PICKLES and head[:1] in (b"(", b"}", b"c")):
        return _state_dict(_read_pickled(path), path)
    if is_safetensors(head):
        return _without_prefixes(read_safetensors(path), path)
    raise WeightsError(
        f"{path} is none of the files that are converted: {describe(path)}. Wanted: .pth, .pkl, .safetensors, or an "
        ".h5 file of keras.applications."
    )


def _read_pickled(path: Path) -> Any:
    with path.open("rb") as file:
        found = read_pickle(file, str(path), TORCH)
        return read_old(file, path) if type(found) is int and found == OLD_MAGIC else found


def _state_dict(found: Any, path: Path) -> dict[str, np.ndarray]:
    """The arrays of what a file holds."""
    state = found
    for _ in range(2):  # {"state_dict": {"model": {...}}} is the deepest there is
        if not isinstance(state, Mapping) or any(isinstance(value, Array | Tensor) for value in state.values()):
            break
        inner = [state[name] for name in _WRAPPERS if isinstance(state.get(name), Mapping)]
        if not inner:
            break
        state = inner[0]
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path} holds no state dict, which is a dict of tensors or arrays by name.")
    arrays = {}
    for name, value in state.items():
        if isinstance(value, Array | Tensor) and isinstance(name, str | bytes):
            text = name if isinstance(name, str) else name.decode("latin-1")
            try:
                arrays[text] = value.array()
            except WeightsError as error:
                raise WeightsError(f"{path} is damaged: {text} is {error}.") from error
    if not arrays:
        held = listed([ascii(key)[:40] for key in state]) or "nothing"
        raise WeightsError(f"{path} holds no tensors or arrays by name, but: {held}.")
    return _without_prefixes(arrays, path)


def _without_prefixes(arrays: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Arrays without what a wrapper put before all their names."""
    if not arrays:
        raise WeightsError(f"{path} holds no tensors.")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays
