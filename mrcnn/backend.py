"""Which framework Keras runs on: chosen before Keras is imported, since Keras fixes it then."""

from __future__ import annotations

import importlib.util
import os
import sys

BACKENDS = ("tensorflow", "jax", "torch")


def choose_backend() -> str | None:
    """Set KERAS_BACKEND to the first installed of tensorflow, jax and torch, unless it is set already.

    Imports nothing, so that `import mrcnn` and the command line stay quick.

    Returns:
        The name of the backend, or None where none is installed.
    """
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen:
        return chosen
    if "keras" in sys.modules:  # too late to choose: Keras has read its own configuration
        return sys.modules["keras"].config.backend()
    for name in BACKENDS:
        if importlib.util.find_spec(name) is not None:
            os.environ["KERAS_BACKEND"] = name
            return name
    return None


def require_backend() -> str:
    """As `choose_backend`, but says in one line what to install where there is nothing to run on.

    Raises:
        ImportError: no backend is installed.
    """
    name = choose_backend()
    if name is None:
        raise ImportError(
            "Keras needs a backend and none of tensorflow, jax, torch is installed. "
            'Install one: pip install "keras-mask-rcnn[tensorflow]" (or [jax], or [torch]).'
        )
    return name
