"""Which stage a node of OpenVINO's belongs to."""

from __future__ import annotations

import time
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.peak import Shape, best_of
from benchmarks.stages import INSIDE, NodeTimes, adds_up, profiled_openvino, share_of_peak, stage_of, table
from tests.graph.cases import graph_bytes
from tests.nuclei_network import network_inputs, nuclei_network, nuclei_picture


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


def test_the_first_run_of_a_node_does_not_count_in_the_last():
    """Each run takes what is known; the profile tells the mean of all so far, in whole microseconds."""
    runs = {("conv", "Convolution"): [9000, 2001, 2002, 3500], ("fused", "Relu"): [0, 0, 0, 0]}
    times = NodeTimes()
    for turn in range(1, 5):
        profile = [
            SimpleNamespace(node_name=name, node_type=kind, real_time=timedelta(microseconds=sum(took[:turn]) // turn))
            for (name, kind), took in runs.items()
        ]
        if turn == 3:  # nobody asks after this run: the next answer is of both
            continue
        found = times.since(turn, profile)
        for node, took in runs.items():
            true = sum(took[2:]) / 2 if turn == 4 else took[turn - 1]
            assert found[node] * 1e6 == pytest.approx(true, abs=turn)


def test_openvino_tells_means_of_all_runs():
    """What `NodeTimes` takes for granted: a slow run is still in the profile of a quick one after it."""
    openvino = pytest.importorskip("openvino")
    from openvino import opset13

    data = opset13.parameter([1, 8, -1, -1], np.float32)
    product = opset13.convolution(data, np.ones((8, 8, 3, 3), np.float32), [1, 1], [1, 1], [1, 1], [1, 1])
    model = openvino.Model([product], [data], "one")
    request = openvino.Core().compile_model(model, "CPU", {"PERF_COUNT": True}).create_infer_request()
    times, told, last = NodeTimes(), [], []
    for run, side in enumerate((512, 16), 1):
        request.infer([np.ones((1, 8, side, side), np.float32)])
        told.append(sum(node.real_time.total_seconds() for node in request.profiling_info))
        last.append(sum(times.since(run, request.profiling_info).values()))
    assert told[1] > told[0] / 3
    assert last[0] == told[0] and last[1] < told[0] / 3


def test_our_engine_tells_its_stages(tmp_path):
    """Every stage takes time, together no more than the run; and the engine still finds what it found."""
    pytest.importorskip("openvino")
    from mrcnn.engines.openvino_engine import OpenVINOEngine

    config, network = nuclei_network(0.5)
    path = tmp_path / "network.onnx"
    path.write_bytes(graph_bytes(network, config))
    inputs = network_inputs(config, [nuclei_picture(12, seed=1, size=192)])
    engine = profiled_openvino(path, "float32", quantized=False)
    (found,), (expected,) = engine.run(*inputs), OpenVINOEngine(path, "float32").run(*inputs)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    engine.stages()
    start = time.perf_counter()
    engine.run(*inputs)
    took = time.perf_counter() - start
    stages = engine.stages()
    seconds = {stage: sum(kinds.values()) for stage, kinds in stages.items()}
    assert list(stages) == list(INSIDE)
    assert all("Convolution" in stages[stage] for stage in ("trunk", "masks"))
    assert min(seconds.values()) > 0
    assert sum(seconds.values()) <= took * 1.05


@pytest.mark.parametrize(("accounted", "good"), [(0.99, True), (1.02, True), (0.96, False), (1.13, False)])
def test_stages_must_account_for_the_network(accounted, good):
    assert adds_up({"accounted": accounted}) == good


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
