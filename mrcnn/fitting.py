"""Keras's `fit` from anywhere in a training on: from the middle of an epoch, or from one that is yet to be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from mrcnn.lazy_logs import LazyLogs
from mrcnn.resuming import Position


class Callbacks(keras.callbacks.CallbackList):
    """Callbacks around several calls of `fit`, which are told of one training.

    Attributes:
        goes_on: set it to True while another call is to follow.
    """

    goes_on = False
    _begun = False

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        if not self._begun:
            super().on_train_begin(logs)
        self._begun = True

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if not self.goes_on:
            super().on_train_end(logs)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._batch_end("on_train_batch_end", batch, LazyLogs(logs))

    def on_test_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._batch_end("on_test_batch_end", batch, LazyLogs(logs))

    def _batch_end(self, moment: str, batch: int, logs: LazyLogs) -> None:
        # Keras's own would read the losses back in every step, and so does its progress bar.
        for callback in self.callbacks:
            waits = isinstance(callback, keras.callbacks.ProgbarLogger) and not logs.is_read
            getattr(callback, moment)(batch, {} if waits else logs)


def fit_from(
    model: keras.Model,
    make_batches: Callable[[int], Any],
    position: Position,
    steps: int,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: int | str,
    **arguments: Any,
) -> keras.callbacks.History:
    """`model.fit` from a position on, an epoch's rest first, be it no more than what is measured after it.

    Args:
        model: compiled.
        make_batches: steps that lie behind, counted from the very first -> what to give `fit`.
        position: where to begin.
        steps: of an epoch.
        epochs: the last one.
        callbacks, verbose: as of `fit`.
        arguments: others of `fit`.
    """
    told = Callbacks(
        callbacks, add_history=True, add_progbar=verbose != 0, verbose=verbose, epochs=epochs, steps=steps, model=model
    )
    epoch = position.epoch
    if position.step == steps:
        model.stop_training = False
        told.on_train_begin()
        told.on_epoch_begin(epoch)
        logs, validation = dict(position.losses), arguments.get("validation_data")
        if validation is not None and "val_loss" not in logs:
            found = model.evaluate(validation, callbacks=told, return_dict=True)
            logs |= {f"val_{name}": value for name, value in found.items()}
        told.on_epoch_end(epoch, logs)
        epoch += 1
        if model.stop_training or epoch == epochs:
            told.on_train_end()
            return model.history
    elif position.step:  # Keras's epochs are of one length, and an epoch cannot be left half way
        told.goes_on = epoch + 1 < epochs
        rest = make_batches(epoch * steps + position.step)
        model.fit(
            rest, steps_per_epoch=steps - position.step, initial_epoch=epoch, epochs=epoch + 1, callbacks=told,
            **arguments,
        )  # fmt: skip
        epoch += 1
        if not told.goes_on:
            return model.history
        told.goes_on = False
        if model.stop_training:
            told.on_train_end()
            return model.history
    batches = make_batches(epoch * steps)
    return model.fit(batches, steps_per_epoch=steps, initial_epoch=epoch, epochs=epochs, callbacks=told, **arguments)
