"""Learning rates over a stage, optimizers, accumulation, averaged weights, precision."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn import training
from mrcnn.config import Config, ConfigError
from mrcnn.model import MaskRCNN
from mrcnn.optimization import (
    LaterSchedule,
    averaged_weights,
    averages,
    first_count,
    make_optimizer,
    set_count,
    stage_rate,
    take_averages,
)
from mrcnn.parallel import DataParallel
from mrcnn.stages import parse_stages, plan_stages, stages_from_dict, stages_to_dict
from tests.shapes import Shapes
from tests.test_training import SLOW_BUT_ON_TENSORFLOW, QuickConfig, Untraced

BACKEND = keras.backend.backend()


def config_of(**fields):
    return Config.from_dict({"NUM_CLASSES": 2, "STEPS_PER_EPOCH": 100, **fields})


def rates_of(schedule, steps):
    return np.array([float(ops.convert_to_numpy(schedule(ops.convert_to_tensor(step, "int32")))) for step in steps])


# Learning rates


@pytest.mark.backends
def test_cosine_after_a_warm_up():
    config = config_of(LEARNING_RATE_SCHEDULE="cosine", WARMUP_STEPS=20, WARMUP_FACTOR=0.1)
    schedule = stage_rate(config, 0.02, 300, 500)  # a stage of two epochs, after three
    steps = np.array([300, 310, 320, 410, 499])
    warmup = np.minimum(0.1 + 0.9 * (steps - 300) / 20, 1)
    cosine = (1 + np.cos(math.pi * np.maximum(steps - 320, 0) / 180)) / 2
    np.testing.assert_allclose(rates_of(schedule, steps), 0.02 * warmup * cosine, rtol=1e-5, atol=1e-8)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    np.testing.assert_array_equal(rates_of(again, steps), rates_of(schedule, steps))
    assert str(schedule) == "0.02 (cosine, after 20 steps of warm-up)"


def test_steps_of_the_learning_rate():
    config = config_of(LEARNING_RATE_SCHEDULE="step", LEARNING_RATE_STEPS=(0.5, 0.75), LEARNING_RATE_DECAY=0.2)
    schedule = stage_rate(config, 1.0, 0, 400)
    steps = [0, 199, 200, 299, 300, 399]
    np.testing.assert_allclose(rates_of(schedule, steps), [1, 1, 0.2, 0.2, 0.04, 0.04], rtol=1e-6)


def test_a_constant_rate_is_a_number_and_a_schedule_stays_itself():
    assert stage_rate(config_of(), 1, 0, 100) == 1.0
    own = keras.optimizers.schedules.PiecewiseConstantDecay([150], [0.1, 0.01])
    assert stage_rate(config_of(), own, 100, 300) is own
    later = stage_rate(config_of(OPTIMIZER="AdamW"), own, 100, 300)  # which counts from the stage's first step
    assert isinstance(later, LaterSchedule)
    np.testing.assert_allclose(rates_of(later, [0, 50, 51]), [0.1, 0.1, 0.01], rtol=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(later))
    np.testing.assert_array_equal(rates_of(again, [0, 51]), rates_of(later, [0, 51]))


def test_rates_that_cannot_be():
    with pytest.raises(ConfigError, match=r"WARMUP_STEPS must be fewer.*Received: 100, and a stage of 100 steps"):
        stage_rate(config_of(WARMUP_STEPS=100), 0.1, 0, 100)
    own = keras.optimizers.schedules.PiecewiseConstantDecay([150], [0.1, 0.01])
    with pytest.raises(ConfigError, match=r"is a schedule already, and LEARNING_RATE_SCHEDULE is 'step'"):
        stage_rate(config_of(LEARNING_RATE_SCHEDULE="step"), own, 0, 100)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPTIMIZER", "adamw"),
        ("LEARNING_RATE_SCHEDULE", "linear"),
        ("LEARNING_RATE_STEPS", (0.9, 0.5)),
        ("LEARNING_RATE_DECAY", 0),
        ("WARMUP_STEPS", -1),
        ("WARMUP_FACTOR", 2),
        ("GRADIENT_ACCUMULATION", 0),
        ("EMA_DECAY", 1),
        ("PRECISION", "bfloat16"),
        ("SAVE_EVERY", 0.5),
    ],
)
def test_fields_that_cannot_be_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be .*Received"):
        config_of(**{name: value})


# Optimizers, on a model of one layer and a loss that is easily followed: its gradient for each weight is the input.


class Linear(keras.Model):
    """The sum of the outputs of a layer, as a loss."""

    def __init__(self):
        super().__init__()
        self.layer = keras.layers.Dense(2, kernel_initializer="ones", bias_initializer="ones")

    def call(self, x):
        return self.layer(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.sum(y_pred)


def moved(inputs, momentum=0.0, rate=0.1, **fields):
    """A `Linear` model after a step for each of `inputs` [3], one image each; and its weights [4, 2] after each, the
    bias last."""
    model, config = Linear(), config_of(**fields)
    model(np.zeros((1, 3), np.float32))
    optimizer = make_optimizer(config, rate, momentum, DataParallel(), model.trainable_variables)
    model.compile(optimizer=optimizer, run_eagerly=BACKEND != "jax", jit_compile=BACKEND == "jax")
    optimizer.build(model.trainable_variables)
    seen = []
    for values in inputs:
        model.train_on_batch(np.array([values], np.float32), np.zeros((1, 2), np.float32))
        seen.append(np.concatenate([ops.convert_to_numpy(v).reshape(-1, 2) for v in model.trainable_variables]))
    return model, seen


INPUTS = [[1.0, 2.0, 3.0], [3.0, 0.0, 1.0], [2.0, 2.0, 2.0], [0.0, 4.0, 2.0]]


def gradient(values):
    return np.repeat(np.array([*values, 1.0])[:, None], 2, axis=1)


@pytest.mark.backends
def test_accumulated_gradients_move_as_those_of_one_larger_batch():
    _, seen = moved(INPUTS, momentum=0.9, GRADIENT_ACCUMULATION=2, GRADIENT_CLIP_NORM=2.0)
    weights, velocity = np.ones((4, 2)), np.zeros((4, 2))
    for number in (0, 2):
        np.testing.assert_allclose(seen[number], weights, rtol=1e-6)  # nothing moves between
        mean = (gradient(INPUTS[number]) + gradient(INPUTS[number + 1])) / 2
        mean *= 2.0 / np.linalg.norm(mean)  # their mean is clipped, not each of them
        velocity = 0.9 * velocity - 0.1 * mean
        weights = weights + velocity
        np.testing.assert_allclose(seen[number + 1], weights, rtol=1e-5)


@pytest.mark.backends
def test_adamw_shrinks_kernels_and_nothing_else():
    rate, decay = 0.1, 0.5
    _, seen = moved(INPUTS[:1], momentum=0.9, rate=rate, OPTIMIZER="AdamW", WEIGHT_DECAY=decay)
    # The first update of Adam is the rate, whatever the gradient.
    kernel, bias = 1 - decay * rate - rate, 1 - rate
    np.testing.assert_allclose(seen[0], np.array([[kernel] * 2] * 3 + [[bias] * 2]), rtol=1e-4)


@pytest.mark.backends
@pytest.mark.parametrize("accumulation", [1, 2])
def test_averages_follow_the_weights(accumulation):
    model, seen = moved(INPUTS, EMA_DECAY=0.15, GRADIENT_ACCUMULATION=accumulation, GRADIENT_CLIP_NORM=1e6)
    average = np.ones((4, 2))
    for update, weights in enumerate(seen[accumulation - 1 :: accumulation], start=1):
        keep = min(0.15, (1 + update) / (10 + update))  # the first update keeps 2 / 11
        average = keep * average + (1 - keep) * weights
    pairs = averages(model)
    assert len(pairs) == 2
    found = np.concatenate([ops.convert_to_numpy(kept).reshape(-1, 2) for _, kept in pairs])
    np.testing.assert_allclose(found, average, rtol=1e-5)

    def own():
        return np.concatenate([ops.convert_to_numpy(v).reshape(-1, 2) for v in model.trainable_variables])

    with averaged_weights(model):
        np.testing.assert_allclose(own(), average, rtol=1e-5)
    np.testing.assert_array_equal(own(), seen[-1])
    take_averages(model)
    np.testing.assert_allclose(own(), average, rtol=1e-5)


def test_without_ema_nothing_is_kept():
    model, _ = moved(INPUTS[:1])
    assert averages(model) == []
    before = model.get_weights()
    with averaged_weights(model):
        for found, expected in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_what_the_optimizer_counts():
    assert first_count(config_of(), 300) == 300
    assert first_count(config_of(OPTIMIZER="AdamW"), 300) == 0
    optimizer = make_optimizer(config_of(GRADIENT_ACCUMULATION=4), 0.1, 0.9, DataParallel(), [])
    set_count(optimizer, 12)
    assert int(ops.convert_to_numpy(optimizer.iterations)) == 3  # updates
    wrapped = keras.optimizers.LossScaleOptimizer(make_optimizer(config_of(), 0.1, 0.9, DataParallel(), []))
    set_count(wrapped, 7)
    assert int(ops.convert_to_numpy(wrapped.iterations)) == 7


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a limit of TensorFlow's")
def test_accumulation_on_several_devices_is_refused_on_tensorflow():
    parallel = DataParallel()
    parallel.count = 2
    with pytest.raises(ConfigError, match="GRADIENT_ACCUMULATION do not go together.*JAX or PyTorch"):
        make_optimizer(config_of(GRADIENT_ACCUMULATION=2, GPU_COUNT=2), 0.1, 0.9, parallel, [])


# Precision


@pytest.fixture(scope="module")
def one_step(tmp_path_factory):
    """A training network after its first step, and the losses of that, by precision."""
    done = {}

    def get(precision):
        if precision not in done:
            keras.utils.set_random_seed(1)
            config = QuickConfig.from_dict({"PRECISION": precision, "STEPS_PER_EPOCH": 1})
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(training, "TrainingModel", Untraced)
                patch.setattr(training, "tensorboard", lambda folder: [])
                model = MaskRCNN("training", config, tmp_path_factory.mktemp("one_step"))
                history = model.train(Shapes(2, size=64), None, 0.001, 1, "heads", verbose=0).history
            done[precision] = model.keras_model, {key: values[0] for key, values in history.items()}
        return done[precision]

    return get


@SLOW_BUT_ON_TENSORFLOW
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_training_in_mixed_precision(one_step, precision):
    network, losses = one_step(precision)
    assert keras.config.dtype_policy().name == "float32"  # for other networks all stays as it was
    assert network.get_layer("res2a_branch2a").compute_dtype == precision.removeprefix("mixed_")
    assert {str(v.dtype) for v in network.trainable_variables} == {"float32"}
    assert all(np.isfinite(loss) for loss in losses.values())
    _, plain = one_step("float32")
    for name in ("rpn_class_loss", "rpn_bbox_loss"):  # the heads' depend on which proposals were drawn
        assert losses[name] == pytest.approx(plain[name], rel=0.05)
        assert losses[name] != plain[name]
    assert isinstance(network.optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")


# Stages


def test_plans():
    [stage] = plan_stages("heads", 3, 0.1)
    assert (stage.layers, stage.end, stage.rate) == ("heads", 3, 0.1)
    stages = [("heads", 10, 1e-3), ("all", 20, None)]
    assert [(s.layers, s.end, s.rate) for s in plan_stages(stages, None, 1e-4)] == [
        ("heads", 10, 1e-3),
        ("all", 20, 1e-4),
    ]
    assert [(s.layers, s.end) for s in plan_stages(stages, 15, 1e-4)] == [("heads", 10), ("all", 15)]
    assert [(s.layers, s.end) for s in plan_stages(stages, 10, 1e-4)] == [("heads", 10)]
    assert parse_stages("heads:10:1e-3, all:20") == stages
    told = stages_to_dict(plan_stages(stages, None, 1e-4))
    assert stages_from_dict(told) == [("heads", 10, 1e-3), ("all", 20, 1e-4)]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["heads"], "layers must be a stage .*or a list of stages"),
        ([("heads", 10)], "or a list of stages"),
        ([], "or a list of stages"),
        ([("heads", 0, 1e-3)], "The last epoch of stage 1 must be a whole number of at least 1.*Received: 0"),
        ([("heads", 2, None)], "The learning rate of stage 1 must be a number above 0.*Received: None"),
        ([("heads", 5, 1e-3), ("all", 5, 1e-3)], "must grow.*stage 2 ends at epoch 5, the one before it at 5"),
    ],
)
def test_plans_that_cannot_be(layers, message):
    with pytest.raises(ValueError, match=message):
        plan_stages(layers, None, None)


@pytest.mark.parametrize("text", ["heads", "heads:x:1", ":3:1", "heads:2:1,all:1:1"])
def test_stages_of_the_command_line_that_cannot_be(text):
    with pytest.raises(ValueError, match="LAYERS:LAST_EPOCH|must grow"):
        parse_stages(text)
