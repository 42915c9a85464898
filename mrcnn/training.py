"""Training: the objective, the stages, the optimizer, and one call that runs the epochs."""

from __future__ import annotations

import functools
import math
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.callbacks import HistoryLog, NonFiniteGuard, tensorboard
from mrcnn.config import LOSS_NAMES, Config, ConfigError
from mrcnn.data.augmentation import recipe
from mrcnn.data.batches import BatchError, BatchLoader
from mrcnn.fitting import fit_from
from mrcnn.frozen_norms import FrozenNorms
from mrcnn.interrupts import Interrupts
from mrcnn.keras_model import Network
from mrcnn.monitoring import check_monitoring
from mrcnn.ops.squares import sum_of_squares
from mrcnn.optimization import make_optimizer
from mrcnn.parallel import DataParallel
from mrcnn.resuming import Checkpoints, Course, Position, remove_leftovers
from mrcnn.run_record import HISTORY_NAME
from mrcnn.stage_layers import layers_from_stage
from mrcnn.watching import Watch

HEADS = r"(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)"
STAGES = {
    "heads": HEADS,
    "3+": rf"(res3.*)|(bn3.*)|(res4.*)|(bn4.*)|(res5.*)|(bn5.*)|{HEADS}",
    "4+": rf"(res4.*)|(bn4.*)|(res5.*)|(bn5.*)|{HEADS}",
    "5+": rf"(res5.*)|(bn5.*)|{HEADS}",
    "all": ".*",
}
# The L2 rule leaves these out.
_NOT_DECAYED = ("gamma", "beta")


@keras.saving.register_keras_serializable("mrcnn")
class TrainingModel(Network):
    """The training network with its objective: the weighted losses and the L2 rule.

    It is made like a functional `keras.Model`; `configure` comes before `compile`.
    """

    loss_weights: dict[str, float]
    weight_decay: float
    data_parallel = DataParallel()  # the network has to be made in the scope of another

    def configure(self, loss_weights: dict[str, float], weight_decay: float) -> None:
        """Set the weights of the five losses (1 where none is named) and the factor of the L2 rule."""
        self.loss_weights = {name: float(loss_weights.get(name, 1.0)) for name in LOSS_NAMES}
        self.weight_decay = float(weight_decay)
        if not hasattr(self, "loss_means"):  # a second stage keeps those of the first
            self.loss_means = [keras.metrics.Mean(name=name) for name in LOSS_NAMES]

    @functools.cached_property
    def frozen_norms(self) -> FrozenNorms:
        return FrozenNorms(self)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """As a functional model's, with what `FrozenNorms` saves."""
        if not any(one is not None for one in keras.tree.flatten(mask)) and self.frozen_norms.takes(inputs):
            return self.frozen_norms(inputs, training)
        return super().call(inputs, training=training, mask=mask)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Weighted sum of the losses, which are the network's last five outputs, and the L2 penalty."""
        losses = zip(self.loss_weights.values(), y_pred[-len(LOSS_NAMES) :], strict=True)
        total = sum(weight * loss for weight, loss in losses) + self.l2_penalty()
        for extra in self.losses:  # regularizers of a backbone of the user's own
            total = total + ops.sum(extra)
        return self.data_parallel.share(total)

    def l2_penalty(self) -> Any:
        """WEIGHT_DECAY x the sum over trainable weights, gamma and beta left out, of the *mean* of their squares.

        `legacy:` the mean makes the penalty of a large kernel as small as that of a bias.
        """
        decayed = [w for w in self.trainable_weights if w.name not in _NOT_DECAYED]
        means = [sum_of_squares(w) / math.prod(w.shape) for w in decayed]
        return self.weight_decay * sum(means) if means else ops.zeros(())

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        for mean, loss in zip(self.loss_means, y_pred[-len(LOSS_NAMES) :], strict=True):
            mean.update_state(loss)
        return self.get_metrics_result()


def as_network(network: keras.Model, mode: str, config: Config) -> keras.Model:
    """A network that a project's `build` gave, as `MaskRCNN` runs one: of a class of Keras's own, it is made a
    `Network` of the same layers, and for training a `TrainingModel` with its objective."""
    if type(network).__module__.partition(".")[0] == "keras":
        kind = TrainingModel if mode == "training" else Network
        network = kind(network.inputs, network.outputs, name=network.name)
    if isinstance(network, TrainingModel) and not hasattr(network, "loss_means"):
        with network.data_parallel.building():
            network.configure(config.LOSS_WEIGHTS, config.WEIGHT_DECAY)
    return network


def stage_pattern(layers: str, network: keras.Model | None = None) -> str:
    """The regular expression of a stage ("heads", "3+", "4+", "5+", "all"), or `layers` itself, checked.

    Args:
        layers: a stage, or a regular expression.
        network: what it is for, so that the stages "3+" to "5+" are found in backbones whose names do not tell them:
            there they are the layers between C2, C3 or C4 and C5.

    Raises:
        ValueError: neither a stage nor a regular expression.
    """
    pattern = STAGES.get(layers, layers)
    if network is not None and re.fullmatch(r"[345]\+", layers):
        names = layers_from_stage(network, int(layers[0]))
        pattern = pattern if names is None else "|".join([HEADS, *map(re.escape, names)])
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"layers must be one of {', '.join(STAGES)}, or a regular expression for names of layers. "
            f"Received: {layers!r} ({error})."
        ) from None
    return pattern


def set_trainable(model: keras.Model, pattern: str) -> dict[str, str]:
    """Let the layers whose whole name matches `pattern` train, and no others; layers of nested models count by
    their own names.

    Returns:
        The layers that will train: names, and the name of each one's class.
    """
    chosen = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            layer.trainable = True
            chosen.update(set_trainable(layer, pattern))
        elif layer.weights:
            layer.trainable = bool(re.fullmatch(pattern, layer.name))
            if layer.trainable:
                chosen[layer.name] = type(layer).__name__
    return chosen


def compile_model(model: TrainingModel, config: Config, learning_rate: Any, momentum: float) -> None:
    """Give a training network its objective and its optimizer, all gradients clipped together to GRADIENT_CLIP_NORM.

    Args:
        model: the training network.
        config: LOSS_WEIGHTS, WEIGHT_DECAY and what `make_optimizer` uses.
        learning_rate: a number, or a Keras learning rate schedule.
        momentum: from 0 to 1.
    """
    with model.data_parallel.building():
        # AdamW shrinks the weights itself.
        model.configure(config.LOSS_WEIGHTS, 0.0 if config.OPTIMIZER == "AdamW" else config.WEIGHT_DECAY)
        optimizer = make_optimizer(config, learning_rate, momentum, model.data_parallel, model.trainable_variables)
        # XLA on TensorFlow knows no non-max suppression of changing length; torch.compile gains nothing here.
        model.compile(optimizer=optimizer, jit_compile=keras.backend.backend() == "jax")
        model.optimizer.build(model.trainable_variables)  # with mixed_float16, Keras has wrapped the one above


def fit(
    model: TrainingModel,
    config: Config,
    train_dataset: Any,
    val_dataset: Any | None,
    *,
    epochs: int,
    initial_epoch: int,
    log_dir: Path,
    checkpoint_path: str,
    on_saved: Callable[[int], None] = lambda epoch: None,
    augmentation: Any = None,
    no_augmentation_sources: Sequence[str] | None = None,
    custom_callbacks: Sequence[keras.callbacks.Callback] | None = None,
    verbose: int | str = "auto",
    position: Position | None = None,
    training: Mapping[str, Any] | None = None,
) -> keras.callbacks.History:
    """Run epochs `initial_epoch` (counted from 0) up to `epochs` of a compiled training network.

    An epoch is STEPS_PER_EPOCH batches. After each, the validation losses of the first VALIDATION_STEPS batches of
    `val_dataset` are measured (always the same ones), and `checkpoint_path` (with `{epoch:04d}`) is written, weights
    and optimizer state together; `on_saved` is told its epoch's number then. `position` tells where in the first epoch
    to begin (its beginning), `training` what `Checkpoints` is to store of the plan.

    Raises:
        TrainingInterrupted: a signal came; the step was finished and all is saved.
        ConfigError: images that come out in another size than the network's.
        DatasetError: a dataset that does not fit the configuration.
        BatchError: an image that cannot be loaded; names it.
        TrainingError: a loss that is not finite; names the loss and the images of the batch.
    """
    check_monitoring(config, val_dataset)
    parallel = model.data_parallel
    part = (parallel.rank, parallel.parts)
    steps = config.STEPS_PER_EPOCH
    position = position or Position(initial_epoch, stage_start=initial_epoch)
    interrupts = Interrupts()
    course = Course(config, parallel, interrupts, position)
    failures: list[Exception] = []

    def train_batches(behind: int) -> Batches:
        def loader(first: int) -> BatchLoader:
            return BatchLoader(
                train_dataset,
                config,
                augmentation=recipe(config.AUGMENTATION) if augmentation is None else augmentation,
                no_augmentation_sources=no_augmentation_sources,
                start_step=behind + first,
                part=part,
            )

        opened.append(Batches(loader, model, None, failures))
        return opened[-1]

    def describe_images(step: int) -> list[str]:
        return [_reference(train_dataset, i) for i in opened[-1].loader.image_ids(step)]

    def validation_loader(first: int) -> BatchLoader:
        return BatchLoader(val_dataset, config, shuffle=False, start_step=first, part=part)

    opened: list[Any] = [course]
    validation = None
    if val_dataset is not None and config.VALIDATION_STEPS > 0:
        validation = Batches(validation_loader, model, config.VALIDATION_STEPS, failures)
        opened.append(validation)
    guard = NonFiniteGuard(describe_images, steps, position.step)
    course.look = guard.look
    callbacks: list[keras.callbacks.Callback] = [guard, course]  # in this order, for nothing broken is to be saved
    if parallel.rank == 0:
        log_dir.mkdir(parents=True, exist_ok=True)
        metadata = {"config": config.to_dict(), "class_names": list(getattr(train_dataset, "class_names", []))}
        remove_leftovers(log_dir)
        course.history = HistoryLog(log_dir / HISTORY_NAME, initial_epoch)
        course.checkpoints = Checkpoints(checkpoint_path, metadata, training or {}, on_saved)
        callbacks += [course.history, course.checkpoints]  # a checkpoint's epoch has its row, whenever this ends
        watch = Watch(
            config, train_dataset, val_dataset, log_dir, metadata, initial_epoch=initial_epoch, last_epoch=epochs,
            stage_start=position.stage_start, verbose=verbose, interrupted=lambda: interrupts.received is not None,
        )  # fmt: skip
        opened.append(watch)
        verbose = watch.keras_verbose
        course.is_left = watch.is_left
        callbacks += [*watch.measuring, course.measured, course.history, *tensorboard(log_dir), *watch.telling]
    else:
        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: on_saved(epoch + 1)))
        callbacks.append(course.measured)
    callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: _stop_together(model)))
    callbacks += [*(custom_callbacks or ()), course.last]
    parallel.align(model)
    try:
        with parallel.running(), interrupts:
            return fit_from(
                model,
                train_batches,
                position,
                steps,
                epochs,
                callbacks,
                verbose if parallel.rank == 0 else 0,
                validation_data=validation,
                shuffle=False,  # the loader has shuffled already
            )
    except Exception:
        # TensorFlow wraps what a dataset raises in an error of its own, as text.
        if failures:
            raise failures[0] from failures[0].__cause__
        raise
    finally:
        for each in opened:
            each.close()


def _stop_together(model: TrainingModel) -> None:
    """Wait for all processes; all stop where one of them does."""
    model.stop_training = model.data_parallel.any(bool(model.stop_training))


class Batches(keras.utils.PyDataset):
    """Batches as Keras takes them: the inputs in the network's order, and no target. Keras reads some twice, for their
    shapes, and validation from the start again each time; so that batch `index` is always the same one.

    Args:
        make_loader: number of the first batch -> a loader.
        model: what they are for.
        count: how many there are; None: they do not end.
        failures: what goes wrong is put in here too.
    """

    def __init__(
        self,
        make_loader: Callable[[int], BatchLoader],
        model: TrainingModel,
        count: int | None,
        failures: list[Exception],
    ) -> None:
        super().__init__()
        self._make_loader = make_loader
        self._model = model
        self._count = count
        self._failures = failures
        self._lock = threading.Lock()  # TensorFlow reads ahead, and may still be at it when it starts again
        self._next = 0
        self._lately: deque[tuple[int, tuple]] = deque(maxlen=2)  # what Keras looks at first
        self._closed = False
        self.loader = make_loader(0)

    @property
    def num_batches(self) -> int | None:
        return self._count

    def __getitem__(self, index: int) -> tuple[tuple[np.ndarray, ...]]:
        with self._lock:
            for number, batch in self._lately:
                if number == index:
                    return batch
            try:
                batch = (self._read(index),)
            except (BatchError, ConfigError) as error:
                self._failures.append(error)
                raise
            self._lately.append((index, batch))
            return batch

    def close(self) -> None:
        """End the loader's threads."""
        self._closed = True
        self.loader.close()

    def _read(self, index: int) -> tuple[np.ndarray, ...]:
        if self._closed:
            raise IndexError(f"Batch {index} of closed Batches.")
        if index != self._next:
            self.loader.close()
            self.loader = self._make_loader(index)
        batch = next(self.loader)
        self._next = index + 1
        size, found = self._model.inputs[0].shape[1:], batch["input_image"].shape[1:]
        if any(side not in (None, length) for side, length in zip(size, found, strict=True)):
            raise ConfigError(
                f"The network was built for training images of {size[0]} x {size[1]} (Config.IMAGE_SHAPE), and "
                f"they come out as {found[0]} x {found[1]}. Use IMAGE_RESIZE_MODE 'square' or 'crop'."
            )
        return tuple(self._model.data_parallel.feed(batch[tensor.name]) for tensor in self._model.inputs)


def _reference(dataset: Any, image_id: int) -> str:
    info = dataset.image_info[image_id]
    return f"{image_id} ({info.get('path') or info.get('id')})"
