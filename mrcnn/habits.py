"""Habits of scripts written for Keras 2 and TensorFlow 1: those that have no effect any more are told once what
replaces them, and those that would do harm are made harmless."""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

_told: set[str] = set()

# Whose lines are passed over to find the script's: ours, and those that lie between where it sets an attribute.
_NO_SCRIPTS = ("mrcnn", "keras", "tensorflow", "torch")

# What took the place of names of Keras 2's backend, but for those that `keras.ops` has under the same name.
_REPLACED = {
    **dict.fromkeys(("learning_phase", "in_train_phase", "in_test_phase"), "the argument `training` of a layer's call"),
    "set_learning_phase": "the argument `training` of a model's call",
    **dict.fromkeys(
        ("get_session", "set_session"),
        "nothing, for there are no sessions; and GPU_MEMORY = 'growth', or a share such as 0.5, in the configuration",
    ),
    "function": "keras.Model(inputs, outputs), or model.run_graph(images, outputs)",
    "gradients": "tf.GradientTape, jax.grad or torch.autograd, as the backend has it",
    **dict.fromkeys(("tf", "tensorflow_backend"), "import tensorflow as tf"),
    **dict.fromkeys(("image_dim_ordering", "set_image_dim_ordering"), "keras.config.image_data_format"),
    **dict.fromkeys(("get_value", "batch_get_value", "eval"), "keras.ops.convert_to_numpy(variable)"),
    **dict.fromkeys(("set_value", "batch_set_value", "update"), "variable.assign(value)"),
    "placeholder": "keras.Input",
    "variable": "keras.Variable",
    "constant": "keras.ops.convert_to_tensor",
    "name_scope": "keras.name_scope",
    "int_shape": "tensor.shape",
    "ndim": "len(tensor.shape)",
    "dtype": "tensor.dtype",
    "cast_to_floatx": "keras.ops.cast",
    "permute_dimensions": "keras.ops.transpose",
    "gather": "keras.ops.take",
    "pow": "keras.ops.power",
    "reverse": "keras.ops.flip",
    "repeat_elements": "keras.ops.repeat",
    "batch_dot": "keras.ops.matmul or keras.ops.einsum",
    **dict.fromkeys(("flatten", "batch_flatten"), "keras.ops.reshape"),
    "switch": "keras.ops.where or keras.ops.cond",
    "l2_normalize": "keras.ops.normalize",
    "resize_images": "keras.ops.image.resize",
    "spatial_2d_padding": "keras.ops.pad",
    "conv2d": "keras.ops.conv",
    "conv2d_transpose": "keras.ops.conv_transpose",
    "pool2d": "keras.ops.max_pool or keras.ops.average_pool",
    "bias_add": "+",
    "random_uniform": "keras.random.uniform",
    "random_normal": "keras.random.normal",
    "truncated_normal": "keras.random.truncated_normal",
    "dropout": "keras.random.dropout",
}


def tell_once(habit: str, advice: str, category: type[Warning] = FutureWarning) -> None:
    """Warn, the first time in a process, about a habit: what it does now, and what to do in its place. The warning
    names the script's line.

    Args:
        habit: what the script does, such as "keras_model.fit_generator".
        advice: a sentence.
        category: of the warning.
    """
    if habit not in _told:
        _told.add(habit)
        warnings.warn(f"{habit}: {advice}", category, stacklevel=script_level())


def script_level() -> int:
    """The `stacklevel` with which the caller's `warnings.warn` names the line of the script that has led to it."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _NO_SCRIPTS:
        level, frame = level + 1, frame.f_back
    return level


def explain_missing(backend: ModuleType, operations: ModuleType) -> None:
    """Let a missing name of `keras.backend` tell what took its place. It stays missing: the error is an AttributeError.

    Args:
        backend: `keras.backend`.
        operations: `keras.ops`.
    """
    earlier = vars(backend).get("__getattr__")
    if hasattr(earlier, "explains"):
        return

    def missing(name: str) -> Any:
        if earlier is not None:
            with contextlib.suppress(AttributeError):
                return earlier(name)
        now = _REPLACED.get(name)
        if now is None and not name.startswith("_") and hasattr(operations, name):
            now = f"{operations.__name__}.{name}"
        told = f", which Keras 3 took away. In its place: {now} (docs/interop.md)." if now else ""
        raise AttributeError(f"module {backend.__name__!r} has no attribute {name!r}{told}", name=name, obj=backend)

    missing.explains = True
    backend.__getattr__ = missing


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
