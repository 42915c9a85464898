"""What a run's folder tells: its curves, its evaluations, its configuration. No framework is needed."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrcnn.run_record import BEST_NAME, HISTORY_NAME, read_record
from mrcnn.weights.info import WeightsError, inspect_weights


class ReportError(ValueError):
    """A folder that there is nothing to report of. The message says what would do."""


@dataclass(frozen=True)
class Run:
    """A training run. `curves` holds columns of `history.csv` by name, each as long as `epochs`, None where an epoch
    has no such value; `record` is what `mrcnn.run_record` reads; `config` and `class_names` come from a checkpoint."""

    folder: Path
    epochs: list[int]
    curves: dict[str, list[float | None]]
    record: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    last_checkpoint: str | None = None

    @property
    def best_epoch(self) -> int | None:
        """The epoch of `best.h5`; without one None."""
        if self.record["best"] is not None:
            return self.record["best"]["epoch"]
        return self.record.get("kept")


def read_run(folder: str | Path) -> Run:
    """Read a run's folder.

    Raises:
        ReportError: it is no folder of a training run, or no epoch was finished.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ReportError(
            f"There is no folder {folder}. A report is made of a training run's, logs/<name>YYYYMMDDTHHMM."
        )
    if not (folder / HISTORY_NAME).is_file():
        runs = sorted(path.parent.name for path in folder.glob(f"*/{HISTORY_NAME}"))
        hint = f" Its folders that are: {', '.join(runs[-5:])}." if runs else ""
        raise ReportError(
            f"{folder} is no folder of a training run with a finished epoch: it has no {HISTORY_NAME}.{hint}"
        )
    try:
        with (folder / HISTORY_NAME).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        epochs = [int(row["epoch"]) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{folder / HISTORY_NAME} is not as training writes it ({error!r}).") from error
    if not rows:
        raise ReportError(f"{folder / HISTORY_NAME} has no epochs.")
    names = [name for name in rows[0] if name and name != "epoch"]
    curves = {name: [_number(row.get(name)) for row in rows] for name in names}
    record = read_record(folder)
    checkpoints = sorted(folder.glob("mask_rcnn*.h5"))
    info = None
    for path in [folder / BEST_NAME, *checkpoints[-1:]]:
        try:
            told = inspect_weights(path)
        except (OSError, WeightsError):
            continue
        info = told if info is None else info
        if path.name == BEST_NAME:
            record["kept"] = told.epoch
    return Run(
        folder,
        epochs,
        curves,
        record,
        config=dict((info.config if info else None) or {}),
        class_names=list((info.class_names if info else None) or []),
        last_checkpoint=checkpoints[-1].name if checkpoints else None,
    )


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
