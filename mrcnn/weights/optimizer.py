"""An optimizer's state (momentum, step count) in a weights file, beside the weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrcnn.weights.contents import (
    OPTIMIZER_GROUP,
    StoredWeight,
    WeightsError,
    listed,
    open_weights,
    read_array,
    stored_weight,
)
from mrcnn.weights.variables import dtype_of, to_numpy

_KIND = "mrcnn_optimizer"
_LEARNING_RATE = "learning_rate"


def load_optimizer(optimizer: Any, path: str | Path) -> bool:
    """Restore an optimizer's state (momentum, step count) from a file that `save_weights` wrote with it.

    The learning rate is the caller's and stays as it is.

    Args:
        optimizer: a Keras optimizer, built for the variables that it is to train:
            `optimizer.build(variables)`.
        path: the weights file.

    Returns:
        True when the state was restored. False, with a warning and the optimizer as it was, when the file
        holds none or that of another optimizer or of other trainable layers.

    Raises:
        WeightsError: the optimizer is not built, or the file cannot be read.
    """
    if not optimizer.built:
        raise WeightsError(
            "The optimizer has no state to restore yet: call optimizer.build(trainable_variables) first."
        )
    ours = _variables(optimizer)
    ours = _without_learning_rate(ours)
    with open_weights(path) as file:
        group = file.get(OPTIMIZER_GROUP)
        state: dict[str, np.ndarray] = {}
        complaint = f"{path} holds no optimizer state"
        if isinstance(group, h5py.Group) and _KIND in group.attrs:
            stored = {group[key].attrs.get("name", key): stored_weight(file, group, key) for key in group}
            stored = _without_learning_rate(stored)
            complaint = _complaint(optimizer, group, ours, stored)
            if not complaint:
                state = {name: read_array(file, weight) for name, weight in stored.items()}
                broken = [name for name, array in state.items() if not np.isfinite(array).all()]
                complaint = f"{path}: NaN or infinity in the state ({listed(broken)})" if broken else ""
    if complaint:
        warnings.warn(f"{complaint}: the optimizer starts afresh.", stacklevel=2)
        return False
    for name, variable in ours.items():
        variable.assign(state[name].astype(dtype_of(variable), copy=False))
    return True


def _without_learning_rate(named: Mapping[str, Any]) -> dict[str, Any]:
    """What is left without the learning rate, or the two of an optimizer inside a loss-scaling one."""
    return {name: value for name, value in named.items() if name.partition("#")[0] != _LEARNING_RATE}


def _variables(optimizer: Any) -> dict[str, Any]:
    """By name: the path without the optimizer's own name, which counts its instances (`sgd_1`)."""
    named: dict[str, Any] = {}
    for index, variable in enumerate(optimizer.variables):
        name = variable.path.partition("/")[2] or variable.name
        named[name if name not in named else f"{name}#{index}"] = variable
    return named


def write_optimizer(file: h5py.File, optimizer: Any) -> None:
    """Store the state in the group `optimizer_weights`, which readers of layers pay no attention."""
    group = file.create_group(OPTIMIZER_GROUP)
    group.attrs[_KIND] = type(optimizer).__name__
    for index, (name, variable) in enumerate(_variables(optimizer).items()):
        group.create_dataset(f"{index:04d}", data=to_numpy(variable)).attrs["name"] = name


def _complaint(optimizer: Any, group: h5py.Group, ours: Mapping[str, Any], stored: Mapping[str, StoredWeight]) -> str:
    where, kind = group.file.filename, group.attrs[_KIND]
    if kind != type(optimizer).__name__:
        return f"{where} holds the state of {kind}, and the optimizer is {type(optimizer).__name__}"
    different = sorted(ours.keys() ^ stored.keys())
    if different:
        return f"{where} holds the state for other trainable layers ({listed(different)})"
    wrong = [name for name, variable in ours.items() if tuple(variable.shape) != stored[name].shape]
    return f"{where} holds state of other shapes ({listed(wrong)})" if wrong else ""
