"""Whose weights a file holds, and what they become here: one function for the files of all. No framework is needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import h5py
import numpy as np

from mrcnn.weights import detectron2, keras_applications, torchvision
from mrcnn.weights.contents import WeightsError, listed
from mrcnn.weights.conversion import Conversion
from mrcnn.weights.info import UNKNOWN, inspect_weights
from mrcnn.weights.state_dicts import read_state_dict

WANTED = (
    "Converted are torchvision's and detectron2's Mask R-CNNs on a ResNet with a feature pyramid, and ResNet "
    "classifiers of torchvision, timm, detectron2 and keras.applications"
)

# Whose a state dict is by the names in it, and what maps it.
_STATE_DICTS: list[tuple[Callable[[Collection[str]], bool], Callable[[Mapping[str, np.ndarray]], Conversion]]] = [
    (torchvision.is_torchvision, torchvision.convert),
    (detectron2.is_detectron2, detectron2.convert),
]
# Whose an HDF5 file is, and what maps it.
_HDF5: list[tuple[Callable[[Path], bool], Callable[[Path], Conversion]]] = [
    (keras_applications.is_keras_applications, keras_applications.convert),
]


def convert_file(path: str | Path) -> Conversion:
    """Read a file of weights and map it to this package's layers.

    Args:
        path: a `.pth`, `.pkl` or `.safetensors` with a state dict of torchvision, timm or detectron2, or an `.h5` of
            keras.applications. The contents decide, not the name.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: it cannot be read, asks to run something, is of another network, or not whole. The message names
            the file.
    """
    path = Path(path)
    try:
        if path.is_file() and h5py.is_hdf5(path):
            return _of_hdf5(path)
        state = read_state_dict(path)
        for recognizes, convert in _STATE_DICTS:
            if recognizes(state):
                return convert(state)
        raise WeightsError(f"This is no network that is known here. {WANTED}. It holds {listed(list(state))}.")
    except WeightsError as error:
        if str(path) in str(error):
            raise
        raise WeightsError(f"{path}: {error}") from error


def _of_hdf5(path: Path) -> Conversion:
    for recognizes, convert in _HDF5:
        if recognizes(path):
            return convert(path)
    kind = inspect_weights(path).kind
    if kind != UNKNOWN:
        raise WeightsError(f"{path} holds weights of this package's layers already ({kind}): use it as it is.")
    raise WeightsError(f"{path} is no network that is known here. {WANTED}.")
