"""Weights into and out of a Keras model, with a report of what went where, and never in silence.

`contents` reads the layouts, `info` tells what network a file is for, `writing` writes: these three know
numpy and h5py alone. `variables` names a model's variables, `loading` brings both sides together, `optimizer`
keeps its state.
"""

from mrcnn.weights.contents import WeightsError
from mrcnn.weights.info import WeightsInfo, inspect_weights
from mrcnn.weights.loading import LoadReport, Mismatch, load_weights, save_weights
from mrcnn.weights.optimizer import load_optimizer

__all__ = [
    "LoadReport",
    "Mismatch",
    "WeightsError",
    "WeightsInfo",
    "inspect_weights",
    "load_optimizer",
    "load_weights",
    "save_weights",
]
