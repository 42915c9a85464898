"""The random numbers of old scripts: Python's and numpy's global generators, in the form that `mrcnn.data` takes.

Scripts that call `random.seed` and `np.random.seed` get the draws that they always got.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np


class PythonDraws:
    """Places crops with Python's global generator."""

    def integers(self, high: int) -> int:
        """A whole number from 0 up to, not including, `high`."""
        return random.randint(0, high - 1)  # noqa: S311


class NumpyDraws:
    """Picks anchors with numpy's global generator. `legacy:` the original drew those to drop, and not those to keep."""

    def choice(self, indices: np.ndarray, count: int, replace: bool = False) -> np.ndarray:
        """`count` of `indices` [n]."""
        dropped = np.random.choice(indices, len(indices) - count, replace=replace)  # noqa: NPY002
        return np.setdiff1d(indices, dropped, assume_unique=True)


def new_generator() -> Any:
    """A numpy generator that follows from the state of the global one, and moves it on."""
    return np.random.default_rng(np.random.randint(2**31 - 1))  # noqa: NPY002
