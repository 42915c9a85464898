"""Results of torchvision's small networks as files that a repository can hold. Needs numpy alone.

Kernels come from a generator that their name seeds, but for a factor; biases, scales and statistics are kept as they
are. Of large results some values are kept, in even distances.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

# Arrays of more values are thinned to about so many.
MOST = 2000
# What tests need all of.
_WHOLE = {
    "molded", "size", "anchors", "proposals", "boxes", "labels", "scores", "masks", "train_boxes", "train_masks",
    "train_labels", "anchor_labels", "anchor_sample", "roi_labels", "mask_targets", "losses",
}  # fmt: skip


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel [out, in, ...] float32 of a state dict, by its name: what goes through keeps its size."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    fan_in = int(np.prod(shape[1:]))
    return (rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan_in))).astype(np.float32)


def thin(array: np.ndarray) -> np.ndarray:
    """Some values of an array, in even distances: [about MOST]."""
    return np.asarray(array).ravel()[:: max(1, -(-np.size(array) // MOST))]


def pack(state: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is kept of a state dict and of results."""
    kept: dict[str, np.ndarray] = {}
    for name, array in state.items():
        if array.ndim <= 1:
            kept[f"state/{name}"] = array
            continue
        plain = seeded(name, array.shape)
        place = np.unravel_index(np.abs(plain).argmax(), plain.shape)
        factor = np.float32(array[place] / plain[place])
        np.testing.assert_allclose(array, plain * factor, rtol=1e-5, atol=1e-7)
        kept[f"factor/{name}"] = np.array([factor, *array.shape], np.float64)
    for name, array in arrays.items():
        if name != "train_photo":  # one of the photos
            kept[f"result/{name}"] = array if name.rpartition("/")[2] in _WHOLE else thin(array)
    return kept


def unpack(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The state dict and the results of a file."""
    state, arrays = {}, {}
    with np.load(path) as file:
        for key in file.files:
            kind, _, name = key.partition("/")
            if kind == "factor":
                factor, *shape = file[key].tolist()
                state[name] = seeded(name, tuple(map(int, shape))) * np.float32(factor)
            else:
                (state if kind == "state" else arrays)[name] = file[key]
    return state, arrays
