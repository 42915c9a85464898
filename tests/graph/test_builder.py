"""Writing ONNX graphs; the small file that engines are measured with."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from mrcnn.engines.probe import CHANNELS, CONVOLUTIONS, FLOPS, SIDE, probe_path
from mrcnn.graph.builder import OPSET, GraphBuilder


def probe_model():
    """Convolutions of one constant kernel, which takes no room in the file."""
    graph = GraphBuilder()
    value = onnx.helper.make_tensor("v", onnx.TensorProto.FLOAT, [1], [1e-4])
    kernel = graph.ConstantOfShape(graph.integers(CHANNELS, CHANNELS, 3, 3), value=value)
    x = "image"
    for _ in range(CONVOLUTIONS):
        x = graph.Relu(graph.Conv(x, kernel, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    graph.rename(x, "result")
    shape = (1, CHANNELS, SIDE, SIDE)
    return graph.model({"image": shape}, {"result": (np.float32, shape)})


def test_the_shipped_probe_is_what_this_makes():
    assert onnx.load(probe_path()) == probe_model()
    assert probe_path().stat().st_size < 2000
    assert FLOPS == CONVOLUTIONS * 2 * 9 * CHANNELS * CHANNELS * SIDE * SIDE


def test_small_constants_are_kept_once_and_names_are_never_taken_twice():
    graph = GraphBuilder()
    assert graph.scalar(2.0) == graph.scalar(2.0) != graph.floats(2.0) != graph.integers(2)
    assert graph.constant(np.zeros(100)) != graph.constant(np.zeros(100))
    one, other = graph.Relu("x", name="same"), graph.Relu("x", name="same")
    first, second = graph.node("TopK", ["x", graph.integers(1)], outputs=2)
    assert len({one, other, first, second}) == 4


def test_a_model_is_valid_and_tells_its_metadata():
    graph = GraphBuilder()
    graph.rename(graph.Add("x", graph.scalar(1.0)), "y")
    model = graph.model({"x": ("n", 2)}, {"y": (np.float32, ("n", 2))}, {"key": "value"})
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == OPSET and model.metadata_props[0].value == "value"


def test_lower_case_names_are_no_operations():
    with pytest.raises(AttributeError):
        GraphBuilder().relu("x")
