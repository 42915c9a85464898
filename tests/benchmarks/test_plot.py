"""The picture of the results."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from benchmarks.plot import OURS, bars, draw


def told(*results):
    return {
        "results": list(results),
        "machine": {"processor": "a processor", "cores": 2},
        "setting": {"side": 1024, "proposals": 1000, "detections": 100},
    }


def result(name, family, median):
    times = {"median_seconds": median, "lowest_seconds": 0.9 * median, "highest_seconds": 1.1 * median}
    return {"name": name, "family": family, "note": "", **times}


def test_bars_are_the_fastest_of_each_family():
    rows = bars(
        told(
            result("ours-x", "ours int8", 1.0),
            result("peer", "peer", 5.0),
            result("peer+malloc", "peer", 4.0),
            {"name": "gone", "family": "gone", "error": "no such package"},
        )
    )
    assert [(row[0], row[1], row[4]) for row in rows] == [("peer", 4.0, False), ("ours int8", 1.0, True)]


def test_the_picture_has_bars_as_long_as_the_times(tmp_path):
    path = tmp_path / "docs" / "bars.png"
    draw(told(result("ours-x", "ours int8", 1.0), result("ours-y", "ours float32", 4.0)), path)
    picture = cv2.imread(str(path))
    red = np.array([int(OURS[i : i + 2], 16) for i in (5, 3, 1)])
    lengths = (picture == red).all(axis=2).sum(axis=1)
    rows = lengths[lengths > 10]
    upper, lower = np.array_split(rows, 2)
    assert np.median(lower) / np.median(upper) == pytest.approx(4, rel=0.05)


def test_nothing_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        draw(told({"name": "gone", "family": "gone", "error": "no such package"}), tmp_path / "x.png")
