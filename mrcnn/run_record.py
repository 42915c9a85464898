"""What a training run tells of itself beside its losses: `monitoring.json` in its folder, for the report.

It is a dict of `data` (what the data sets hold), `epochs` (the average precision measured after some of them, the
earliest first), `best` (the whole evaluation of the best epoch, with pictures; None before the first) and `measured`
(the epoch up to which all that is wanted has been measured and written; None where that was not noted).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.data.survey import Survey
from mrcnn.files import atomic_path

RECORD_NAME = "monitoring.json"
BEST_NAME = "best.h5"
HISTORY_NAME = "history.csv"
REPORT_NAME = "report.html"

# Sides of objects (the root of a box's area) that they are counted between.
_SIDE_EDGES = (0, 8, 16, 32, 64, 96, 128, 256, 512)


def data_figures(seen: Survey) -> dict[str, Any]:
    """A data set in figures that JSON can hold, for the record: `images`, how many there are; `read`, how many of them
    the rest is about; `sides`, counts of objects by the root of their box's area, between `side_edges` pixels of the
    molded image, the last from the last edge on; `image_sizes`, the most frequent as [height, width, count]."""
    sizes, counts = np.unique(seen.shapes, axis=0, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[:5]
    return {
        "images": seen.total,
        "read": len(seen.image_ids),
        "failed": seen.failed,
        "instances": len(seen.class_ids),
        "crowds": seen.crowds,
        "without_instances": int((seen.per_image == 0).sum()),
        "most_instances": int(seen.per_image.max(initial=0)),
        "per_class": dict(zip(seen.class_names[1:], seen.per_class[1:].tolist(), strict=True)),
        "side_edges": list(_SIDE_EDGES),
        "sides": np.histogram(seen.sides, bins=[*_SIDE_EDGES, np.inf])[0].tolist(),
        "image_sizes": [[*sizes[i].tolist(), int(counts[i])] for i in frequent],
    }


def read_record(folder: Path, last_epoch: int | None = None) -> dict[str, Any]:
    """The record of a run folder; an empty one where there is none, or none that can be read.

    Args:
        folder: of the run.
        last_epoch: what was told of later epochs is left out; None: nothing is.
    """
    record: Any = None
    try:
        record = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or not ours
        record = {}
    record = {"data": {}, "epochs": [], "best": None, "measured": None} | (record if isinstance(record, dict) else {})
    if last_epoch is not None:
        record["epochs"] = [entry for entry in record["epochs"] if entry["epoch"] <= last_epoch]
        if record["best"] is not None and record["best"]["epoch"] > last_epoch:
            record["best"] = None
    return record


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write a record, whole or not at all. Numbers that are not finite become null."""
    with atomic_path(folder / RECORD_NAME) as temporary:
        temporary.write_text(json.dumps(_plain(record), allow_nan=False), encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # numpy's
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
