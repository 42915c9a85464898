"""What `mrcnn.training.fit` has around its epochs for people to look at: figures, pictures, a table, the report."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from mrcnn.config import Config
from mrcnn.console import ConsoleTable
from mrcnn.monitoring import Monitor, TensorBoardPictures
from mrcnn.report import write_report
from mrcnn.run_record import HISTORY_NAME


class Watch:
    """Callbacks for the main process, in two groups: what measures, before the history is written; what notes that it
    is done and tells of it, after that.

    Args: as of `Monitor`, and
        verbose: as of Keras, or "table" for a table on the console.

    Attributes:
        measuring, telling: Keras callbacks.
        is_left: tells whether the latest evaluation was left unfinished.
        keras_verbose: what is left for Keras to print.
    """

    def __init__(
        self,
        config: Config,
        train_dataset: Any,
        val_dataset: Any | None,
        folder: Path,
        metadata: Mapping[str, Any],
        *,
        initial_epoch: int,
        last_epoch: int,
        stage_start: int | None = None,
        verbose: int | str = "auto",
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        monitor = Monitor(
            config, train_dataset, val_dataset, folder, metadata, initial_epoch=initial_epoch, last_epoch=last_epoch,
            stage_start=stage_start, interrupted=interrupted, verbose=verbose,
        )  # fmt: skip
        self.measuring: list[keras.callbacks.Callback] = [monitor]
        if config.EVALUATE_EVERY and all(importlib.util.find_spec(name) for name in ("tensorflow", "tensorboard")):
            self.measuring.append(TensorBoardPictures(monitor, folder))
        self.telling: list[keras.callbacks.Callback] = [keras.callbacks.LambdaCallback(on_epoch_end=monitor.note)]
        self.is_left: Callable[[], bool] = lambda: monitor.left
        self._folder = folder
        self._table = None
        if verbose == "table":
            self._table = ConsoleTable(
                last_epoch,
                config.STEPS_PER_EPOCH,
                validates=val_dataset is not None and config.VALIDATION_STEPS > 0,
                evaluates=config.EVALUATE_EVERY > 0,
                best_epoch=lambda: monitor.best_epoch,
            )
            self.telling.append(self._table)
        self.keras_verbose = 0 if verbose == "table" else verbose

    def close(self) -> None:
        """Leave the console as it was, and write the report; also after an error."""
        if self._table is not None:
            self._table.close()
        if not (self._folder / HISTORY_NAME).exists():  # no epoch was finished
            return
        try:
            write_report(self._folder)
        except Exception as error:  # what was trained is worth more than a page about it
            warnings.warn(f"No report of {self._folder}: {error!r}. `mrcnn report` tries again.", stacklevel=2)
