"""An epoch that was stopped or killed before all was measured that is wanted after it: going on measures it first, and
comes to the same figures, best weights and end as training that was not stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn import monitoring
from mrcnn.callbacks import HistoryLog
from mrcnn.interrupts import TrainingInterrupted
from mrcnn.resuming import Checkpoints
from mrcnn.run_record import read_record, write_record
from mrcnn.weights import inspect_weights
from tests.shapes import Shapes
from tests.test_monitoring import result_of
from tests.test_resuming import At, assert_same, no_tensorboard, rows  # noqa: F401
from tests.toy import new_toy, values

# By epoch: the second is the best, and with a patience of two the fourth the last.
APS = {1: 0.1, 2: 0.5, 3: 0.2, 4: 0.3, 5: 0.4, 6: 0.45}
FIELDS = {"STEPS_PER_EPOCH": 1, "EVALUATE_EVERY": 1, "EARLY_STOPPING": 2, "EMA_DECAY": 0.9}


class Killed(BaseException):
    """Ends a process as no handler expects it."""


class NoJudge(monitoring.Judge):
    """Looks at no image."""

    def __call__(self, *arguments):
        pass


@pytest.fixture
def evaluation(monkeypatch):
    """In place of the real one: the average precision of `APS`, with something of the weights in it. `at_image` is
    called with the epoch before each image; `epochs` are those that were evaluated to the end."""
    hooks = SimpleNamespace(at_image=lambda epoch: None, epochs=[])

    def evaluate(model, dataset, image_ids, progress, on_image):
        epoch = int(ops.convert_to_numpy(model.optimizer.iterations))
        for _ in image_ids:
            hooks.at_image(epoch)
            on_image()
        hooks.epochs.append(epoch)
        return result_of(
            APS[epoch] + 0.01 * float(np.abs(ops.convert_to_numpy(model.get_layer("fpn_p2").kernel)).mean())
        )

    monkeypatch.setattr(monitoring, "evaluate", evaluate)
    monkeypatch.setattr(monitoring, "detector_of", lambda model, config: model)
    monkeypatch.setattr(monitoring, "Judge", NoJudge)
    return hooks


class Ends(keras.callbacks.Callback):
    """Notes the epochs whose end it is told of."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append((epoch + 1, "val_mask_ap" in logs, "val_loss" in logs))


def train(model, *callbacks, layers="all", epochs=6, verbose=0):
    train_set, val_set = Shapes(5, size=64), Shapes(2, seed=1, size=64)
    return model.train(train_set, val_set, 0.003, epochs, layers, custom_callbacks=list(callbacks), verbose=verbose)


def left_behind(model):
    """What a run's folder tells: rows of the history, evaluations, the best weights' epoch and score."""
    folder = Path(model.log_dir)
    table = [{name: float(value or "nan") for name, value in row.items()} for row in rows(model)]
    record = read_record(folder)
    evaluated = [(entry["epoch"], entry["mask"]["ap"]) for entry in record["epochs"]]
    best = inspect_weights(folder / "best.h5")
    assert record["best"]["epoch"] == best.epoch
    return table, evaluated, (best.epoch, best.metadata["best"]["score"])


def assert_alike(model, expected):
    for found, wanted in zip(left_behind(model), expected, strict=True):
        for one, other in zip(found, wanted, strict=True):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was not stopped, made once: the model's weights, and what it left."""
    done = []

    def get():
        if not done:
            model, ends = new_toy(tmp_path_factory.mktemp("whole"), **FIELDS), Ends()
            train(model, ends)
            assert ends.epochs == [(number, True, True) for number in (1, 2, 3, 4)]  # which EARLY_STOPPING ends
            done.append((values(model), left_behind(model)))
        return done[0]

    return get


def again(model):
    """As another process would go on."""
    model.keras_model.set_weights([weight * 0 for weight in model.keras_model.get_weights()])
    model.load_weights("last")


def test_stopped_in_validation_and_in_evaluation(tmp_path, evaluation, whole, capsys):
    weights, expected = whole()
    evaluation.epochs.clear()
    model, ends = new_toy(tmp_path, **FIELDS), Ends()
    stops = [(2, "validation"), (2, "evaluation"), (4, "validation"), (4, "evaluation")]
    for epoch, where in stops:
        evaluation.at_image = lambda now, at=(epoch, where): (
            os.kill(os.getpid(), signal.SIGINT) if at == (now, "evaluation") else None
        )
        at = At(epoch - 1, where)
        with pytest.raises(
            TrainingInterrupted, match=f"Stopped after epoch {epoch}, in its {where}. Saved: .*_000{epoch}"
        ):
            train(model, at, ends)
        assert model.epoch == epoch
        last = rows(model)[-1]  # the losses of training are there at once
        assert last["epoch"] == str(epoch) and float(last["loss"]) and not last["val_mask_ap"]
        assert bool(last["val_loss"]) == (where == "evaluation")
        assert inspect_weights(Path(model.log_dir) / "best.h5").epoch != epoch
        again(model)
    evaluation.at_image = lambda now: None
    capsys.readouterr()
    history = train(model, ends)
    told = capsys.readouterr().out
    assert "Epoch 4 is trained, and what is measured after it is not complete: that comes first." in told
    assert history.epoch == [3] and model.epoch == 4  # it was the last one, as it turns out
    assert ends.epochs == [(number, True, True) for number in (1, 2, 3, 4)]  # each once, with all that was measured
    assert evaluation.epochs == [1, 2, 3, 4]
    assert_same(model, weights)
    assert_alike(model, expected)


def test_killed_between_the_checkpoint_and_the_end_of_its_epoch(tmp_path, evaluation, whole, monkeypatch):
    weights, expected = whole()
    model = new_toy(tmp_path, **FIELDS)

    def killed_in(epoch, owner, name, after=False, when=lambda number: True):
        """Go on, and be killed where a function is called in an epoch, or right after it."""
        plain, calls = getattr(owner, name), []

        def dies(*arguments, **options):
            now = int(ops.convert_to_numpy(model.keras_model.optimizer.iterations))
            calls.append(now)
            there = now == epoch and when(calls.count(now))
            if there and not after:
                raise Killed
            plain(*arguments, **options)
            if there:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, dies)
            with pytest.raises(Killed):
                train(model)
        again(model)

    killed_in(1, NoJudge, "__call__")  # in the evaluation
    assert [row["epoch"] for row in rows(model)] == ["1"] and float(rows(model)[0]["val_loss"])
    assert model.epoch == 1
    killed_in(2, monitoring, "save_weights", after=True)  # best.h5 is there, and no record of it
    assert inspect_weights(Path(model.log_dir) / "best.h5").epoch == 2
    assert [entry["epoch"] for entry in read_record(Path(model.log_dir))["epochs"]] == [1]
    killed_in(3, HistoryLog, "on_epoch_end", when=lambda number: number == 2)  # the row lacks what was measured
    killed_in(4, Checkpoints, "on_epoch_end")  # the row is there, and no checkpoint
    assert [row["epoch"] for row in rows(model)] == ["1", "2", "3", "4"] and model.epoch == 3
    train(model)
    assert_same(model, weights)
    assert_alike(model, expected)


def test_with_nothing_left_to_train_the_last_epoch_is_measured(tmp_path, evaluation, capsys):
    stages = [("heads", 1, 0.003), ("heads", 2, 0.003)]
    fields = FIELDS | {"EARLY_STOPPING": 0}
    plain = new_toy(tmp_path / "plain", **fields)
    train(plain, layers=stages, epochs=None)
    model = new_toy(tmp_path, **fields)
    for epoch in (1, 2):  # the last of each stage
        evaluation.at_image = lambda now, epoch=epoch: now == epoch and os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(TrainingInterrupted, match="in its evaluation") as stopped:
            train(model, layers=stages, epochs=None)
        assert stopped.value.signal == signal.SIGTERM
        again(model)
    evaluation.at_image = lambda now: None
    capsys.readouterr()
    history = train(model, layers=stages, epochs=None, verbose=2)
    assert "Starting at" not in capsys.readouterr().out
    assert len(history.history["val_mask_ap"]) == 1
    assert_same(model, values(plain))
    assert_alike(model, left_behind(plain))
    again(model)
    assert train(model, layers=stages, epochs=None) is None
    assert "Nothing to train: 2 epochs are done" in capsys.readouterr().out
    # A run of which nothing was noted, by an earlier version, is taken as complete.
    record = read_record(Path(model.log_dir))
    write_record(Path(model.log_dir), {**record, "measured": None})
    again(model)
    assert train(model, layers=stages, epochs=None) is None
