"""The plan of a training run: stages one after the other, each with the layers that train, its last epoch and its
learning rate."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stage:
    """A stage of training.

    `layers` as `MaskRCNN.train` takes them; `end` is the last epoch, counted from the very first one; `rate` the
    learning rate, a number or a Keras schedule.
    """

    layers: str
    end: int
    rate: Any


def plan_stages(layers: Any, epochs: Any, learning_rate: Any) -> list[Stage]:
    """The stages that arguments of `MaskRCNN.train` stand for, checked.

    Args:
        layers: a stage's layers, or a list of stages (layers, last epoch, learning rate).
        epochs: the last epoch. With a list of stages: None, or an epoch that ends training before they do.
        learning_rate: with a list of stages: None, or what stages have whose own is None.

    Raises:
        ValueError: names the argument and what would do.
    """
    if isinstance(layers, str):
        _check_epochs("epochs", epochs)
        _check_rate("learning_rate", learning_rate)
        return [Stage(layers, int(epochs), learning_rate)]
    if not isinstance(layers, Sequence) or not layers or not all(map(_is_triple, layers)):
        raise ValueError(
            "layers must be a stage (heads, 3+, 4+, 5+, all, or a regular expression), or a list of stages (layers, "
            f"last epoch, learning rate), such as [('heads', 10, 1e-3), ('all', 20, 1e-4)]. Received: {layers!r}."
        )
    if epochs is not None:
        _check_epochs("epochs", epochs)
    if learning_rate is not None:
        _check_rate("learning_rate", learning_rate)
    stages: list[Stage] = []
    for number, (names, end, rate) in enumerate(layers, start=1):
        _check_epochs(f"The last epoch of stage {number}", end)
        rate = learning_rate if rate is None else rate
        _check_rate(f"The learning rate of stage {number}", rate)
        if stages and end <= stages[-1].end:
            raise ValueError(
                "The last epochs of stages count from the very first epoch, and so must grow. Received: stage "
                f"{number} ends at epoch {end}, the one before it at {stages[-1].end}."
            )
        stages.append(Stage(names, int(end), rate))
    if epochs is None:
        return stages
    before = [stage for stage in stages if stage.end < epochs]
    cut = stages[len(before) : len(before) + 1]
    return [*before, *(Stage(stage.layers, int(epochs), stage.rate) for stage in cut)]


def parse_stages(text: str) -> list[tuple[str, int, float | None]]:
    """Stages as the command line writes them: `heads:10:1e-3,all:20:1e-4`. Without a third part the learning rate is
    None.

    Raises:
        ValueError: the text has another form.
    """
    stages: list[tuple[str, int, float | None]] = []
    for part in text.split(","):
        layers, *numbers = part.strip().split(":")
        try:
            if not layers or len(numbers) not in (1, 2):
                raise ValueError
            stages.append((layers, int(numbers[0]), float(numbers[1]) if len(numbers) == 2 else None))
        except ValueError:
            raise ValueError(f"{part!r} is not LAYERS:LAST_EPOCH[:LEARNING_RATE], such as heads:10:1e-3") from None
    plan_stages(stages, None, 1.0)
    return stages


def stages_to_dict(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Stages as JSON can hold them; a schedule as None."""
    return [
        {"layers": stage.layers, "end": stage.end, "rate": float(stage.rate) if _is_number(stage.rate) else None}
        for stage in stages
    ]


def stages_from_dict(stored: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, float | None]]:
    """What `MaskRCNN.train` takes as `layers`, of what `stages_to_dict` gave."""
    return [(stage["layers"], stage["end"], stage["rate"]) for stage in stored]


def _is_triple(stage: Any) -> bool:
    return isinstance(stage, Sequence) and not isinstance(stage, str) and len(stage) == 3 and isinstance(stage[0], str)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _check_epochs(name: str, epochs: Any) -> None:
    if isinstance(epochs, bool) or not isinstance(epochs, numbers.Integral) or epochs < 1:
        raise ValueError(f"{name} must be a whole number of at least 1 (the last epoch). Received: {epochs!r}.")


def _check_rate(name: str, rate: Any) -> None:
    fine = math.isfinite(rate) and rate > 0 if _is_number(rate) else callable(rate)
    if not fine:
        raise ValueError(f"{name} must be a number above 0, or a Keras schedule. Received: {rate!r}.")
