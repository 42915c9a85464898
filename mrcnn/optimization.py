"""How weights are moved: learning rates over a stage, optimizers, averaged weights, precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops

from mrcnn.config import Config, ConfigError
from mrcnn.ops import replicas
from mrcnn.parallel import DataParallel

# AdamW shrinks none of these.
_NOT_DECAYED = ("gamma", "beta", "bias")


@keras.saving.register_keras_serializable("mrcnn")
class StageSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate over a stage: a linear warm-up, and after it the rate itself, in steps, or along a cosine.

    Step t of a stage of n steps, the first w of them warm-up, has the rate times
        warmup_factor + (1 - warmup_factor) t / w, where t < w (1 after it), times
        "constant": 1; "step": decay to the power of how many shares s have t >= round(s n);
        "cosine": (1 + cos(pi (t - w) / (n - w))) / 2, where t > w (1 before it).

    Args:
        rate: the learning rate.
        kind: "constant", "step" or "cosine".
        first_step: what the optimizer counts at the stage's first step.
        steps: n.
        warmup_steps: w.
        warmup_factor: where the warm-up begins.
        shares: of the stage, after each of which "step" goes down.
        decay: what it goes down by.
    """

    def __init__(
        self,
        rate: float,
        kind: str,
        first_step: int,
        steps: int,
        warmup_steps: int = 0,
        warmup_factor: float = 0.001,
        shares: Sequence[float] = (),
        decay: float = 0.1,
    ) -> None:
        self.rate = float(rate)
        self.kind = kind
        self.first_step = int(first_step)
        self.steps = int(steps)
        self.warmup_steps = int(warmup_steps)
        self.warmup_factor = float(warmup_factor)
        self.shares = [float(share) for share in shares]
        self.decay = float(decay)

    def __call__(self, step: Any) -> Any:
        done = ops.cast(step - self.first_step, "float32")
        rate = ops.full_like(done, self.rate)
        if self.warmup_steps:
            share = ops.minimum(done / self.warmup_steps, 1.0)
            rate = rate * (self.warmup_factor + (1.0 - self.warmup_factor) * share)
        if self.kind == "step":
            for share in self.shares:
                rate = ops.where(done >= round(share * self.steps), rate * self.decay, rate)
        if self.kind == "cosine":
            share = (done - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
            rate = rate * (1.0 + ops.cos(3.141592653589793 * ops.clip(share, 0.0, 1.0))) / 2.0
        return rate

    def get_config(self) -> dict[str, Any]:
        names = ("rate", "kind", "first_step", "steps", "warmup_steps", "warmup_factor", "shares", "decay")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        warmup = f", after {self.warmup_steps} steps of warm-up" if self.warmup_steps else ""
        return f"{self.rate:g} ({self.kind}{warmup})"


@keras.saving.register_keras_serializable("mrcnn")
class LaterSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule, `steps` further on: for an optimizer that counts from a stage's first step."""

    def __init__(self, schedule: Any, steps: int) -> None:
        self.schedule = schedule
        self.steps = int(steps)

    def __call__(self, step: Any) -> Any:
        return self.schedule(step + self.steps)

    def get_config(self) -> dict[str, Any]:
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LaterSchedule:
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["steps"])


def first_count(config: Config, first_step: int) -> int:
    """What the optimizer counts at the first step of a stage.

    AdamW corrects for the little that it has seen by that count, so it starts from 0 in each stage. SGD counts from the
    very first step of the first stage.
    """
    return 0 if config.OPTIMIZER == "AdamW" else first_step


def stage_rate(config: Config, rate: Any, first_step: int, last_step: int) -> Any:
    """What to give an optimizer as the learning rate of a stage.

    Args:
        config: LEARNING_RATE_SCHEDULE, LEARNING_RATE_STEPS, LEARNING_RATE_DECAY, WARMUP_STEPS and WARMUP_FACTOR are
            used.
        rate: a number, or a Keras schedule of the steps since the very first one.
        first_step: steps that lay behind when the stage began.
        last_step: steps that will lie behind when it ends.

    Raises:
        ConfigError: a warm-up that is no shorter than the stage, or a schedule on top of a schedule.
    """
    kind, warmup, first = config.LEARNING_RATE_SCHEDULE, config.WARMUP_STEPS, first_count(config, first_step)
    plain = kind == "constant" and not warmup
    if callable(rate):
        if not plain:
            raise ConfigError(
                f"The learning rate is a schedule already, and LEARNING_RATE_SCHEDULE is {kind!r}, WARMUP_STEPS "
                f"{warmup}. Give a number, or set them to 'constant' and 0."
            )
        return rate if first == first_step else LaterSchedule(rate, first_step - first)
    if plain:
        return float(rate)
    steps = last_step - first_step
    if warmup >= steps:
        raise ConfigError(
            f"WARMUP_STEPS must be fewer than the steps of a stage. Received: {warmup}, and a stage of {steps} steps "
            f"({steps // config.STEPS_PER_EPOCH} epochs of STEPS_PER_EPOCH = {config.STEPS_PER_EPOCH})."
        )
    return StageSchedule(
        rate, kind, first, steps, warmup, config.WARMUP_FACTOR, config.LEARNING_RATE_STEPS, config.LEARNING_RATE_DECAY
    )


def make_optimizer(
    config: Config, learning_rate: Any, momentum: float, parallel: DataParallel, variables: Sequence[Any]
) -> keras.optimizers.Optimizer:
    """The optimizer of a configuration, not yet built.

    With GRADIENT_ACCUMULATION the gradients of so many steps are averaged, clipped and applied together. With
    EMA_DECAY it keeps averages of the variables, see `averaged_weights`.

    Args:
        config: OPTIMIZER, WEIGHT_DECAY (AdamW), GRADIENT_CLIP_NORM, GRADIENT_ACCUMULATION and EMA_DECAY are used.
        learning_rate: a number, or a schedule of what the optimizer counts.
        momentum: of SGD; AdamW's first beta.
        parallel: how the training network is spread.
        variables: that will train.

    Raises:
        ConfigError: what several devices cannot do.
    """
    arguments: dict[str, Any] = {"learning_rate": learning_rate if callable(learning_rate) else float(learning_rate)}
    if config.GRADIENT_ACCUMULATION > 1:
        if parallel.count > 1 and keras.backend.backend() == "tensorflow":
            raise ConfigError(
                "On TensorFlow, several devices and GRADIENT_ACCUMULATION do not go together. Received: GPU_COUNT "
                f"{config.GPU_COUNT}, GRADIENT_ACCUMULATION {config.GRADIENT_ACCUMULATION}. Set it to 1 and raise "
                "IMAGES_PER_GPU, or use Keras on JAX or PyTorch."
            )
        arguments["gradient_accumulation_steps"] = config.GRADIENT_ACCUMULATION
    if config.OPTIMIZER == "AdamW":
        kind = type(keras.optimizers.AdamW())  # the backend's own
        arguments |= {"beta_1": momentum, "weight_decay": float(config.WEIGHT_DECAY)}
    else:
        kind = _after_gradients(type(keras.optimizers.SGD()))
        arguments |= {"momentum": momentum}
    if config.EMA_DECAY:
        kind = _averaging(kind, float(config.EMA_DECAY), config.GRADIENT_ACCUMULATION)
    optimizer = parallel.optimizer(kind, config.GRADIENT_CLIP_NORM, **arguments)
    if config.OPTIMIZER == "AdamW":
        optimizer.exclude_from_weight_decay([v for v in variables if v.name in _NOT_DECAYED])
    return optimizer


def set_count(optimizer: keras.optimizers.Optimizer, count: int) -> None:
    """Let an optimizer, or the one inside that scales the loss, count its steps from `count` on."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    next(v for v in inner.variables if v.name == "iteration").assign(count)


def _after_gradients(kind: type) -> type:
    """An optimizer that touches a variable when its gradient is there, and not before.

    TensorFlow computes what depends on nothing first, here all velocities times the momentum, and keeps it for the
    whole step: as much memory as the weights."""
    if keras.backend.backend() != "tensorflow":
        return kind
    import tensorflow as tf

    class Late(kind):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            with tf.control_dependencies([gradient]):
                super().update_step(gradient, variable, learning_rate)

    Late.__name__ = Late.__qualname__ = kind.__name__
    return Late


def _averaging(kind: type, decay: float, accumulation: int) -> type:
    """An optimizer that keeps an exponential moving average of each variable, from the variables' values when it is
    built on. After update n it keeps min(decay, (1 + n) / (10 + n)) of it, so that a short run is not all beginning."""

    class Averaging(kind):
        def build(self, variables: Any) -> None:
            if self.built:
                return
            super().build(variables)
            averages = [self.add_variable_from_reference(variable, name="average") for variable in variables]
            for variable, average in zip(variables, averages, strict=True):
                average.assign(ops.convert_to_numpy(variable))  # a copy: JAX gives a step each buffer once
            count = self.add_variable((), dtype="int32", aggregation="only_first_replica", name="averaged_steps")
            self.averages = _Averages(list(variables), averages, count)

        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            super().apply(grads, trainable_variables)
            self.averages.update(decay, accumulation)

    Averaging.__name__ = Averaging.__qualname__ = kind.__name__
    return Averaging


class _Averages:
    """Variables with their averages; an object of its own, for Keras makes what a list holds the optimizer's."""

    def __init__(self, variables: list[Any], averages: list[Any], count: Any) -> None:
        self.variables = variables
        self.averages = averages
        self.count = count

    def update(self, decay: float, accumulation: int) -> None:
        """After a step: move the averages, if it was one that moved the variables."""
        self.count.assign(self.count + 1)
        steps = ops.cast(self.count, "float32")
        updates = ops.floor(steps / accumulation)
        moved = ops.cast(ops.equal(updates * accumulation, steps), "float32")
        share = moved * (1.0 - ops.minimum(decay, (1.0 + updates) / (10.0 + updates)))
        if keras.backend.backend() == "tensorflow" and replicas.count() > 1:
            self._update_replicas(share)
            return
        for variable, average in zip(self.variables, self.averages, strict=True):
            average.assign(average + ops.cast(share, average.dtype) * (variable - average))

    def _update_replicas(self, share: Any) -> None:
        import tensorflow as tf

        def update(strategy: Any, share: Any) -> None:
            def move(average: Any, variable: Any, share: Any) -> None:
                average.assign_add(tf.cast(share, average.dtype) * (variable - average))

            for variable, average in zip(self.variables, self.averages, strict=True):
                strategy.extended.update(average.value, move, args=(variable.value, share), group=False)

        tf.distribute.get_replica_context().merge_call(update, args=(share,))


def averages(model: keras.Model) -> list[tuple[Any, Any]]:
    """Variables of a training network with their averages; none without EMA_DECAY."""
    optimizer = getattr(model, "optimizer", None)
    kept = getattr(getattr(optimizer, "inner_optimizer", optimizer), "averages", None)
    return [] if kept is None else list(zip(kept.variables, kept.averages, strict=True))


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """The model has its averaged weights in this block, where it keeps some."""
    pairs = averages(model)
    own = [ops.convert_to_numpy(variable).copy() for variable, _ in pairs]
    try:
        take_averages(model)
        yield
    finally:
        for (variable, _), value in zip(pairs, own, strict=True):
            variable.assign(value)


def take_averages(model: keras.Model) -> None:
    """Put the averaged weights in the place of the model's own."""
    for variable, average in averages(model):
        variable.assign(ops.convert_to_numpy(average))


@contextlib.contextmanager
def precision_scope(config: Config) -> Iterator[None]:
    """Layers made in this block compute as PRECISION says; "float32" leaves Keras's own setting as it is."""
    before = keras.config.dtype_policy()
    try:
        if config.PRECISION != "float32":
            keras.config.set_dtype_policy(config.PRECISION)
        yield
    finally:
        keras.config.set_dtype_policy(before)
