"""Before the first step: what training will do, and what in it usually ruins a run.

Nothing here stops training: what cannot work is refused where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.config import Config
from mrcnn.data import summary
from mrcnn.data.anchor_fit import FAIR_IOU, best_overlaps
from mrcnn.data.samples import check_dataset
from mrcnn.data.survey import SECONDS, Survey, survey
from mrcnn.estimate import Estimate

# (which layers, last epoch counted from the very first, learning rate)
Stage = tuple[str, int, Any]

# SGD with momentum 0.9: the rate for one image of the batch, in proportion to which it grows (0.02 for 16).
_RATE_PER_IMAGE = 0.02 / 16
# AdamW, for 16 images; it grows with the root of the batch.
_ADAM_RATE = 1e-4
# How far a rate may lie above and below before it is spoken of.
_TOO_FAST, _TOO_SLOW = 4.0, 0.01
# Shares of objects without an anchor, and of images without objects, from which on they are spoken of.
_MANY_OUTSIDE, _MANY_EMPTY = 0.1, 0.5
# The part of the time for the training set, where there are two.
_SHARE_OF_TRAINING = 0.7
_SMALL_BATCH = 8
_LISTED = 8


@dataclass(frozen=True)
class Preflight:
    """What was found: `plan`, a line for each thing, and `warnings`, a sentence or two for each."""

    plan: tuple[str, ...]
    warnings: tuple[str, ...]
    steps: int

    def __str__(self) -> str:
        lines = ["Before the first step:", *(f"  {line}" for line in self.plan)]
        lines += [f"  WARNING: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def check(
    model: keras.Model,
    config: Config,
    train_dataset: Any,
    val_dataset: Any | None,
    stages: Sequence[Stage],
    initial_epoch: int = 0,
    seconds: float = SECONDS,
) -> Preflight:
    """Look at what is about to be trained, on what, and how.

    Args:
        model: the training network, the layers of the first stage chosen.
        config: its configuration.
        train_dataset, val_dataset: prepared datasets; the second may be None.
        stages: what trains until which epoch, and how fast.
        initial_epoch: epochs that lie behind.
        seconds: how long the datasets are looked at, at most.

    Raises:
        DatasetError: a dataset that is not prepared, or not of the configuration's classes.
    """
    check_dataset(train_dataset, config)
    if config.VALIDATION_STEPS == 0:
        val_dataset = None
    if val_dataset is not None:
        check_dataset(val_dataset, config)
    share = 1.0 if val_dataset is None else _SHARE_OF_TRAINING
    seen = survey(train_dataset, config, seconds * share, config.SEED)
    val_seen = None if val_dataset is None else survey(val_dataset, config, seconds * (1 - share), config.SEED)
    last_epoch = max(last for _, last, _ in stages)
    steps = (last_epoch - initial_epoch) * config.STEPS_PER_EPOCH
    plan = [
        *_data_lines(seen, val_seen, config, seconds),
        *_step_lines(seen.total, config, initial_epoch, last_epoch, steps),
        *_layer_lines(model, config, stages),
    ]
    warnings = [
        *_rate_warnings(config, stages, initial_epoch),
        *_object_warnings(seen, config),
        *_image_warnings(seen, val_seen, config, steps),
        *_shared_images(train_dataset, val_dataset),
        *_layer_warnings(model, config),
    ]
    return Preflight(tuple(plan), tuple(warnings), steps)


def show(
    model: keras.Model,
    config: Config,
    train_dataset: Any,
    val_dataset: Any | None,
    stages: Sequence[Stage],
    initial_epoch: int,
    seconds: float,
    step: int = 0,
) -> keras.callbacks.Callback:
    """Print what `check` finds, of which `step` steps of the first epoch lie behind; the result is the callback that
    tells time and memory as training goes."""
    print(check(model, config, train_dataset, val_dataset, stages, initial_epoch, seconds), flush=True)
    begun = initial_epoch * config.STEPS_PER_EPOCH + step
    return Estimate(config.STEPS_PER_EPOCH, max(last for _, last, _ in stages), begun, config.EVALUATE_EVERY)


def _data_lines(seen: Survey, val_seen: Survey | None, config: Config, seconds: float) -> list[str]:
    told = summary.figures(seen, config)
    per_image = told["objects_per_image"]
    counts = sorted(((count, name) for name, count in _classes(seen)), reverse=True)
    names = ", ".join(f"{name} {count}" for count, name in counts[:_LISTED])
    more = f" and {len(counts) - _LISTED} more" if len(counts) > _LISTED else ""
    val = "" if val_seen is None else f"; {val_seen.total} to validate on"
    return [
        f"looked at      {seen.looked_at} ({seconds:g} s at most)",
        f"images         {seen.total} to train on: {summary.size_in_words(told)}{val}",
        f"objects        {told['objects']}, {per_image['median']:.0f} in an image, {per_image['most']:.0f} at most",
        f"classes        {len(counts)}: {names}{more}",
    ]


def _step_lines(images: int, config: Config, initial_epoch: int, last_epoch: int, steps: int) -> list[str]:
    passes = config.STEPS_PER_EPOCH * config.BATCH_SIZE / max(images, 1)
    return [
        f"steps          {steps}: epochs {initial_epoch + 1} to {last_epoch} of {config.STEPS_PER_EPOCH} steps of "
        f"{config.BATCH_SIZE} images; an epoch goes {passes:.3g} times through the images"
    ]


def _layer_lines(model: keras.Model, config: Config, stages: Sequence[Stage]) -> list[str]:
    count = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    total = sum(int(np.prod(weight.shape)) for weight in model.weights)
    told = "; ".join(f"{layers} until epoch {last} at {_rate_text(rate)}" for layers, last, rate in stages)
    return [
        f"trains         {told}",
        f"weights        {count / 1e6:.1f} of {total / 1e6:.1f} million train{' at first' * (len(stages) > 1)}",
    ]


def _rate_text(rate: Any) -> str:
    return f"learning rate {rate:g}" if isinstance(rate, int | float | np.number) else f"a {type(rate).__name__}"


def _rate_warnings(config: Config, stages: Sequence[Stage], initial_epoch: int) -> list[str]:
    batch = config.BATCH_SIZE * getattr(config, "GRADIENT_ACCUMULATION", 1)
    adam = getattr(config, "OPTIMIZER", "SGD") != "SGD"
    if adam:
        usual, rule = _ADAM_RATE * (batch / 16) ** 0.5, f"{_ADAM_RATE:g} for 16 images, with the root of the batch"
    else:
        usual = _RATE_PER_IMAGE * batch * (1 - config.LEARNING_MOMENTUM) / 0.1
        rule = "0.02 for 16 images, in proportion, at momentum 0.9"
    found = []
    first = initial_epoch
    for _, last, rate in stages:
        if last <= initial_epoch:
            continue
        fastest = _fastest(rate, first * config.STEPS_PER_EPOCH, last * config.STEPS_PER_EPOCH)
        first = last
        if fastest > usual * _TOO_FAST:
            found.append(
                f"learning rate {fastest:g} is {fastest / usual:.0f} times what is usual for batches of {batch} "
                f"images, {usual:.2g} ({rule}): the losses may go up, or become NaN."
            )
        elif fastest < usual * _TOO_SLOW:
            found.append(
                f"learning rate {fastest:g} is {usual / fastest:.0f} times less than is usual for batches of {batch} "
                f"images, {usual:.2g} ({rule}): little will be learned."
            )
    return found


def _fastest(rate: Any, first: int, last: int) -> float:
    """The highest rate of a number or a Keras schedule between two steps, of some of them."""
    if not callable(rate):
        return float(rate)
    steps = np.unique(np.linspace(first, max(first, last - 1), 20).astype(int)).tolist()
    return max(float(ops.convert_to_numpy(rate(step))) for step in steps)


def _object_warnings(seen: Survey, config: Config) -> list[str]:
    found = []
    if not len(seen.boxes):
        return ["no objects in what was looked at: nothing but background would be learned. Check load_mask."]
    outside = best_overlaps(seen.boxes, seen.molded[seen.owners], config) < FAIR_IOU
    if outside.mean() >= _MANY_OUTSIDE:
        low, high = np.quantile(seen.sides[outside], [0.05, 0.95])
        found.append(
            f"{outside.mean():.0%} of the objects ({outside.sum()} of {len(outside)}) overlap no anchor by an IoU of "
            f"{FAIR_IOU}, most of them {low:.0f} to {high:.0f} pixels when molded: the RPN hardly learns to find them. "
            f"RPN_ANCHOR_SCALES is {tuple(config.RPN_ANCHOR_SCALES)}; `mrcnn data anchors` proposes others."
        )
    per_image = seen.per_image
    for name, effect in (
        ("MAX_GT_INSTANCES", "the others, drawn anew each time, are treated as background"),
        ("DETECTION_MAX_INSTANCES", "no more will be found in one"),
    ):
        most = getattr(config, name)
        if (per_image > most).any():
            found.append(
                f"{(per_image > most).sum()} images have more than {name} = {most} objects ({per_image.max()} at "
                f"most): {effect}."
            )
    missing = [name for name, count in _classes(seen) if not count]
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        where = "no objects" if seen.complete else "no objects among what was looked at"
        found.append(f"classes with {where}: {', '.join(missing[:_LISTED])}{more}. They cannot be learned.")
    return found


def _image_warnings(seen: Survey, val_seen: Survey | None, config: Config, steps: int) -> list[str]:
    found = []
    for what, one in (("training", seen), ("validation", val_seen)):
        if one is not None and one.failed:
            found.append(f"{one.failed} {what} images cannot be read, and end training when met: {one.failures[0]}")
    empty = (seen.per_image == 0).mean() if len(seen.image_ids) else 0.0
    if empty >= _MANY_EMPTY and len(seen.boxes):
        fate = "they are left out" if config.SKIP_EMPTY_IMAGES else "they teach the background alone"
        found.append(f"{empty:.0%} of the images have no object: {fate}.")
    reached = steps * config.BATCH_SIZE
    if reached < seen.total:
        found.append(
            f"{reached} of {seen.total} images are seen: {steps} steps of {config.BATCH_SIZE} images are planned."
        )
    wrong = {tuple(size) for size in seen.molded.tolist()} - {tuple(np.asarray(config.IMAGE_SHAPE)[:2].tolist())}
    if wrong:
        sizes = ", ".join(f"{height} x {width}" for height, width in sorted(wrong)[:3])
        found.append(
            f"images come out as {sizes}, and the network takes {config.IMAGE_SHAPE[0]} x {config.IMAGE_SHAPE[1]} "
            "(IMAGE_SHAPE): training ends at the first of them. Use IMAGE_RESIZE_MODE 'square' or 'crop', or "
            "IMAGE_RECTANGLE."
        )
    return found


def _shared_images(train_dataset: Any, val_dataset: Any | None) -> list[str]:
    def names(dataset: Any) -> set[str]:
        return {str(info["path"]) for info in dataset.image_info if info.get("path") is not None}

    shared = set() if val_dataset is None else names(train_dataset) & names(val_dataset)
    if not shared:
        return []
    return [f"{len(shared)} images are to train on and to validate on ({min(shared)}): validation tells nothing then."]


def _layer_warnings(model: keras.Model, config: Config) -> list[str]:
    found = []
    fresh = untouched_layers(model)
    if fresh:
        more = f" and {len(fresh) - _LISTED} more" if len(fresh) > _LISTED else ""
        found.append(
            f"{len(fresh)} frozen layers hold the random numbers that they were made with: "
            f"{', '.join(fresh[:_LISTED])}{more}. Load weights before training, or let them train (layers='all')."
        )
    if config.TRAIN_BN is not False and config.BATCH_SIZE < _SMALL_BATCH:
        found.append(
            f"TRAIN_BN is {config.TRAIN_BN}: batch normalization takes the statistics of {config.BATCH_SIZE} images, "
            "which are few. False keeps the stored ones, which is better once weights are loaded; a network that "
            "starts from nothing has none to keep."
        )
    return found


def untouched_layers(model: keras.Model) -> list[str]:
    """Names of frozen layers that nothing was loaded into and that were never trained.

    It is told by what is not random when a layer is made: batch normalization's numbers are 0 and 1, biases 0. Files
    may hold biases of 0, so these count only where no frozen batch normalization is there to tell.
    """
    frozen = [layer for layer in _leaves(model) if layer.weights and not layer.trainable]
    norms = [layer for layer in frozen if isinstance(layer, keras.layers.BatchNormalization)]
    if norms:
        return [layer.name for layer in norms if _is_new(layer)]
    biased = [layer for layer in frozen if getattr(layer, "bias", None) is not None]
    new = [layer.name for layer in biased if not ops.convert_to_numpy(layer.bias).any()]
    return new if len(new) == len(biased) else []


def _is_new(layer: keras.layers.BatchNormalization) -> bool:
    wanted = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0}
    weights = ((getattr(layer, name), value) for name, value in wanted.items())
    return all((ops.convert_to_numpy(weight) == value).all() for weight, value in weights if weight is not None)


def _leaves(model: keras.Model) -> list[keras.layers.Layer]:
    leaves = []
    for layer in model.layers:
        leaves += _leaves(layer) if isinstance(layer, keras.Model) else [layer]
    return leaves


def _classes(seen: Survey) -> list[tuple[str, int]]:
    return list(zip(seen.class_names[1:], seen.per_class[1:].tolist(), strict=True))
