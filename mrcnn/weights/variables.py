"""The variables of a Keras model, by layer and weight."""

from __future__ import annotations

from typing import Any

import numpy as np

from mrcnn.weights.contents import WeightsError, listed, short_names


def model_layers(model: Any) -> dict[str, dict[str, Any]]:
    """The variables of a model by layer and weight, nested models flattened, in the model's order.

    Raises:
        WeightsError: two layers with weights share a name, or weights within one do, or there are none.
    """
    found: dict[int, tuple[str, list[Any]]] = {}
    _collect(model, found)
    layers: dict[str, dict[str, Any]] = {}
    for name, variables in found.values():
        if not variables:
            continue
        if name in layers:
            raise WeightsError(f"Two layers that hold weights are named {name}. Give each a name of its own.")
        shorts = short_names([_path(variable, name) for variable in variables])
        if len(set(shorts)) < len(shorts):
            raise WeightsError(
                f"Weights of the layer {name} share names ({listed(shorts)}), so none can be told apart."
            )
        layers[name] = dict(zip(shorts, variables, strict=True))
    if not layers:
        raise WeightsError(f"The model {model.name} holds no weights. Is it built?")
    return layers


def _collect(layer: Any, found: dict[int, tuple[str, list[Any]]]) -> None:
    if id(layer) in found:  # shared by two models
        return
    found[id(layer)] = (layer.name, [])
    inner = _inner_layers(layer)
    for child in inner:
        _collect(child, found)
    below = {id(variable) for child in inner for variable in child.weights}
    found[id(layer)] = (layer.name, [variable for variable in layer.weights if id(variable) not in below])


def _inner_layers(layer: Any) -> list[Any]:
    """The layers of a model; those of a layer that is built of others are its own affair."""
    import keras

    return list(layer.layers) if isinstance(layer, keras.Model) else []


def _path(variable: Any, layer: str) -> list[str]:
    """A variable's path below its layer: ["kernel"], or ["query", "kernel"] in a layer built of others."""
    parts = variable.path.split("/")
    return parts[parts.index(layer) + 1 :] or [variable.name] if layer in parts else [variable.name]


def layer_names(model: Any) -> dict[str, list[str]]:
    """Every layer's name, with the names of the layers below it."""
    names: dict[str, list[str]] = {}

    def visit(layer: Any) -> list[str]:
        below = [name for child in _inner_layers(layer) for name in [child.name, *visit(child)]]
        names[layer.name] = below
        return below

    visit(model)
    return names


def dtype_of(variable: Any) -> np.dtype:
    """The numpy dtype that a variable is read and written as: float32 for bfloat16, which numpy lacks."""
    name = str(variable.dtype)
    return np.dtype("float32" if name == "bfloat16" else name)


def to_numpy(variable: Any) -> np.ndarray:
    """A variable's values, on any backend."""
    import keras

    return np.asarray(keras.ops.convert_to_numpy(variable)).astype(dtype_of(variable), copy=False)
