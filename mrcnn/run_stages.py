"""`MaskRCNN.train`: the stages of a plan one after the other, from wherever a checkpoint left it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from mrcnn import preflight, training
from mrcnn.interrupts import TrainingInterrupted
from mrcnn.optimization import first_count, set_count, stage_rate, take_averages
from mrcnn.resuming import (
    Position,
    Saved,
    batch_numbers,
    read_saved,
    restore_own_weights,
    restore_random,
)
from mrcnn.run_record import read_record
from mrcnn.stages import Stage, plan_stages, stages_to_dict
from mrcnn.weights import load_optimizer


def run_stages(
    owner: Any,
    train_dataset: Any,
    val_dataset: Any | None,
    learning_rate: Any,
    epochs: int | None,
    layers: Any,
    *,
    custom_callbacks: Sequence[keras.callbacks.Callback] | None,
    verbose: int | str,
    preflight_seconds: float,
    **options: Any,
) -> keras.callbacks.History | None:
    """Train the stages that are not done yet; see `MaskRCNN.train`.

    Args:
        owner: the `MaskRCNN`. Its `epoch` counts the whole epochs that are done, also while it trains; its methods
            `compile` and `set_trainable` are called for each stage. Its `_resume_from` is the checkpoint that its
            weights are of, to go on from.
        options: for `mrcnn.training.fit`.

    Raises:
        as `MaskRCNN.train`.
    """
    network, config = owner.keras_model, owner.config
    config.validate()  # a script may have changed it since
    stages = plan_stages(layers, epochs, learning_rate)
    for stage in stages:
        _require_layers(network, stage)
    last = stages[-1].end
    saved = None if owner._resume_from is None else read_saved(owner._resume_from)
    measures = owner.epoch <= last and is_unmeasured(owner, saved)
    if owner.epoch >= last and not measures:
        print(f"Nothing to train: {owner.epoch} epochs are done, and epochs is {last}, the last one.")
        return None
    step = step_to_begin_with(owner, saved)
    if saved is not None:
        restore_random(network, saved)
    history: keras.callbacks.History | None = None
    callbacks, shown = list(custom_callbacks or ()), False
    for number, stage in enumerate(stages):
        if owner.epoch - measures >= stage.end:
            continue
        trains = owner.epoch < stage.end
        if measures:
            print(f"\nEpoch {owner.epoch} is trained, and what is measured after it is not complete: that comes first.")
        if trains:
            print(f"\nStarting at epoch {owner.epoch}{f', step {step}' if step else ''}. LR={stage.rate}\n")
            print(f"Checkpoint Path: {owner.checkpoint_path}")
        before = stages[number - 1].end if number else None
        begins = before == owner.epoch and not step and not measures  # as the plan has it, whatever trained before
        goes_on = saved is not None and not begins and saved.stage.get("layers", stage.layers) == stage.layers
        start = owner.epoch if before is None else before
        if goes_on and before is None:
            start = min(int(saved.stage.get("start", start)), start)
        owner.set_trainable(training.stage_pattern(stage.layers, network))
        _compile(owner, stage, start, step)
        if goes_on and saved.has_optimizer and load_optimizer(network.optimizer, saved.path):
            restore_own_weights(network, saved)
        if measures:
            position = Position(owner.epoch - 1, config.STEPS_PER_EPOCH, start, losses=saved.losses)
        else:
            position = Position(owner.epoch, step, start, saved.metrics() if saved is not None and step else ())
        if trains and not shown and verbose and preflight_seconds and network.data_parallel.rank == 0:
            shown = True
            plan = [(left.layers, left.end, left.rate) for left in stages[number:]]
            callbacks.append(
                preflight.show(network, config, train_dataset, val_dataset, plan, owner.epoch, preflight_seconds, step)
            )
        owner._resume_from = None
        try:
            done = training.fit(
                network,
                config,
                train_dataset,
                val_dataset,
                epochs=stage.end,
                initial_epoch=position.epoch,
                log_dir=Path(owner.log_dir),
                checkpoint_path=owner.checkpoint_path,
                on_saved=lambda epoch: setattr(owner, "epoch", epoch),
                custom_callbacks=callbacks,
                verbose=verbose,
                position=position,
                training={
                    "stage": {"layers": stage.layers, "start": start, "end": stage.end},
                    "plan": stages_to_dict(stages),
                    "numbers": batch_numbers(config),
                },
                **options,
            )
        except TrainingInterrupted as stop:
            owner._resume_from = Path(stop.path) if stop.path else None
            raise
        take_averages(network)
        history = done if history is None else _joined(history, done)
        saved, step, measures = None, 0, False
        if owner.epoch < stage.end or network.stop_training:  # a callback has ended training
            break
    return history


def _compile(owner: Any, stage: Stage, start: int, step: int) -> None:
    """Give a stage its optimizer, with its learning rates, and let it count from where the stage is."""
    config, steps = owner.config, owner.config.STEPS_PER_EPOCH
    owner.compile(stage_rate(config, stage.rate, start * steps, stage.end * steps), config.LEARNING_MOMENTUM)
    done = (owner.epoch - start) * steps + step
    set_count(owner.keras_model.optimizer, first_count(config, start * steps) + done)


def step_to_begin_with(owner: Any, saved: Saved | None) -> int:
    """Steps of the next epoch that lie behind; tells where batches will be others than they would have been.

    Raises:
        ValueError: more than an epoch has.
    """
    if saved is None or saved.epoch != owner.epoch:
        return 0
    now = batch_numbers(owner.config)
    if saved.step >= now["STEPS_PER_EPOCH"]:
        raise ValueError(
            f"{saved.path} was saved after step {saved.step} of an epoch, and STEPS_PER_EPOCH is "
            f"{now['STEPS_PER_EPOCH']}. Set it to {saved.numbers.get('STEPS_PER_EPOCH')}, as it was, or load the "
            "checkpoint of a whole epoch."
        )
    others = [f"{name} {was} then, {now[name]} now" for name, was in saved.numbers.items() if now.get(name, was) != was]
    if others:
        warnings.warn(
            f"Training goes on from {saved.path} with other batches than it would have had: {'; '.join(others)}.",
            stacklevel=2,
        )
    return saved.step


def is_unmeasured(owner: Any, saved: Saved | None) -> bool:
    """Whether what is measured after an epoch is not complete for the checkpoint's, by the record of its run."""
    if saved is None or saved.step or saved.epoch != owner.epoch:
        return False
    measured = read_record(Path(owner.log_dir))["measured"]
    return isinstance(measured, int) and measured < saved.epoch


def _require_layers(network: keras.Model, stage: Stage) -> None:
    pattern = training.stage_pattern(stage.layers, network)
    if not any(re.fullmatch(pattern, name) for name in _layers_with_weights(network)):
        raise ValueError(
            f"No layer matches layers={stage.layers!r}. Stages: {', '.join(training.STAGES)}; or a regular expression "
            "that matches whole names, such as 'mrcnn_.*'."
        )


def _layers_with_weights(network: keras.Model) -> list[str]:
    inner = [name for layer in network.layers if isinstance(layer, keras.Model) for name in _layers_with_weights(layer)]
    return [*inner, *(layer.name for layer in network.layers if layer.weights and not isinstance(layer, keras.Model))]


def _joined(first: keras.callbacks.History, then: keras.callbacks.History) -> keras.callbacks.History:
    """One history of two, in the later one."""
    then.epoch = [*first.epoch, *then.epoch]
    names = dict.fromkeys([*first.history, *then.history])
    then.history = {name: [*first.history.get(name, ()), *then.history.get(name, ())] for name in names}
    return then
