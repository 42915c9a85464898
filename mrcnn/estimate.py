"""While training: how long the rest will take, and how much memory it has taken."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from mrcnn.memory import peak_memory

# Steps after which time and memory are told; the first, which compiles, does not count.
_STEPS_WATCHED = 3


class Estimate(keras.callbacks.Callback):
    """How long the rest will take, and how much memory it has taken: after three steps of each stage; and once more
    after the first whole epoch of each, from how long that took with validation and saving.

    Args:
        steps_per_epoch: steps of an epoch.
        last_epoch: of the last stage.
        begun: steps that lie behind, counted from the very first.
        evaluate_every: after how many epochs average precision is measured; 0: never.
    """

    def __init__(self, steps_per_epoch: int, last_epoch: int, begun: int = 0, evaluate_every: int = 0) -> None:
        super().__init__()
        self.steps_per_epoch = steps_per_epoch
        self.last_epoch = last_epoch
        self.done = begun
        self.evaluate_every = evaluate_every
        self.durations: list[float] = []  # of this stage's first steps
        self._steps = 0  # from the beginning of this stage to the end of the last
        self._last = 0.0
        self._epoch_start, self._epoch_begun = 0.0, begun
        self._tells_of_epoch = True

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self.durations = []
        self._steps = self.last_epoch * self.steps_per_epoch - self.done
        self._tells_of_epoch = True

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._last = self._epoch_start = time.perf_counter()
        self._epoch_begun = self.done

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        left = self.last_epoch - epoch - 1
        if not self._tells_of_epoch or self.done - self._epoch_begun < self.steps_per_epoch or not left:
            return
        self._tells_of_epoch = False
        seconds = time.perf_counter() - self._epoch_start
        usual = seconds
        if len(self.durations) == min(_STEPS_WATCHED, self.steps_per_epoch) > 1:
            usual -= max(self.durations[0] - _mean(self.durations[1:]), 0.0)  # the first step compiles
        more = f"; average precision every {self.evaluate_every} epochs comes on top" if self.evaluate_every > 1 else ""
        print(
            f"\nEpoch {epoch + 1} took {duration(seconds)} with validation and saving: all done about "
            f"{_in_time(usual * left)}{more}.",
            flush=True,
        )

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.done += 1
        if len(self.durations) == _STEPS_WATCHED:
            return
        if len(self.durations) in (0, _STEPS_WATCHED - 1) and logs:
            float(next(iter(logs.values())))  # a device that works ahead has done the step when it tells its loss
        now = time.perf_counter()
        self.durations.append(now - self._last)
        self._last = now
        if len(self.durations) == _STEPS_WATCHED:
            each = _mean(self.durations[1:])
            print(
                f"\nAfter {_STEPS_WATCHED} steps: {duration(each)} a step, so {duration(each * self._steps)} for all "
                f"{self._steps}, until {_in_time(each * (self._steps - _STEPS_WATCHED))} (without validation and "
                f"saving). Memory at the peak: {peak_memory()}.",
                flush=True,
            )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _in_time(seconds: float) -> str:
    return f"{datetime.datetime.now() + datetime.timedelta(seconds=seconds):%H:%M on %Y-%m-%d}"


def duration(seconds: float) -> str:
    """A time in words: 0.84 s, 12 s, 3 min, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
