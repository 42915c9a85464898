"""Which layers a stage of training trains, where the names of a backbone's layers do not tell: the network does."""

from __future__ import annotations

import re
from typing import Any

import keras

# Stages 2 to 5 of the original's backbones.
_TELLING = re.compile(r"(res|bn)[2-5].*")


def layers_from_stage(network: keras.Model, stage: int) -> list[str] | None:
    """Names of the layers that a backbone's feature map before a stage goes through, up to C5.

    Args:
        network: of `build_network`.
        stage: 3, 4 or 5.

    Returns:
        The names; None where there are layers with the original's names, res{stage}... and bn{stage}..., or no pyramid.
    """
    names = {layer.name for layer in network.layers}
    laterals = [f"fpn_c{level}p{level}" for level in (stage - 1, 5)]
    if not names.issuperset(laterals) or any(map(_TELLING.fullmatch, names)):
        return None
    before, all_of_it = (_made_by(network.get_layer(name).input) for name in laterals)
    return [operation.name for key, operation in all_of_it.items() if key not in before]


def _made_by(tensor: Any) -> dict[int, Any]:
    """The operations that a tensor of a functional network is made by, by their ids."""
    found: dict[int, Any] = {}
    left = [tensor]
    while left:
        operation, index, _ = left.pop()._keras_history
        if id(operation) not in found:
            found[id(operation)] = operation
            left.extend(operation._inbound_nodes[index].input_tensors)
    return found
