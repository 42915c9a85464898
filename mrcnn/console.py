"""Training told as a table on the console: a line an epoch, and while one runs how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from mrcnn.config import LOSS_NAMES

_LOSS_TITLES = dict(zip(LOSS_NAMES, ("rpn class", "rpn box", "class", "box", "mask"), strict=True))
_AP_TITLES = {"val_mask_ap": "mask AP", "val_mask_ap50": "AP50", "val_mask_ap75": "AP75", "val_box_ap": "box AP"}
_LEAVE_OUT = (LOSS_NAMES, ["val_mask_ap75"], ["val_box_ap"], ["val_mask_ap50"])  # the least important first
_CELL = 9


class ConsoleTable(keras.callbacks.Callback):
    """Prints the table. It comes after the callbacks that add figures to the logs.

    Args:
        epochs: the last epoch.
        steps: of an epoch.
        validates: whether there are validation losses.
        evaluates: whether there is average precision, after some epochs at least.
        best_epoch: tells which epoch is the best so far; None: not known.
        console: where to; None: the standard output stream.
    """

    def __init__(
        self,
        epochs: int,
        steps: int,
        *,
        validates: bool,
        evaluates: bool,
        best_epoch: Callable[[], int | None] = lambda: None,
        console: Console | None = None,
    ) -> None:
        super().__init__()
        self.epochs, self.steps, self.best_epoch = epochs, steps, best_epoch
        self.console = console or Console(highlight=False)
        self.columns = {"loss": "loss"} | ({"val_loss": "val loss"} if validates else {})
        self.columns |= _LOSS_TITLES | (_AP_TITLES if evaluates else {})
        for names in _LEAVE_OUT:  # until the rest has room, with three columns beside these
            if (len(self.columns) + 3) * (_CELL + 1) > self.console.width:
                self.columns = {name: title for name, title in self.columns.items() if name not in names}
        self._progress: Progress | None = None
        self._task: Any = None
        self._start = 0.0

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._line(["epoch", *self.columns.values(), "seconds", ""], "bold")
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TimeRemainingColumn(), console=self.console, transient=True,
            )  # fmt: skip
            self._task = self._progress.add_task("", total=self.steps, visible=False)
            self._progress.start()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._start = time.perf_counter()
        if self._progress is not None:
            self._progress.reset(self._task, description=f"epoch {epoch + 1} of {self.epochs}", visible=True)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=batch + 1)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        logs = logs or {}
        best = self.best_epoch() == epoch + 1
        values = [f"{float(logs[name]):.3f}" if name in logs else "" for name in self.columns]
        seconds = time.perf_counter() - self._start
        self._line([f"{epoch + 1}/{self.epochs}", *values, f"{seconds:.1f}", "best" if best else ""], "green" * best)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Take the progress bar away, also after an error."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _line(self, cells: list[str], style: str) -> None:
        # A table of its own for each line: lines stay in the terminal's history, however many there are.
        table = Table.grid(padding=(0, 1))
        for _ in cells:
            table.add_column(justify="right", width=_CELL, no_wrap=True)
        table.add_row(*cells, style=style or None)
        self.console.print(table)
