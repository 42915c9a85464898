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
from mrcnn.lazy_logs import LOOK_EVERY, LazyLogs, read


class TrainingError(RuntimeError):
    """Training that cannot go on. The message says why and what might help."""


class NonFiniteGuard(keras.callbacks.Callback):
    """Stops training for the first loss that is NaN or infinite, before a checkpoint is made of it. It looks at the
    losses of `LOOK_EVERY` steps together.

    Args:
        describe_images: step, counted from the first epoch -> descriptions of the images in its batch.
        steps_per_epoch: steps of an epoch.
        first_step: steps of the first epoch that lie behind.
    """

    def __init__(self, describe_images: Callable[[int], list[str]], steps_per_epoch: int, first_step: int = 0) -> None:
        super().__init__()
        self.describe_images = describe_images
        self.steps_per_epoch = steps_per_epoch
        self.first_step = first_step
        self.epoch: int | None = None
        self.begun = 0

        self._unread: list[tuple[int, LazyLogs]] = []

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.begun = self.first_step if self.epoch is None else 0
        self.epoch = epoch
        self._unread = []

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._unread.append((batch, logs if isinstance(logs, LazyLogs) else LazyLogs(logs)))
        if len(self._unread) == LOOK_EVERY:
            self.look()

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self.look()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.look()

    def look(self) -> None:
        """Look at the losses of the steps since the last time; for whoever is about to keep the weights.

        Raises:
            TrainingError: one is not finite.
        """
        unread, self._unread = self._unread, []
        read(logs for _, logs in unread)
        for batch, logs in unread:
            # The logs are means over the epoch so far, and one NaN makes its mean NaN at once.
            broken = [name for name, value in logs.items() if not math.isfinite(value)]
            if broken:
                self._stop(batch, broken)

    def _stop(self, batch: int, broken: list[str]) -> None:
        causes = [name for name in broken if name != "loss"] or ["loss (the weights themselves: the L2 penalty)"]
        step = self.begun + batch
        images = ", ".join(self.describe_images(self.epoch * self.steps_per_epoch + step))
        raise TrainingError(
            f"Not finite: {', '.join(causes)}, at epoch {self.epoch + 1}, step {step + 1}. Images of the batch: "
            f"{images}. Check their annotations, or lower the learning rate; the last checkpoint is unharmed."
        )


class HistoryLog(keras.callbacks.Callback):
    """The losses of every epoch as a CSV file, rewritten after each; on resuming, the rows up to there are kept. Told
    of an epoch again, when more of it is known, it replaces that one's row.

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
        self.rows = [row for row in self.rows if int(row["epoch"]) <= epoch] + [{"epoch": epoch + 1, **values}]
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
    return [_TensorBoard(log_dir=str(log_dir), write_graph=False)]


class _TensorBoard(keras.callbacks.TensorBoard):
    """Writes the losses of epochs. Keras's looks at those of every step for that."""

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        super().on_train_batch_end(batch, None)
