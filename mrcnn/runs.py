"""Where training runs lie: folders `<name>YYYYMMDDTHHMM` with checkpoints `mask_rcnn_<name>_EEEE.h5` in them, and
`mask_rcnn_<name>_EEEE_stepSSSSSS.h5` of an epoch that is not over."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_TIME = r"\d{8}T\d{4}"
_CHECKPOINT = re.compile(
    rf".*[/\\][^/\\]*(?P<time>{_TIME})[/\\]mask_rcnn_[^/\\]*_(?P<epoch>\d{{4,}})(_step(?P<step>\d+))?\.h5"
)


def time_and_epoch(path: str | Path | None) -> tuple[str, int] | None:
    """The time of a run, "YYYYMMDDTHHMM", and the epoch that a checkpoint was written after; None for a path of
    another form."""
    match = _CHECKPOINT.fullmatch(str(Path(path).absolute())) if path else None
    return (match["time"], int(match["epoch"])) if match else None


def step_of(path: str | Path) -> int:
    """Steps of the epoch after its last whole one that lay behind when a checkpoint was written, by its name."""
    match = _CHECKPOINT.fullmatch(str(Path(path).absolute()))
    return int(match["step"] or 0) if match else 0


def step_path(path: str, epoch: int, step: int) -> str:
    """Path of a checkpoint within an epoch; by name it comes after the epoch's before it.

    Args:
        path: of the checkpoints of epochs, with `{epoch:04d}`.
        epoch: whole epochs that lie behind.
        step: steps after them.
    """
    return f"{path.format(epoch=epoch).removesuffix('.h5')}_step{step:06d}.h5"


def newest_checkpoint(model_dir: str | Path, name: str) -> str:
    """Path of the newest checkpoint of a configuration's runs, by the folders' and the files' names.

    Args:
        model_dir: where the runs lie.
        name: of the configuration, in lower case.

    Raises:
        FileNotFoundError: there is none.
    """
    root = Path(model_dir)
    folders = sorted(d for d in root.iterdir() if d.is_dir() and d.name.startswith(name)) if root.is_dir() else []
    if not folders:
        raise FileNotFoundError(f"No training run of {name!r} in {root}: no folder {name}YYYYMMDDTHHMM there.")
    # Folders of other names only where there is no such one, for "shapes" begins those of "shapes_v2" too.
    runs = [folder for folder in folders if re.fullmatch(re.escape(name) + _TIME, folder.name)] or folders
    for run in reversed(runs):  # one that was stopped before it saved has none
        with contextlib.suppress(FileNotFoundError):
            return newest_of_run(run)
    return newest_of_run(runs[-1])


def newest_of_run(folder: str | Path) -> str:
    """Path of the newest checkpoint of a run, by name.

    Raises:
        FileNotFoundError: there is none.
    """
    checkpoints = sorted(Path(folder).glob("mask_rcnn*.h5"))
    if not checkpoints:
        raise FileNotFoundError(f"No checkpoint (mask_rcnn*.h5) in {folder}: no epoch was finished.")
    return str(checkpoints[-1])
