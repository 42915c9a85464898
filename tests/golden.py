"""Golden numbers: recorded from the original Mask R-CNN for Keras (float32, CPU); see tests/data/README.md."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent / "data"


@cache
def load(name: str) -> dict[str, np.ndarray]:
    """All arrays of tests/data/<name>.npz."""
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def cases(name: str, suffix: str = ".out") -> list[str]:
    """The cases of a golden file: what its keys begin with, where a key with `suffix` exists."""
    return sorted(key[: -len(suffix)] for key in load(name) if key.endswith(suffix))


def part(name: str, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose keys begin with `prefix` and a point, by the rest of the key."""
    return {key[len(prefix) + 1 :]: value for key, value in load(name).items() if key.startswith(prefix + ".")}


def check(what: str, actual: Any, expected: Any, atol: float = 0.0, rtol: float = 0.0) -> float:
    """Assert closeness, print the largest error, and give it back. With atol 0 and rtol 0: exactly equal."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    error = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    largest = float(error.max()) if error.size else 0.0
    print(f"golden {what}: largest error {largest:.3g}")
    allowed = atol + rtol * np.abs(expected.astype(np.float64))
    assert np.all(error <= allowed), f"{what}: largest error {largest:.3g}, allowed {atol:g} + {rtol:g} x value"
    return largest


def config_of(arrays: dict[str, np.ndarray], **changes: Any) -> Any:
    """The Config that a golden file was recorded with."""
    from mrcnn.config import Config

    values = json.loads(str(arrays["config_json"]))
    return Config.from_dict({**values, **changes})


def fill(model: Any) -> None:
    """Give every weight of a network the value that tests/filler.py makes from its name."""
    from tests import filler

    for layer in model.layers:
        if hasattr(layer, "layers"):
            fill(layer)
            continue
        for weight in layer.weights:
            weight.assign(filler.fill(layer.name, weight.name, tuple(weight.shape)))


def fill_small(model: Any, seed: int = 0) -> None:
    """Give a network without golden weights reproducible ones that make it find something."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name == "kernel":
            gain = 0.01 if "bbox" in weight.path else 2.0  # boxes stay near their anchors
            weight.assign(rng.normal(0, np.sqrt(gain / np.prod(weight.shape[:-1])), weight.shape))
