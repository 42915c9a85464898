"""ONNX Runtime: what it is, threads, errors. That it agrees with Keras is tested in tests/graph."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mrcnn.engines.base import EngineError
from mrcnn.engines.onnxruntime_engine import ONNXRuntimeEngine
from tests.graph.cases import check, graph_bytes, inputs, keras_raw, pictures, small


@pytest.fixture(scope="module")
def model():
    config, network = small()
    return graph_bytes(network, config)


def test_it_reads_files_and_gives_what_keras_gives(model, tmp_path):
    (tmp_path / "model.onnx").write_bytes(model)
    made = ONNXRuntimeEngine(tmp_path / "model.onnx", threads=1)
    assert (made.name, made.precision, made.device, made.threads) == ("onnxruntime", "float32", "CPU", 1)
    config, network = small()
    arrays = inputs(config, pictures(2, 128, 128))
    check(keras_raw(network, arrays), made.run(*arrays), (128, 128), least=10)


def test_eight_threads_get_what_one_gets(model):
    config, _ = small()
    made = ONNXRuntimeEngine(model)
    jobs = [inputs(config, pictures(1, 64, 128, seed=i)) for i in range(16)]
    one_by_one = [made.run(*arrays)[0] for arrays in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda arrays: made.run(*arrays)[0], jobs))
    for (boxes, masks), (old_boxes, old_masks) in zip(together, one_by_one, strict=True):
        np.testing.assert_array_equal(boxes, old_boxes)
        np.testing.assert_array_equal(masks, old_masks)


def test_errors(model, tmp_path):
    for precision in ("bfloat16", "int8"):
        with pytest.raises(EngineError, match=f"computes in float32. Received: precision '{precision}'"):
            ONNXRuntimeEngine(model, precision)
    with pytest.raises(EngineError, match="no device 'TOASTER' here. Its providers: .*CPUExecutionProvider"):
        ONNXRuntimeEngine(model, device="TOASTER")
    with pytest.raises(ValueError, match="threads must be"):
        ONNXRuntimeEngine(model, threads=True)
    (tmp_path / "model.onnx").write_bytes(model[:1000])
    for bad in (tmp_path / "model.onnx", tmp_path / "none.onnx"):
        with pytest.raises(EngineError, match="ONNX Runtime cannot run .*" + bad.name):
            ONNXRuntimeEngine(bad)
    with pytest.raises(EngineError, match="ONNX Runtime cannot run the network"):
        ONNXRuntimeEngine(b"not a model")


def test_without_onnxruntime(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"The engine onnxruntime needs the package onnxruntime.*\[onnx\]"):
        ONNXRuntimeEngine(b"")
