"""Where training runs lie: folders `<name>YYYYMMDDTHHMM` with checkpoints `mask_rcnn_<name>_EEEE.h5` in them."""

from __future__ import annotations

import re
from pathlib import Path

_TIME = r"\d{8}T\d{4}"
_CHECKPOINT = re.compile(rf".*[/\\][^/\\]*(?P<time>{_TIME})[/\\]mask_rcnn_[^/\\]*_(?P<epoch>\d{{4,}})\.h5")


def time_and_epoch(path: str | Path | None) -> tuple[str, int] | None:
    """The time of a run, "YYYYMMDDTHHMM", and the epoch that a checkpoint was written after; None for a path of
    another form."""
    match = _CHECKPOINT.fullmatch(str(Path(path).absolute())) if path else None
    return (match["time"], int(match["epoch"])) if match else None


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
    for run in reversed(runs):  # one that was stopped in its first epoch has none
        checkpoints = sorted(run.glob("mask_rcnn*.h5"))
        if checkpoints:
            return str(checkpoints[-1])
    raise FileNotFoundError(f"No checkpoint (mask_rcnn*.h5) in {runs[-1]}: no epoch was finished.")
