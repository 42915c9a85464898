"""What all tests share. `KERAS_BACKEND` picks the backend of the whole process: `make test` runs one process each."""

from __future__ import annotations

import gc
import os
import sys

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
if os.environ.get("KERAS_BACKEND") == "jax":
    # Its compiler does without what takes it long: most programs here run once. A fifth to a third of the processor's
    # time less; at level 0 those that train a ResNet-50 take twice as long.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true")


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
