"""Arrays that training goes on from, in a weights file beside the weights: a group that readers of layers pass over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from mrcnn.weights.contents import open_weights

STATE_GROUP = "training_state"


def write_state(file: h5py.File, arrays: Mapping[str, np.ndarray]) -> None:
    """Store arrays by name."""
    group = file.create_group(STATE_GROUP)
    for name, array in arrays.items():
        group.create_dataset(name, data=array)


def read_state(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays that `save_weights(state=...)` stored; none where the file has none.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: it cannot be read.
    """
    with open_weights(path) as file:
        group = file.get(STATE_GROUP)
        if not isinstance(group, h5py.Group):
            return {}
        return {name: item[()] for name, item in group.items() if isinstance(item, h5py.Dataset)}
