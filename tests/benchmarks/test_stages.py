"""Which stage a node of OpenVINO's belongs to."""

from __future__ import annotations

import pytest

from benchmarks.peak import Shape, best_of
from benchmarks.stages import INSIDE, share_of_peak, stage_of, table


@pytest.mark.parametrize(
    ("name", "kind", "before", "stage"),
    [
        ("conv1/WithoutBiases", "Convolution", 0, "trunk"),
        ("TopK_7", "TopK", 0, "proposals"),
        ("GatherND", "GatherND", 1, "proposals"),
        ("roi_align_classifier_p3", "ROIAlign", 1, "heads"),
        ("TopK", "TopK", 2, "heads"),
        ("roi_align_mask_p2", "ROIAlign", 2, "masks"),
        ("Add", "Eltwise", 3, "masks"),
    ],
)
def test_a_node_belongs_to_the_last_stage_that_it_needs(name, kind, before, stage):
    assert INSIDE[stage_of(name, kind, before)] == stage


def test_table():
    measured = {
        "engine": "openvino",
        "precision": "int8",
        "total": 0.5,
        "stages": {"trunk": 0.25, "paste": 0.01},
        "kinds": {"trunk": {"Convolution": 0.2, "Reorder": 0.0001, "Softmax": 0.05}},
    }
    lines = table(measured).splitlines()
    assert lines[0] == "openvino int8: 500 ms without decoding"
    assert lines[1].split() == ["trunk", "250.0", "ms", "50.0%", "Convolution", "200,", "Softmax", "50"]
    assert lines[2].split() == ["paste", "10.0", "ms", "2.0%"]


def test_share_of_the_peak():
    shape = Shape(3, 256, 64)
    assert shape.flops == 2 * 4 * 9 * 256 * 256 * 64 * 64
    assert share_of_peak(2.0, 100 * 10**9, 100.0) == 0.5
    rates = [{"precision": p, "best_gflops": g} for p, g in (("float32", 2.0), ("float32", 3.0), ("int8", 9.0))]
    assert best_of(rates) == {"float32": 3.0, "int8": 9.0}
