"""Losses that are read back when somebody looks, and not before."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn import lazy_logs
from mrcnn.callbacks import NonFiniteGuard, TrainingError
from mrcnn.config import Config
from mrcnn.fitting import Callbacks
from mrcnn.interrupts import Interrupts
from mrcnn.lazy_logs import LOOK_EVERY, LazyLogs, read
from mrcnn.parallel import DataParallel
from mrcnn.resuming import Course, Position


class Device:
    """Counts how often numbers are read back from it."""

    def __init__(self):
        self.reads = 0

    def number(self, value):
        return _Number(self, value)


class _Number:
    shape, dtype = (), "float32"

    def __init__(self, device, value):
        self._device, self._value = device, value

    def __float__(self):
        self._device.reads += 1
        return float(self._value)

    def __array__(self, dtype=None, copy=None):
        self._device.reads += 1
        return np.array(self._value, dtype or np.float32)


@pytest.mark.backends
@pytest.mark.parametrize(
    "look",
    [dict, lambda logs: {**logs}, lambda logs: dict(logs.items()), lambda logs: {n: logs[n] for n in logs},
     lambda logs: logs.copy(), lambda logs: json.loads(json.dumps(dict(logs))), lambda logs: logs | {}],
)  # fmt: skip
def test_to_look_in_any_way_gives_plain_numbers(look):
    logs = LazyLogs({"loss": ops.convert_to_tensor(1.5), "steps": 3})
    assert not logs.is_read
    assert len(logs) == 2 and list(logs) == ["loss", "steps"] and "loss" in logs and not logs.is_read
    found = look(logs)
    assert found == {"loss": 1.5, "steps": 3}
    assert {name: type(value) for name, value in found.items()} == {"loss": float, "steps": int}
    assert logs.is_read


@pytest.mark.backends
def test_several_steps_are_read_at_once(monkeypatch):
    transfers = []
    plain = ops.convert_to_numpy
    monkeypatch.setattr(lazy_logs.ops, "convert_to_numpy", lambda x: transfers.append(1) or plain(x))
    logs = [LazyLogs({"a": ops.convert_to_tensor(float(n)), "b": ops.convert_to_tensor(n / 2)}) for n in range(5)]
    read(logs)
    assert [dict(each) for each in logs] == [{"a": float(n), "b": n / 2} for n in range(5)]
    assert len(transfers) == 1


def test_none_and_empty_logs_are_empty():
    for logs in (LazyLogs(None), LazyLogs({})):
        assert logs.is_read and dict(logs) == {}


@pytest.mark.parametrize("verbose", [0, 1])
def test_losses_are_read_once_in_ten_steps(verbose, capsys):
    device, steps = Device(), 35
    guard = NonFiniteGuard(lambda step: [], steps)
    seen = []
    course = Course(Config(), DataParallel(), Interrupts(), Position())
    callbacks = Callbacks(
        [guard, course], add_history=True, add_progbar=verbose > 0, verbose=verbose, epochs=1, steps=steps,
        model=keras.Sequential(),
    )  # fmt: skip
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    for step in range(steps):
        before = device.reads
        callbacks.on_train_batch_begin(step)
        callbacks.on_train_batch_end(step, {name: device.number(step) for name in ("loss", "rpn_class_loss")})
        if device.reads > before:
            seen.append(step)
    assert seen == [9, 19, 29]
    capsys.readouterr()


def test_a_callback_that_looks_gets_the_numbers_of_its_step():
    found = []
    looking = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: found.append(dict(logs)))
    callbacks = Callbacks([looking], model=keras.Sequential())
    for step in range(3):
        callbacks.on_train_batch_end(step, {"loss": Device().number(step / 2)})
    assert found == [{"loss": 0.0}, {"loss": 0.5}, {"loss": 1.0}]


@pytest.mark.parametrize("moment", ["the tenth step", "epoch end", "validation", "saving"])
def test_a_loss_that_was_not_finite_is_found_later_with_its_own_step(moment):
    guard = NonFiniteGuard(lambda step: [f"image {step}"], steps_per_epoch=100)
    guard.on_epoch_begin(2)
    moments = {
        "the tenth step": lambda: [guard.on_train_batch_end(step, {"loss": math.nan}) for step in range(6, LOOK_EVERY)],
        "epoch end": lambda: guard.on_epoch_end(2),
        "validation": guard.on_test_begin,
        "saving": guard.look,
    }
    for step in range(6):
        bad = step >= 4
        guard.on_train_batch_end(step, {"loss": math.nan if bad else 1.0, "mrcnn_mask_loss": math.inf if bad else 2.0})
    with pytest.raises(TrainingError, match=r"mrcnn_mask_loss, at epoch 3, step 5. .*: image 204\."):
        moments[moment]()


def test_nothing_is_saved_before_the_losses_were_looked_at():
    course = Course(
        Config.from_dict({"SAVE_EVERY": 2, "STEPS_PER_EPOCH": 10}), DataParallel(), Interrupts(), Position()
    )
    saved = []

    class Saving:
        newest = ""

        def save(self, *arguments):
            saved.append(arguments)

    guard = NonFiniteGuard(lambda step: [], 10)
    course.checkpoints, course.look = Saving(), guard.look
    guard.on_epoch_begin(0)
    for step, loss in enumerate((1.0, 1.0, math.nan)):
        for callback in (guard, course):
            callback.on_train_batch_end(step, {"loss": loss})
    assert len(saved) == 1
    guard.on_train_batch_end(3, {"loss": math.nan})
    with pytest.raises(TrainingError, match="step 3"):
        course.on_train_batch_end(3, {"loss": math.nan})
    assert len(saved) == 1
