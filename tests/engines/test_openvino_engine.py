"""OpenVINO: precision, what stays float32, threads, errors."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import onnx
import openvino
import pytest

from mrcnn.agreement import compare
from mrcnn.engines import openvino_engine
from mrcnn.engines.base import EngineError
from mrcnn.engines.openvino_engine import OpenVINOEngine
from mrcnn.graph.names import FLOAT32_PREFIX
from tests.graph.cases import check, graph_bytes, keras_raw
from tests.nuclei_network import network_inputs, nuclei_network, nuclei_picture

CAPABILITIES = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
with_bfloat16 = pytest.mark.skipif("BF16" not in CAPABILITIES, reason="this processor does not compute in bfloat16")


@cache
def nuclei():
    """The shipped network as a graph, with inputs of two images."""
    config, network = nuclei_network(0.5)
    images = [nuclei_picture(count, seed=count, size=192) for count in (12, 3)]
    return graph_bytes(network, config), network, network_inputs(config, images)


@cache
def engine(precision):
    return OpenVINOEngine(nuclei()[0], precision)


def compiled(made):
    """The network of an engine, for the first images that it has seen."""
    if not made._networks:
        made.run(*nuclei()[2])
    return next(iter(made._networks.values())).compiled


def test_float32_gives_what_keras_gives():
    _, network, arrays = nuclei()
    found = engine("float32").run(*arrays)
    agreements = check(keras_raw(network, arrays), found, arrays[0].shape[1:3], least=3)
    assert [agreement.found for agreement in agreements] == [12, 3]
    # What docs/detection.md says of float32.
    assert all(a.worst_box <= 1e-3 and a.score <= 1e-3 for a in agreements)


def test_what_it_says_of_itself():
    made = OpenVINOEngine(nuclei()[0], "f32", threads=1)
    assert (made.name, made.precision, made.device, made.threads) == ("openvino", "float32", "CPU", 1)
    assert compiled(made).get_property("INFERENCE_NUM_THREADS") == 1
    native = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT") == openvino.Type.bf16
    assert OpenVINOEngine(nuclei()[0]).precision == ("bfloat16" if native else "float32")


@with_bfloat16
def test_boxes_of_bfloat16_are_right_only_with_the_float32_outputs(monkeypatch):
    """OpenVINO computes coordinates in bfloat16 too, unless they are outputs: 1 part in 256, pixels at these sizes."""
    config, _ = nuclei_network(0.5)
    arrays = network_inputs(config, [nuclei_picture(60, seed=3, size=640)])
    shape = arrays[0].shape[1:3]
    ((expected, _),) = OpenVINOEngine(nuclei()[0], "float32").run(*arrays)

    def far(raw):
        """Pixels by which the boxes of the detections of float32 are missed."""
        ((detections, _),) = raw
        distance = np.abs(detections[None, :, :4] - expected[:, None, :4]).max(axis=-1) * max(shape)
        return distance.min(axis=1)

    assert len(expected) > 50
    good = far(engine("bfloat16").run(*arrays))
    monkeypatch.setattr(openvino_engine, "_keep_float32", lambda network: None)
    bad = far(OpenVINOEngine(nuclei()[0], "bfloat16").run(*arrays))
    print(f"bfloat16: {np.median(good):.3f} pixels (at most {good.max():.3f}); all of it: {np.median(bad):.3f}")
    assert np.percentile(good, 95) < 1
    assert np.percentile(bad, 95) > 2 * np.percentile(good, 95) and bad.max() > 1


@with_bfloat16
def test_bfloat16_finds_the_same():
    _, network, arrays = nuclei()
    for expected, found in zip(keras_raw(network, arrays), engine("bfloat16").run(*arrays), strict=True):
        agreement = compare(expected, found, arrays[0].shape[1:3])
        assert agreement.matched == agreement.expected == agreement.found
        assert agreement.box < 1 and agreement.score < 0.02


def test_what_must_stay_float32_is_asked_for():
    outputs = {name for port in compiled(engine("float32")).outputs for name in port.get_names()}
    network = openvino.Core().read_model(nuclei()[0])
    wanted = {
        name
        for node in network.get_ops()
        for port in node.outputs()
        for name in port.get_names()
        if name.startswith(FLOAT32_PREFIX)
    }
    assert len(wanted) == 18 and wanted <= outputs


def test_other_sizes_get_what_they_would_have_got_first():
    """The first size has a network of its own, whatever the batch; all others share one."""
    config, _ = nuclei_network(0.5)
    jobs = [
        network_inputs(config, [nuclei_picture(4, seed=seed, size=size) for seed in seeds])
        for size, seeds in ((128, (1,)), (192, (2, 3)), (256, (4,)), (128, (5, 6, 7)), (192, (8,)))
    ]
    made = OpenVINOEngine(nuclei()[0], "float32")
    found = [made.run(*arrays) for arrays in jobs]
    assert list(made._networks) == [(128, 128), None]
    for arrays, raws in zip(jobs, found, strict=True):
        alone = OpenVINOEngine(nuclei()[0], "float32").run(*arrays)
        assert len(raws) == len(arrays[0])
        for raw, expected in zip(raws, alone, strict=True):
            agreement = compare(expected, raw, arrays[0].shape[1:3])
            assert agreement.matched == agreement.count > 0
            assert agreement.worst_box < 1e-3 and agreement.score < 1e-4
    assert made.run(*(array[:0] for array in jobs[0])) == []


def test_what_cannot_be_compiled_is_told(monkeypatch):
    made = OpenVINOEngine(nuclei()[0], "float32")
    monkeypatch.setattr(made, "_properties", lambda: {"NO_SUCH_PROPERTY": 1})
    with pytest.raises(EngineError, match=r"(?s)OpenVINO cannot run the network on CPU: .*NO_SUCH_PROPERTY"):
        made.run(*nuclei()[2])


def test_eight_threads_get_what_one_gets():
    config, _ = nuclei_network(0.5)
    jobs = [network_inputs(config, [nuclei_picture(3 + i % 6, seed=i, size=128)]) for i in range(16)]
    one_by_one = [engine("float32").run(*arrays)[0] for arrays in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda arrays: engine("float32").run(*arrays)[0], jobs))
    for (boxes, masks), (old_boxes, old_masks) in zip(together, one_by_one, strict=True):
        np.testing.assert_array_equal(boxes, old_boxes)
        np.testing.assert_array_equal(masks, old_masks)
    assert len({len(boxes) for boxes, _ in together}) > 1


def test_two_engines_in_two_threads():
    arrays = nuclei()[2]
    engines = [OpenVINOEngine(nuclei()[0], "float32", threads=1) for _ in range(2)]
    expected = [engine.run(*arrays) for engine in engines]
    with ThreadPoolExecutor(2) as pool:
        found = [f.result() for f in [pool.submit(engine.run, *arrays) for engine in engines]]
    for old, new in zip(expected, found, strict=True):
        for (boxes, masks), (old_boxes, old_masks) in zip(new, old, strict=True):
            np.testing.assert_array_equal(boxes, old_boxes)
            np.testing.assert_array_equal(masks, old_masks)


def test_results_stay_as_they_are_when_it_runs_again():
    config, _ = nuclei_network(0.5)
    first, second = (network_inputs(config, [nuclei_picture(5, seed=i, size=128)]) for i in (1, 2))
    ((boxes, masks),) = engine("float32").run(*first)
    kept = boxes.copy(), masks.copy()
    engine("float32").run(*second)
    np.testing.assert_array_equal(boxes, kept[0])
    np.testing.assert_array_equal(masks, kept[1])


def test_errors(tmp_path, monkeypatch):
    model = nuclei()[0]
    with pytest.raises(EngineError, match=r"no device 'TOASTER' here. It has: .*CPU"):
        OpenVINOEngine(model, device="TOASTER")
    with pytest.raises(EngineError, match="not quantized: precision 'int8' needs"):
        OpenVINOEngine(model, "int8")
    with pytest.raises(EngineError, match="was quantized to int8; precision must be auto or int8. Received: 'float32'"):
        OpenVINOEngine(model, "float32", quantized=True)
    with pytest.raises(ValueError, match="precision must be auto, float32"):
        OpenVINOEngine(model, "float8")
    with pytest.raises(ValueError, match="threads must be a whole number from 1 on"):
        OpenVINOEngine(model, threads=0)
    (tmp_path / "model.onnx").write_bytes(model[:1000])
    for bad in (tmp_path / "model.onnx", tmp_path / "none.xml"):
        with pytest.raises(EngineError, match="OpenVINO cannot run .*" + bad.name):
            OpenVINOEngine(bad)
    with pytest.raises(EngineError, match="OpenVINO cannot run the network on CPU"):
        OpenVINOEngine(b"not a model")
    monkeypatch.setattr(openvino_engine, "capabilities_of", lambda core, device: ["FP32"])
    with pytest.raises(EngineError, match=r"does not compute in bfloat16 \(it does in FP32\). Use precision 'float32'"):
        OpenVINOEngine(model, "bfloat16")
    monkeypatch.setattr(openvino_engine, "prefers_bfloat16", lambda core, device: False)
    assert OpenVINOEngine(model).precision == "float32"


def test_what_is_not_int8_computes_in_what_openvino_prefers():
    """In bfloat16 only where there are instructions for it."""
    made = OpenVINOEngine(nuclei()[0], quantized=True)
    hint = compiled(made).get_property("INFERENCE_PRECISION_HINT")
    assert made.precision == "int8"
    assert hint == openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT")


def test_without_openvino(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"The engine openvino needs the package openvino.*pip install"):
        OpenVINOEngine(b"")


@pytest.fixture
def network_file(tmp_path):
    path = tmp_path / "network.onnx"
    path.write_bytes(nuclei()[0])
    return path


def was_compiled_before(made):
    return compiled(made).get_property("LOADED_FROM_CACHE")


def test_a_compiled_network_is_kept_and_found_by_its_content(network_file, tmp_path):
    folder = tmp_path / "not" / "there"
    arrays = nuclei()[2]
    first = OpenVINOEngine(network_file, "float32", cache=folder)
    compiled(first)
    again = OpenVINOEngine(network_file, "float32", cache=folder)
    assert (was_compiled_before(first), was_compiled_before(again)) == (False, True)
    for mine, theirs in zip(again.run(*arrays), first.run(*arrays), strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    network = onnx.load(network_file)
    weights = max(network.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights.raw_data = bytes([weights.raw_data[0] ^ 1]) + weights.raw_data[1:]  # one bit of them all
    onnx.save(network, network_file)
    assert not was_compiled_before(OpenVINOEngine(network_file, "float32", cache=folder))


def test_a_compiled_network_that_was_cut_short_is_made_anew(network_file, tmp_path):
    compiled(OpenVINOEngine(network_file, "float32", cache=tmp_path))
    (blob,) = tmp_path.glob("*.blob")
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.truncate(blob.stat().st_size // 2)
    made = OpenVINOEngine(network_file, "float32", cache=tmp_path)
    assert not was_compiled_before(made)
    check(keras_raw(*nuclei()[1:]), made.run(*nuclei()[2]), nuclei()[2][0].shape[1:3], least=3)


def test_the_oldest_compiled_networks_go(network_file, tmp_path, monkeypatch):
    monkeypatch.setattr(openvino_engine, "_CACHE_BYTES", 250)
    for age, name in enumerate(("newest", "newer", "old", "oldest")):
        (tmp_path / f"{name}.blob").write_bytes(bytes(100))
        os.utime(tmp_path / f"{name}.blob", (1e9 - age, 1e9 - age))
    compiled(OpenVINOEngine(network_file, "float32", cache=tmp_path))
    names = {path.stem for path in tmp_path.glob("*.blob")}
    assert {"newest", "newer"} < names
    assert not names & {"old", "oldest"}


def test_a_cache_that_cannot_be(network_file, tmp_path):
    (tmp_path / "file").touch()
    made = OpenVINOEngine(network_file, "float32", cache=tmp_path / "file" / "folder")
    assert len(made.run(*nuclei()[2])) == 2
