"""Stopping and going on: checkpoints that hold all that the next step depends on, also within an epoch, and what keeps
training that is taken up again on its course, to the same weights as if it had not stopped.

A checkpoint holds the weights, the optimizer with its step count, the random generators of the layers, the metrics so
far of an epoch that is not over, and where in the plan it stands. Batches need nothing: they are a function of the seed
and of their step.
"""

from __future__ import annotations

import contextlib
import re
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.config import Config
from mrcnn.interrupts import Interrupts, TrainingInterrupted
from mrcnn.lazy_logs import LOOK_EVERY
from mrcnn.optimization import averaged_weights, averages
from mrcnn.parallel import DataParallel
from mrcnn.runs import step_path
from mrcnn.weights import inspect_weights, save_weights
from mrcnn.weights.state import read_state

_METADATA = "training"
_RANDOM, _METRIC, _WEIGHT = "random", "metric", "weight"


@dataclass(frozen=True)
class Position:
    """Where training begins: `step` steps into the epoch after `epoch` epochs, in a stage that began after
    `stage_start` of them; `metrics` are those of the steps so far of that epoch. Where `step` is all of an epoch, that
    is yet to be measured, and `losses` are what is known of it."""

    epoch: int = 0
    step: int = 0
    stage_start: int = 0
    metrics: Sequence[np.ndarray] = ()
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """What a checkpoint tells beside weights and optimizer: its place, and the plan that it is part of."""

    path: Path
    epoch: int
    step: int = 0
    stage: Mapping[str, Any] = field(default_factory=dict)  # layers, start, end
    plan: Sequence[Mapping[str, Any]] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)  # what the order of the batches depends on
    losses: Mapping[str, float] = field(default_factory=dict)  # of the last whole epoch
    has_optimizer: bool = False

    def arrays(self, kind: str) -> list[np.ndarray]:
        """Stored arrays of a kind, in their order."""
        stored = read_state(self.path)
        return [stored[name] for name in sorted(stored) if name.startswith(f"{kind}_")]

    def metrics(self) -> list[np.ndarray]:
        """Metrics of the epoch that is not over."""
        return self.arrays(_METRIC) if self.step else []


def read_saved(path: str | Path) -> Saved:
    """What a checkpoint tells of its training; of a file without that, no more than its epoch.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: it cannot be read.
    """
    info = inspect_weights(path)
    told = info.metadata.get(_METADATA)
    if not isinstance(told, dict):
        return Saved(Path(path), info.epoch or 0, has_optimizer=info.has_optimizer)
    known = {name: told[name] for name in ("step", "stage", "plan", "numbers") if name in told}
    losses = info.metadata.get("losses", {})
    return Saved(Path(path), info.epoch or 0, losses=losses, has_optimizer=info.has_optimizer, **known)


def batch_numbers(config: Config) -> dict[str, int]:
    """What the order of the batches depends on, as a checkpoint tells it."""
    return {name: int(getattr(config, name)) for name in ("STEPS_PER_EPOCH", "BATCH_SIZE", "SEED")}


def restore_random(model: keras.Model, saved: Saved) -> None:
    """Set the random generators of a network's layers as they were."""
    own, stored = _random_states(model), saved.arrays(_RANDOM)
    if [tuple(state.shape) for state in own] != [array.shape for array in stored]:
        if stored:
            warnings.warn(f"{saved.path}: its random generators are not those of this network.", stacklevel=2)
        return
    for state, array in zip(own, stored, strict=True):
        state.assign(array)


def restore_own_weights(model: keras.Model, saved: Saved) -> None:
    """Where averages are kept: a checkpoint's weights are the averages, and the network goes on from its own."""
    pairs, stored = averages(model), saved.arrays(_WEIGHT)
    if [tuple(variable.shape) for variable, _ in pairs] != [array.shape for array in stored]:
        return
    for (variable, _), array in zip(pairs, stored, strict=True):
        variable.assign(array)


class Checkpoints(keras.callbacks.Callback):
    """Writes checkpoints, each whole or not at all: after each epoch `mask_rcnn_<name>_EEEE.h5`; within one, when told
    to, `mask_rcnn_<name>_EEEE_stepSSSSSS.h5`, of which the newest is kept until the epoch has its own.

    Their weights are the averaged ones, where such are kept.

    Args:
        path: with `{epoch:04d}`, which counts from 1.
        metadata: stored beside the weights, with the epoch and its losses.
        training: where in the plan this is: the `stage`, `plan` and `numbers` of `Saved`.
        on_saved: is told how many whole epochs each checkpoint has.
    """

    def __init__(
        self,
        path: str,
        metadata: Mapping[str, Any],
        training: Mapping[str, Any],
        on_saved: Callable[[int], None],
    ) -> None:
        super().__init__()
        self.path = path
        self.metadata = metadata
        self.training = training
        self.on_saved = on_saved
        self.newest = ""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.save(epoch + 1, 0, logs)

    def save(self, epoch: int, step: int, logs: Mapping[str, Any] | None = None) -> None:
        """Write the checkpoint of `step` steps after `epoch` epochs."""
        model = self.model  # on JAX, asking for it brings the variables up to date
        path = step_path(self.path, epoch, step) if step else self.path.format(epoch=epoch)
        metadata = {**self.metadata, "epoch": epoch, _METADATA: {"step": step, **self.training}}
        if logs:
            metadata["losses"] = {name: float(value) for name, value in logs.items()}
        kept = {_RANDOM: _random_states(model), _WEIGHT: [variable for variable, _ in averages(model)]}
        if step:
            kept[_METRIC] = model.metrics_variables
        state = {
            f"{kind}_{number:05d}": ops.convert_to_numpy(variable)
            for kind, variables in kept.items()
            for number, variable in enumerate(variables)
        }
        with averaged_weights(model):
            save_weights(model, path, metadata, model.optimizer, state=state)
        for older in Path(path).parent.glob("mask_rcnn_*_step*.h5"):
            if older != Path(path) and older.name < Path(path).name:
                older.unlink(missing_ok=True)
        self.newest = path
        self.on_saved(epoch)


class Course(keras.callbacks.Callback):
    """Keeps training on its course: takes up the metrics of an epoch in its middle, saves within epochs, stops where a
    signal wants it to, and keeps validation from changing what comes after it. `measured` comes after the callbacks
    that measure, `last` after all others.

    Args:
        config: STEPS_PER_EPOCH and SAVE_EVERY are used.
        parallel: how the network is spread.
        interrupts: what signals have come.
        position: where training begins.
    """

    def __init__(self, config: Config, parallel: DataParallel, interrupts: Interrupts, position: Position) -> None:
        super().__init__()
        self.steps = config.STEPS_PER_EPOCH
        self.save_every = config.SAVE_EVERY
        self.parallel = parallel
        self.interrupts = interrupts
        self.position = position
        self.checkpoints: Checkpoints | None = None  # in the process that saves
        self.history: keras.callbacks.Callback | None = None
        self.look: Callable[[], None] = lambda: None  # raises where something broken would be saved
        self.is_left: Callable[[], bool] = lambda: False  # whether the epoch's evaluation is unfinished
        self.measured = _StopAfterEpoch(self, lambda: parallel.any(self.is_left()), ", in its evaluation")
        self.last = _StopAfterEpoch(self, self._interrupted)
        self.epoch = position.epoch
        self._losses: dict[str, float] = {}
        self._validation = contextlib.ExitStack()

    @property
    def begun(self) -> int:
        """Steps of this epoch that were done before training began."""
        return self.position.step if self.epoch == self.position.epoch else 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.epoch = epoch
        if self.begun:
            own, values = self.model.metrics_variables, self.position.metrics
            if [tuple(variable.shape) for variable in own] == [np.shape(value) for value in values]:
                for variable, value in zip(own, values, strict=True):
                    variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        done = self.begun + batch + 1
        wanted = self._asks(done) and self._interrupted()
        due = self.save_every and (self.epoch * self.steps + done) % self.save_every == 0
        if done < self.steps and (wanted or due):
            self._save(self.epoch, done)
            if wanted:
                self.interrupt(f"epoch {self.epoch + 1}, step {done} of {self.steps}")

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        if self.begun == self.steps:
            self._losses = dict(self.position.losses)
        else:
            self._losses = {name: float(value) for name, value in self.model.get_metrics_result().items()}
        self._validation.enter_context(averaged_weights(self.model))
        self._validation.enter_context(_own_random(self.model))

    def on_test_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._asks(batch + 1) and self._interrupted():
            self._end_validation()
            if self.history is not None:
                self.history.on_epoch_end(self.epoch, self._losses)
            self._save(self.epoch + 1, 0, self._losses)
            self.interrupt(f"epoch {self.epoch + 1}, in its validation")

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._end_validation()

    def interrupt(self, where: str) -> None:
        """Stop, with all saved.

        Raises:
            TrainingInterrupted: always.
        """
        path = self.checkpoints.newest if self.checkpoints else ""
        raise TrainingInterrupted(
            f"Stopped after {where}. Saved: {path}. To go on from there: load_weights('last') and train(...) with the "
            "same arguments.",
            path,
            self.interrupts.received or signal.SIGINT,
        )

    def close(self) -> None:
        """Leave the model as training has it, also after an error."""
        self._end_validation()

    def _asks(self, step: int) -> bool:
        """Whether to look after a step if a signal has come. Other processes have to be asked, which takes time."""
        return self.parallel.parts == 1 or step % LOOK_EVERY == 0

    def _interrupted(self) -> bool:
        return self.parallel.any(self.interrupts.received is not None)

    def _save(self, epoch: int, step: int, logs: Mapping[str, Any] | None = None) -> None:
        self.look()
        if self.checkpoints is not None:
            self.checkpoints.save(epoch, step, logs)
        self.parallel.wait()

    def _end_validation(self) -> None:
        _ = self.model  # on JAX, asking for it brings its variables back from the running step
        self._validation.close()


class _StopAfterEpoch(keras.callbacks.Callback):
    """Where among the callbacks a course may stop after an epoch, if that is wanted."""

    def __init__(self, course: Course, wanted: Callable[[], bool], where: str = "") -> None:
        super().__init__()
        self.course, self.wanted, self.where = course, wanted, where

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.wanted():
            self.course.interrupt(f"epoch {epoch + 1}{self.where}")


def remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed while it saved has left in a run's folder."""
    for leftover in folder.glob(".mask_rcnn_*.tmp"):
        if re.fullmatch(r"\.mask_rcnn_.*\.h5\.\d+\.[0-9a-f]{8}\.tmp", leftover.name):
            leftover.unlink(missing_ok=True)


def _random_states(model: keras.Model) -> list[Any]:
    """States of the random generators of a network's layers: all that is neither weight nor metric."""
    others = {id(variable) for variable in [*model.weights, *model.metrics_variables]}
    return [variable for variable in model.variables if id(variable) not in others]


@contextlib.contextmanager
def _own_random(model: keras.Model) -> Iterator[None]:
    """Random generators begin anew in this block, so that each validation draws the same, and none of training's."""
    states = _random_states(model)
    before = [ops.convert_to_numpy(state).copy() for state in states]
    try:
        for state, value in zip(states, before, strict=True):
            if value.shape == (2,):  # Keras's: the seed, and how often it was used
                state.assign(value * np.array([1, 0], value.dtype))
        yield
    finally:
        for state, value in zip(states, before, strict=True):
            state.assign(value)
