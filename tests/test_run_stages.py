"""The stages of one call: their learning rates and objectives as they reach the optimizer, averaged weights in what is
measured, and callbacks that end training. With a toy in the network's place."""

from __future__ import annotations

import math
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn import monitoring
from mrcnn.config import LOSS_NAMES
from mrcnn.optimization import averages
from mrcnn.weights import load_weights
from tests.shapes import Shapes
from tests.test_monitoring import result_of
from tests.toy import new_toy

RATE = 0.004


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch):
    monkeypatch.setattr("mrcnn.training.tensorboard", lambda folder: [])


def train(model, layers, *callbacks, epochs=None, val=None, rate=None):
    return model.train(Shapes(4, size=64), val, rate, epochs, layers, custom_callbacks=list(callbacks), verbose=0)


class Watching(keras.callbacks.Callback):
    """Notes the learning rate before each step, and the weights after it."""

    def __init__(self):
        super().__init__()
        self.rates, self.weights = [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.rates.append(float(ops.convert_to_numpy(self.model.optimizer.learning_rate)))

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(kernel_of(self.model))


def kernel_of(model):
    return ops.convert_to_numpy(model.get_layer("fpn_p2").kernel).copy()


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_each_stage_has_its_schedule_counted_in_steps(tmp_path, optimizer):
    model = new_toy(
        tmp_path, STEPS_PER_EPOCH=4, LEARNING_RATE_SCHEDULE="cosine", WARMUP_STEPS=2, WARMUP_FACTOR=0.1,
        GRADIENT_ACCUMULATION=2, OPTIMIZER=optimizer,
    )  # fmt: skip
    watch = Watching()
    train(model, [("heads", 1, RATE), ("all", 2, RATE / 10)], watch)

    def expected(step):
        return (0.1 + 0.9 * min(step / 2, 1)) * (1 + math.cos(math.pi * max(step - 2, 0) / 2)) / 2

    rates = [rate * expected(step) for rate in (RATE, RATE / 10) for step in range(4)]
    assert watch.rates == pytest.approx(rates, rel=1e-5)
    # Weights move with every second step.
    moved = [not np.array_equal(a, b) for a, b in zip(watch.weights[:-1], watch.weights[1:], strict=True)]
    assert moved == [True, False] * 3 + [True]


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_weights_decay_by_the_loss_or_by_the_optimizer_but_not_by_both(tmp_path, optimizer):
    model = new_toy(tmp_path, OPTIMIZER=optimizer, WEIGHT_DECAY=0.5)
    before = model.keras_model.get_weights()
    history = train(model, "all", epochs=1, rate=1e-9).history
    penalty = history["loss"][0] - sum(history[name][0] for name in LOSS_NAMES)
    if optimizer == "AdamW":
        assert model.keras_model.optimizer.weight_decay == 0.5
        assert penalty == pytest.approx(0, abs=1e-4)
    else:
        assert model.keras_model.optimizer.weight_decay is None
        assert penalty == pytest.approx(0.5 * sum(float(np.mean(np.square(w))) for w in before), rel=1e-3)


def test_what_is_measured_is_of_the_averaged_weights(tmp_path, monkeypatch):
    seen = {}

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen["own"] = kernel_of(self.model)
            own = self.model.get_layer("fpn_p2").kernel
            [average] = [kept for variable, kept in averages(self.model) if variable is own]
            seen["average"] = ops.convert_to_numpy(average).copy()

        def on_test_batch_begin(self, batch, logs=None):
            seen["validation"] = kernel_of(self.model)

        def on_epoch_end(self, epoch, logs=None):
            seen["after"] = kernel_of(self.model)

    def evaluate(model, *arguments, **options):
        seen["evaluation"] = kernel_of(model)
        return result_of(0.5)

    monkeypatch.setattr(monitoring, "evaluate", evaluate)
    monkeypatch.setattr(monitoring, "detector_of", lambda model, config: model)
    model = new_toy(tmp_path, STEPS_PER_EPOCH=3, EMA_DECAY=0.9, EVALUATE_EVERY=1)
    train(model, [("all", 1, 0.1)], Look(), val=Shapes(2, seed=1, size=64))
    assert np.abs(seen["own"] - seen["average"]).max() > 1e-4
    for moment in ("validation", "evaluation"):
        np.testing.assert_array_equal(seen[moment], seen["average"], err_msg=moment)
    np.testing.assert_array_equal(seen["after"], seen["own"])  # training goes on with its own
    other = new_toy(tmp_path / "other").keras_model
    assert load_weights(other, Path(model.log_dir) / "best.h5").complete
    np.testing.assert_array_equal(kernel_of(other), seen["average"])


@pytest.mark.parametrize("epoch", [1, 2])  # in the middle of the first stage, and at its end
def test_a_callback_that_stops_training_ends_all_stages(tmp_path, epoch):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, now, logs=None):
            self.model.stop_training = now + 1 == epoch

    model = new_toy(tmp_path)
    history = train(model, [("heads", 2, 0.01), ("all", 4, 0.01)], Stop())
    assert history.epoch == list(range(epoch)) and model.epoch == epoch
    train(model, [("heads", 2, 0.01), ("all", 4, 0.01)])  # called again, it goes on
    assert model.epoch == 4
