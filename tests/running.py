"""Running networks and taking gradients, on whichever backend the process runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np


def gradients(function: Callable[..., Any], inputs: dict[str, np.ndarray], wanted: Sequence[str]) -> tuple[Any, dict]:
    """Value of function(**inputs) and its gradients with respect to the `wanted` inputs, all as numpy."""
    backend = keras.backend.backend()
    tensors = {name: keras.ops.convert_to_tensor(value) for name, value in inputs.items()}
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            for name in wanted:
                tape.watch(tensors[name])
            value = function(**tensors)
        found = tape.gradient(value, [tensors[name] for name in wanted], unconnected_gradients="zero")
    elif backend == "jax":
        import jax

        def of_wanted(values: list) -> Any:
            return function(**{**tensors, **dict(zip(wanted, values, strict=True))})

        value, found = jax.value_and_grad(of_wanted)([tensors[name] for name in wanted])
    else:
        for name in wanted:
            tensors[name].requires_grad_(True)
        value = function(**tensors)
        if value.requires_grad:
            value.backward()
        found = [
            np.zeros(tensors[name].shape, np.float32) if tensors[name].grad is None else tensors[name].grad
            for name in wanted
        ]
    to_numpy = keras.ops.convert_to_numpy
    return to_numpy(value), {name: to_numpy(value) for name, value in zip(wanted, found, strict=True)}


def variable_gradients(
    model: keras.Model, inputs: Any, loss_of: Callable[[Any], Any]
) -> tuple[list, dict[str, np.ndarray]]:
    """Outputs of a model in training, and the gradients of loss_of(outputs) by "layer/weight"."""
    backend = keras.backend.backend()
    variables = model.trainable_variables
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            loss = loss_of(outputs)
        found = tape.gradient(loss, [v.value for v in variables], unconnected_gradients="zero")
        found = [tf.convert_to_tensor(g) for g in found]
    elif backend == "jax":
        import jax

        others = [v.value for v in model.non_trainable_variables]

        def scalar(values: list) -> Any:
            outputs, _ = model.stateless_call(values, others, inputs, training=True)
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return loss_of(outputs), outputs

        # Compiled as a whole: op by op, XLA would compile each of some thousand operations on its own.
        (_, outputs), found = jax.jit(jax.value_and_grad(scalar, has_aux=True))([v.value for v in variables])
    else:
        model.zero_grad()
        outputs = model(inputs, training=True)
        loss_of(outputs).backward()
        found = [np.zeros(v.shape, np.float32) if v.value.grad is None else v.value.grad for v in variables]
    names = ["/".join(v.path.split("/")[-2:]) for v in variables]
    to_numpy = keras.ops.convert_to_numpy
    return [to_numpy(o) for o in outputs], {n: to_numpy(g) for n, g in zip(names, found, strict=True)}


def call(network: keras.Model, inputs: list[np.ndarray], dtype: Any = np.float32) -> list[np.ndarray]:
    """Outputs of a network at inference; `dtype` None leaves that of the inputs."""
    tensors = [keras.ops.convert_to_tensor(np.asarray(x, dtype)) for x in inputs]
    if keras.backend.backend() == "jax":
        import jax

        state = [v.value for v in network.trainable_variables], [v.value for v in network.non_trainable_variables]
        outputs, _ = jax.jit(lambda *arguments: network.stateless_call(*arguments, training=False))(*state, tensors)
    else:
        outputs = network(tensors, training=False)
    return [keras.ops.convert_to_numpy(output) for output in outputs]
