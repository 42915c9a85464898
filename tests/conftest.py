"""What all tests share. `KERAS_BACKEND` picks the backend of the whole process: `make test` runs one process each."""

from __future__ import annotations

import gc
import os
import sys

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Leave the user's cache alone: what was measured, fetched and compiled there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRCNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="module")
def forget_networks():
    """Let go of a module's networks at its end: gigabytes would pile up."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()
    gc.collect()
    gc.freeze()  # what is left stays: looking through it after every module took 2 to 9 seconds each time
