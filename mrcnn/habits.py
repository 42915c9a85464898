"""Habits of scripts written for Keras 2 and TensorFlow 1: those that have no effect any more are told once what
replaces them, and those that would do harm are made harmless."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_told: set[str] = set()


def tell_once(habit: str, advice: str, stacklevel: int = 2) -> None:
    """Warn, the first time in a process, about a habit: what it does now, and what to do in its place.

    Args:
        habit: what the script does, such as "keras_model.fit_generator".
        advice: a sentence.
        stacklevel: 1 is the caller, 2 (the script that called it) the one above, and so on.
    """
    if habit not in _told:
        _told.add(habit)
        warnings.warn(f"{habit}: {advice}", FutureWarning, stacklevel=stacklevel + 1)


def eagerly(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method run eagerly where a script has opened a TensorFlow graph around its call.

    Servers used to do so, `with graph.as_default():`, and Keras 3 can make nothing of a graph. Graphs are open for one
    thread, so the method runs in another then.

    Raises:
        RuntimeError: (when the method is called) the script has turned eager execution off altogether.
    """

    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        if _executes_eagerly():
            return method(*args, **kwargs)
        with ThreadPoolExecutor(1) as executor:
            if not executor.submit(_executes_eagerly).result():
                raise RuntimeError(
                    "Eager execution is off (tf.compat.v1.disable_eager_execution or disable_v2_behavior), and Keras 3 "
                    "needs it. Take that line out; sessions and graphs are not needed any more."
                )
            tell_once("with graph.as_default()", "graphs and sessions are not needed any more.")
            return executor.submit(method, *args, **kwargs).result()

    return run


def _executes_eagerly() -> bool:
    """False inside a TensorFlow graph, a `tf.function` left aside, which Keras itself opens."""
    tensorflow = sys.modules.get("tensorflow")
    if not hasattr(tensorflow, "executing_eagerly") or tensorflow.executing_eagerly():  # missing, or being imported
        return True
    return tensorflow.inside_function()
