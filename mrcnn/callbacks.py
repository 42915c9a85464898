"""What happens around the steps and epochs of training."""

from __future__ import annotations

import csv
import importlib.util
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from mrcnn.files import atomic_path
from mrcnn.weights import save_weights


class TrainingError(RuntimeError):
    """Training that cannot go on. The message says why and what might help."""


class NonFiniteGuard(keras.callbacks.Callback):
    """Stops training at the first loss that is NaN or infinite, before a checkpoint is made of it.

    Args:
        describe_images: step, counted from the first epoch -> descriptions of the images in its batch.
        steps_per_epoch: steps of an epoch.
    """

    def __init__(self, describe_images: Callable[[int], list[str]], steps_per_epoch: int) -> None:
        super().__init__()
        self.describe_images = describe_images
        self.steps_per_epoch = steps_per_epoch
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        # The logs are means over the epoch so far, and one NaN makes its mean NaN at once.
        broken = {name: float(value) for name, value in (logs or {}).items() if not math.isfinite(float(value))}
        if not broken:
            return
        causes = [name for name in broken if name != "loss"] or ["loss (the weights themselves: the L2 penalty)"]
        images = ", ".join(self.describe_images(self.epoch * self.steps_per_epoch + batch))
        raise TrainingError(
            f"Not finite: {', '.join(causes)}, at epoch {self.epoch + 1}, step {batch + 1}. Images of the batch: "
            f"{images}. Check their annotations, or lower the learning rate; the checkpoint of the last whole epoch "
            "is unharmed."
        )


class Checkpoints(keras.callbacks.Callback):
    """Writes weights and optimizer state after each epoch, whole or not at all.

    Args:
        path: with `{epoch:04d}`, which counts from 1.
        metadata: stored beside the weights, with the epoch and its losses.
        on_saved: is told the number of each epoch that was saved.
    """

    def __init__(self, path: str, metadata: Mapping[str, Any], on_saved: Callable[[int], None]) -> None:
        super().__init__()
        self.path = path
        self.metadata = metadata
        self.on_saved = on_saved

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        losses = {name: float(value) for name, value in (logs or {}).items()}
        metadata = {**self.metadata, "epoch": epoch + 1, "losses": losses}
        save_weights(self.model, self.path.format(epoch=epoch + 1), metadata, self.model.optimizer)
        self.on_saved(epoch + 1)


class HistoryLog(keras.callbacks.Callback):
    """The losses of every epoch as a CSV file, rewritten after each; on resuming, the rows up to there are kept.

    Args:
        path: of the file.
        initial_epoch: how many epochs lie behind.
    """

    def __init__(self, path: Path, initial_epoch: int) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) <= initial_epoch]

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        values = {name: f"{float(value):.6g}" for name, value in (logs or {}).items()}
        self.rows.append({"epoch": epoch + 1, **values})
        fields = list(dict.fromkeys(name for row in self.rows for name in row))
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(self.rows)


def tensorboard(log_dir: Path) -> list[keras.callbacks.Callback]:
    """The TensorBoard callback, or none, with a warning, where TensorFlow is missing, which writes its files."""
    if importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("tensorboard") is None:
        warnings.warn(
            "No TensorBoard logs: they need tensorflow and tensorboard installed. history.csv has the losses too.",
            stacklevel=2,
        )
        return []
    return [keras.callbacks.TensorBoard(log_dir=str(log_dir), write_graph=False)]
