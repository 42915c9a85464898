"""Stopping and going on: signals, kills, and the same weights as without them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn import training
from mrcnn.interrupts import Interrupts, TrainingInterrupted
from mrcnn.model import MaskRCNN
from mrcnn.network import build_network
from mrcnn.optimization import averages
from mrcnn.parallel import DataParallel
from mrcnn.resuming import Course, Position, Saved, read_saved
from mrcnn.run_record import read_record
from mrcnn.run_stages import step_to_begin_with
from mrcnn.weights import inspect_weights, load_weights
from tests.shapes import Shapes
from tests.test_training import QuickConfig, Untraced

# Minutes on JAX.
QUICK = [pytest.mark.backends, *([pytest.mark.slow] if keras.backend.backend() == "jax" else [])]
TRACED = training.TrainingModel
STEPS = 3
# All that has a state of its own at once.
RICH = {
    "OPTIMIZER": "AdamW",
    "LEARNING_RATE_SCHEDULE": "cosine",
    "WARMUP_STEPS": 2,
    "GRADIENT_ACCUMULATION": 2,
    "EMA_DECAY": 0.9,
}


@pytest.fixture(autouse=True)
def untraced(monkeypatch):
    monkeypatch.setattr(training, "TrainingModel", Untraced)


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch):
    monkeypatch.setattr(training, "tensorboard", lambda folder: [])


class At(keras.callbacks.Callback):
    """Sends this process a signal in a step of an epoch (from 0), or in its validation; notes the learning rates."""

    def __init__(self, epoch=None, step=None, number=signal.SIGINT):
        super().__init__()
        self.where, self.number = (epoch, step), number
        self.rates, self.seen = [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        self._at(batch)
        self.rates.append(float(ops.convert_to_numpy(self.model.optimizer.learning_rate)))

    def on_test_batch_begin(self, batch, logs=None):
        self._at("validation")

    def _at(self, step):
        self.seen.append((self.epoch, step))
        if (self.epoch, step) == self.where:
            os.kill(os.getpid(), self.number)


def new_model(folder, **fields):
    keras.utils.set_random_seed(3)
    config = QuickConfig.from_dict({"STEPS_PER_EPOCH": STEPS, "VALIDATION_STEPS": 1} | fields)
    model = MaskRCNN("training", config, folder)
    # Proposals near the anchors hardly feel the last bits, in which two runs on busy cores may differ; others do, where
    # the legacy ROIAlign has its border.
    deltas = model.keras_model.get_layer("rpn_model").get_layer("rpn_bbox_pred")
    deltas.set_weights([np.zeros_like(weight) for weight in deltas.get_weights()])
    return model


def train(model, layers="all", epochs=2, rate=0.003, callbacks=()):
    # A last image for the batch of the next pass, and an image of its own for validation.
    train_set, val_set = Shapes(5, size=64), Shapes(2, seed=1, size=64)
    return model.train(train_set, val_set, rate, epochs, layers, custom_callbacks=list(callbacks), verbose=0)


def values(model):
    return {v.path: ops.convert_to_numpy(v) for v in model.keras_model.weights}


def rows(model):
    with (Path(model.log_dir) / "history.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Six steps without a stop, by fields of the configuration: weights, learning rates, history."""
    done = {}

    def get(**fields):
        key = training.TrainingModel.__name__, str(sorted(fields.items()))
        if key not in done:
            model, watch = new_model(tmp_path_factory.mktemp("whole"), **fields), At()
            train(model, callbacks=[watch])
            done[key] = values(model), watch.rates, rows(model)
        return done[key]

    return get


def assert_same(model, expected, tolerance=1e-6):
    found = values(model)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("fields", "stops", "kind"),
    [
        # In an epoch's validation, and in the middle of one.
        pytest.param(RICH, [(0, "validation"), (1, 1)], Untraced, marks=QUICK),
        pytest.param({}, [(0, 0), (0, "validation"), (1, 0)], Untraced, marks=[pytest.mark.backends, pytest.mark.slow]),
        pytest.param(RICH, [(0, 2)], Untraced, marks=[pytest.mark.backends, pytest.mark.slow]),  # in its last step
        pytest.param({"PRECISION": "mixed_float16"}, [(0, 1)], Untraced, marks=pytest.mark.slow),
        pytest.param(RICH, [(0, 1), (0, "validation")], TRACED, marks=pytest.mark.slow),  # as people train
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_training_that_was_stopped_comes_to_the_same_weights(tmp_path, monkeypatch, uninterrupted, fields, stops, kind):
    monkeypatch.setattr(training, "TrainingModel", kind)
    expected, rates, history = uninterrupted(**fields)
    found_rates = []
    for number, stop in enumerate([*stops, None]):
        model, watch = new_model(tmp_path, **fields), At(*stop or ())
        if number:
            model.keras_model.set_weights([weight * 0 for weight in model.keras_model.get_weights()])
            model.load_weights("last")
        if stop is None:
            train(model, callbacks=[watch])
        else:
            with pytest.raises(TrainingInterrupted, match=r"Stopped after epoch \d.*load_weights\('last'\)") as stopped:
                train(model, callbacks=[watch])
            assert stopped.value.signal == signal.SIGINT
            assert stopped.value.path == model.find_last()
        found_rates += watch.rates
    assert_same(model, expected)
    assert found_rates == pytest.approx(rates, rel=1e-6)  # so no step was done twice, and none left out
    assert [row["epoch"] for row in rows(model)] == ["1", "2"]
    for found, whole in zip(rows(model), history, strict=True):  # the means over all of the epochs' steps
        last, wanted = ({name: float(value) for name, value in row.items()} for row in (found, whole))
        assert last == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    files = sorted(path.name for path in Path(model.log_dir).glob("mask_rcnn*"))
    assert files == ["mask_rcnn_shapes_0001.h5", "mask_rcnn_shapes_0002.h5"]


def test_stages_in_one_call_and_going_on_in_the_second(tmp_path, capsys):
    # Of the same layers, for which the momentum of the first is there to be taken up wrongly.
    stages, fields = [("heads", 1, 0.001), ("heads", 2, 0.0005)], {"STEPS_PER_EPOCH": 1, "VALIDATION_STEPS": 0}
    whole, watch = new_model(tmp_path / "whole", **fields), At()
    history = train(whole, stages, None, None, [watch])
    assert watch.rates == pytest.approx([0.001, 0.0005])
    assert (history.epoch, len(history.history["loss"]), whole.epoch) == ([0, 1], 2, 2)
    told = capsys.readouterr().out
    assert "Starting at epoch 0. LR=0.001" in told and "Starting at epoch 1. LR=0.0005" in told
    saved = [read_saved(Path(whole.log_dir) / f"mask_rcnn_shapes_{number:04d}.h5") for number in (1, 2)]
    assert [one.stage for one in saved] == [
        {"layers": "heads", "start": 0, "end": 1},
        {"layers": "heads", "start": 1, "end": 2},
    ]
    expected = values(whole)  # and now as if the process had ended between the stages
    again = new_model(tmp_path / "whole", **fields)
    again.load_weights(saved[0].path)
    train(again, stages, None, None)
    assert_same(again, expected)
    capsys.readouterr()
    assert train(again, stages, None, None) is None
    assert "Nothing to train: 2 epochs are done" in capsys.readouterr().out


@pytest.mark.slow
def test_a_stopped_model_may_go_on_itself(tmp_path, uninterrupted):
    expected, _, _ = uninterrupted(**RICH)
    model = new_model(tmp_path, **RICH)
    with pytest.raises(TrainingInterrupted):
        train(model, callbacks=[At(1, 0)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train(model)
    assert_same(model, expected)


def test_a_checkpoint_has_the_averaged_weights(tmp_path, uninterrupted):
    model = new_model(tmp_path, **RICH, SAVE_EVERY=2)
    files = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            files.append(sorted(path.name for path in Path(model.log_dir).glob("mask_rcnn*")))
            if batch == 1:
                saved = load_weights(network, Path(model.log_dir) / files[-1][-1])
                assert saved.complete
                kernel = ops.convert_to_numpy(network.get_layer("mrcnn_class_logits").kernel)
                own = self.model.get_layer("mrcnn_class_logits").kernel
                [average] = [kept for variable, kept in averages(self.model) if variable is own]
                np.testing.assert_array_equal(kernel, ops.convert_to_numpy(average))
                assert np.abs(kernel - ops.convert_to_numpy(own)).max() > 0

    network = build_network(model.config, "inference")
    train(model, epochs=1, callbacks=[Look()])
    assert files == [[], ["mask_rcnn_shapes_0000_step000002.h5"], ["mask_rcnn_shapes_0000_step000002.h5"]]
    assert [path.name for path in Path(model.log_dir).glob("mask_rcnn*")] == ["mask_rcnn_shapes_0001.h5"]
    # A stage ends with the averages as the network's own weights.
    load_weights(network, model.find_last())
    kernels = [ops.convert_to_numpy(each.get_layer("fpn_p2").kernel) for each in (network, model.keras_model)]
    np.testing.assert_array_equal(*kernels)


def test_other_batches_than_before_are_told():
    saved = Saved(Path("x.h5"), epoch=1, step=2, numbers={"STEPS_PER_EPOCH": 3, "BATCH_SIZE": 2, "SEED": 0})

    def begin(epoch=1, **fields):
        config = QuickConfig.from_dict({"STEPS_PER_EPOCH": 3, **fields})
        return step_to_begin_with(SimpleNamespace(epoch=epoch, config=config), saved)

    assert begin() == 2
    assert begin(epoch=4) == 0  # the file's name tells another epoch
    with pytest.warns(UserWarning, match="goes on from x.h5 with other batches .*SEED 0 then, 5 now"):
        assert begin(SEED=5) == 2
    with pytest.raises(ValueError, match=r"saved after step 2 .*STEPS_PER_EPOCH is 2\. Set it to 3"):
        begin(STEPS_PER_EPOCH=2)


def test_signals_do_what_a_script_has_them_do(tmp_path):
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        train(new_model(tmp_path, STEPS_PER_EPOCH=1, VALIDATION_STEPS=0), epochs=1, callbacks=[At(0, 0)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.received == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):  # a second time: at once
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(("parts", "asked", "stopped"), [(1, list(range(1, 13)), 13), (2, [10], 20)])
def test_processes_that_share_a_batch_ask_each_other_every_tenth_step(parts, asked, stopped):
    class Counting(DataParallel):
        def any(self, flag):
            times.append(done)
            return flag

    Counting.parts, times, saved = parts, [], []
    interrupts = Interrupts()
    course = Course(QuickConfig.from_dict({"STEPS_PER_EPOCH": 30}), Counting(), interrupts, Position())
    course.checkpoints = SimpleNamespace(save=lambda epoch, step, logs: saved.append((epoch, step)), newest="x.h5")
    for done in range(1, 13):
        course.on_train_batch_end(done - 1)
    assert times == asked and not saved
    interrupts.received = signal.SIGTERM
    for done in range(13, stopped):
        course.on_train_batch_end(done - 1)
    done = stopped
    with pytest.raises(TrainingInterrupted, match=f"Stopped after epoch 1, step {stopped} of 30"):
        course.on_train_batch_end(done - 1)
    assert times == [*asked, stopped] and saved == [(0, stopped)]


# A process that is killed

# Goes on with the newest checkpoint, and notes each step of the run (counted from 1) once it is done and saved.
PROGRAM = """
import json
import sys
import keras
from mrcnn import training
from tests.test_resuming import Shapes, Untraced, new_model, train_killed
folder, epochs, fields = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
training.TrainingModel, training.tensorboard = Untraced, lambda folder: []
class Note(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        with open(f"{folder}/steps.txt", "a") as file:
            print("begin", model.epoch * 3 + step, file=file, flush=True)
        self.done = model.epoch * 3 + step
    def on_train_batch_end(self, batch, logs=None):
        self.done += 1
        with open(f"{folder}/steps.txt", "a") as file:
            print("done", self.done, file=file, flush=True)
model, step = new_model(folder, **fields), 0
try:
    path = model.find_last()
    model.load_weights(path)
    step = int(path.partition("_step")[2].removesuffix(".h5") or 0)
except FileNotFoundError:
    pass
train_killed(model, epochs, [Note()])
"""
KILLED = {"SAVE_EVERY": 2, "VALIDATION_STEPS": 0, "EMA_DECAY": 0.9}
EVALUATED = KILLED | {"VALIDATION_STEPS": 1, "EVALUATE_EVERY": 1}


def train_killed(model, epochs, callbacks=()):
    val_set = Shapes(2, seed=1, size=64) if model.config.EVALUATE_EVERY else None
    model.train(Shapes(5, size=64), val_set, 0.003, epochs, "all", custom_callbacks=list(callbacks), verbose=0)


def kill_run(folder, epochs, fields, kills, rng, longest):
    """Train towards an epoch in so many processes, each killed at a random moment after it began; what they told of
    their steps, and how many were killed before they were done."""
    notes = folder / "steps.txt"
    notes.touch()
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    for number in range(kills):
        before = notes.read_text().count("\n")
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(epochs), json.dumps(fields)],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 300
            while notes.read_text().count("\n") < before + 2 and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(rng.uniform(0, longest))
        finally:
            alive = process.poll() is None
            process.kill()
            process.wait()
        if not alive:
            assert process.returncode == 0
            return notes.read_text().splitlines(), number
        for checkpoint in folder.glob("*/*.h5"):  # whole, every one of them
            assert inspect_weights(checkpoint).has_optimizer == (checkpoint.name != "best.h5")
    return notes.read_text().splitlines(), kills


def assert_no_more_was_lost_than_since_the_last_save(notes):
    saved, done = 0, 0
    for line in notes:
        what, number = line.split()
        if what == "begin":
            assert saved <= int(number) <= done + 1  # a step that was saved may be killed before it is noted
        else:
            done = int(number)
            # An epoch of 3 steps is saved when it ends, which is after the note of its last step.
            saved = max(
                step for step in range(done + 1) if (step < done if step % 3 == 0 else step % 2 == 0) or not step
            )


@pytest.mark.parametrize(
    ("fields", "kills", "epochs", "longest"),
    [(KILLED, 1, 1, 0.5), pytest.param(EVALUATED, 50, 60, 2.0, marks=pytest.mark.slow)],
    ids=["once", "often"],
)
def test_a_killed_run_comes_to_the_same_weights(tmp_path, rng, fields, kills, epochs, longest):
    notes, killed = kill_run(tmp_path, epochs, fields, kills, rng, longest)
    assert killed == kills or epochs == 1  # a short run may be done before
    model = new_model(tmp_path, **fields)
    step = 0
    if list(tmp_path.glob("*/mask_rcnn*.h5")):
        model.load_weights("last")
        step = read_saved(model.find_last()).step
    assert_no_more_was_lost_than_since_the_last_save([*notes, f"begin {model.epoch * STEPS + step}"])
    train_killed(model, epochs)
    assert model.epoch == epochs
    assert not list(Path(model.log_dir).glob(".mask_rcnn*.tmp"))
    whole = new_model(tmp_path / "whole", **fields)
    train_killed(whole, epochs)
    assert_same(model, values(whole))
    found, expected = ([{name: float(value) for name, value in row.items()} for row in rows(m)] for m in (model, whole))
    assert [row["epoch"] for row in found] == list(range(1, epochs + 1))
    for row, wanted in zip(found, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    if fields is EVALUATED:
        assert all("val_mask_ap" in row and "val_loss" in row for row in found)
        records = [read_record(Path(m.log_dir)) for m in (model, whole)]
        assert [entry["epoch"] for entry in records[0]["epochs"]] == list(range(1, epochs + 1))
        best = [inspect_weights(Path(m.log_dir) / "best.h5") for m in (model, whole)]
        assert best[0].epoch == best[1].epoch == records[0]["best"]["epoch"] == records[1]["best"]["epoch"]
        assert load_weights(build_network(model.config, "inference"), Path(model.log_dir) / "best.h5").complete
