"""What the differences of many detections come to, and what lies around the network in numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import prepost
from benchmarks.apart import summary
from mrcnn.agreement import Differences


def apart(boxes, border, expected=None):
    values = np.array(boxes, float)
    count = len(values) if expected is None else expected
    return Differences(values, values / 100, values / 10, values + 9, np.array(border, bool), count, len(values))


def test_differences_at_the_border_are_told_apart():
    inside = np.linspace(0.0, 1.0, 101)
    told = summary([apart([*inside, 4.0], [False] * 101 + [True], expected=104), apart([3.0], [True])])
    assert {name: told[name] for name in ("detections", "of", "matched", "border")} == {
        "detections": 103, "of": 105, "matched": 103, "border": 2,
    }  # fmt: skip
    assert [told[f"box_{which}"] for which in ("median", "95", "largest")] == pytest.approx([0.5, 0.95, 1.0])
    assert told["border_largest"] == 4.0
    assert told["score_largest"] == 0.04 and told["mask_largest"] == 0.4  # of all


def test_nothing_found_is_nothing_apart():
    told = summary([apart([], [], expected=2)])
    assert (told["of"], told["matched"], told["box_95"], told["border_largest"]) == (2, 0, 0.0, 0.0)


def test_what_lies_around_the_network_is_written_down(tmp_path):
    path = tmp_path / "prepost.json"
    options = ["--sizes", "48x64", "--instances", "2", "--rounds", "1", "--output", str(path)]
    assert prepost.main([*options, "--network", "1000"]) == 0
    assert prepost.main([*options, "--network", "1e-6"]) == 1
    (photo,) = json.loads(path.read_text())["photos"]
    assert photo["photo"] == [48, 64]
    assert photo["sum_seconds"] == pytest.approx(sum(photo["seconds"][name] for name in prepost.COUNTED))
