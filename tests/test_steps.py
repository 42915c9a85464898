"""What training steps cost beside their arithmetic: traces, waits for the device, data that nobody needs."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from mrcnn import training
from mrcnn.layers.normalization import BatchNorm
from mrcnn.model import MaskRCNN
from tests.shapes import Shapes
from tests.test_lazy_logs import Device
from tests.test_training import QuickConfig


def test_nothing_is_traced_after_the_first_two_steps(tmp_path, monkeypatch):
    traces, steps = [], []

    class Traced(training.TrainingModel):
        def compute_loss(self, *args, training=True, **kwargs):  # runs when a step is traced, and only then
            traces.append("train" if training else "validate")
            return super().compute_loss(*args, training=training, **kwargs)

    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            steps.append(len(traces))

    plain = BatchNorm.call

    def no_pass_of_its_own(self, *args, **kwargs):
        assert self.name.startswith("mrcnn_class"), f"{self.name} was run, though it is frozen"
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(training, "TrainingModel", Traced)
    config = QuickConfig.from_dict({"STEPS_PER_EPOCH": 3})
    model = MaskRCNN("training", config, tmp_path)
    monkeypatch.setattr(BatchNorm, "call", no_pass_of_its_own)
    # Images with other numbers of objects, and an epoch's end with its validation, between the steps.
    model.train(Shapes(8, size=64), Shapes(2, seed=1, size=64), 1e-4, 2, "all", custom_callbacks=[Count()], verbose=0)
    assert len(steps) == 6
    assert traces.count("train") == steps[0] <= 2
    assert traces.count("validate") == 1
    assert set(steps[:3]) == {steps[0]} and set(steps[3:]) == {len(traces)}


@pytest.mark.parametrize("verbose", [0, 1, "table"])
def test_losses_are_read_back_once_in_ten_steps(verbose, tmp_path, monkeypatch, capsys):
    device, log = Device(), []

    class Instant(training.TrainingModel):
        """Its steps do nothing but give losses that are still on their way."""

        def make_train_function(self, force=False):
            self.train_function = self._give

        def _give(self, iterator):
            log.append(device.reads)
            return {metric.name: device.number(1.0) for metric in self.metrics}

    monkeypatch.setattr(training, "TrainingModel", Instant)
    config = QuickConfig.from_dict({"STEPS_PER_EPOCH": 40, "VALIDATION_STEPS": 0})
    model = MaskRCNN("training", config, tmp_path)
    model.train(Shapes(2, size=64), None, 1e-4, 1, "all", verbose=verbose)
    assert len(log) == 40
    reads = np.diff(log) > 0  # whether anything was read between a step and the next
    read = np.flatnonzero(reads).tolist()
    assert [step for step in read if step > 2] == [9, 19, 29]
    assert len(read) <= 5  # the first steps are timed, to tell how long it will take
    capsys.readouterr()
