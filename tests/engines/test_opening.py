"""Engines for exported models, weights files and networks."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from mrcnn.bundle import BundleError, write_bundle
from mrcnn.config import Config
from mrcnn.engines import choice, open_engine, opening
from mrcnn.engines.base import EngineError
from mrcnn.engines.choice import Choice
from mrcnn.graph.network import network_graph
from mrcnn.network import build_network
from tests.graph.cases import check, config_of, graph_bytes, inputs, keras_raw, pictures, small
from tests.graph.test_network import strange_backbone

NAMES = ("BG", "square", "disk", "triangle")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An ONNX bundle of the small network."""
    config, network = small()
    folder = tmp_path_factory.mktemp("exported") / "model"

    def write(there):
        (there / "model.onnx").write_bytes(graph_bytes(network, config))
        return "model.onnx"

    write_bundle(folder, "onnx", "float32", config, NAMES, write, lambda bundle: {})
    return folder


@pytest.fixture
def fastest(monkeypatch):
    """`choose` without measurements: the first that is asked about."""

    def choose(engines, precision, threads=None):
        asked.append((list(engines), precision))
        return Choice(engines[0], "float32" if precision == "auto" else precision, "measured")

    asked = []
    monkeypatch.setattr(opening, "choose", choose)
    return asked


def agrees(opened):
    config, network = small()
    arrays = inputs(config, pictures(1, 128, 128))
    check(keras_raw(network, arrays), opened.engine.run(*arrays), (128, 128), least=10)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_an_exported_model(exported, engine):
    opened = open_engine(str(exported), engine=engine, precision="f32", threads=1)
    assert (opened.engine.name, opened.engine.precision, opened.engine.threads) == (engine, "float32", 1)
    assert opened.class_names == NAMES
    assert opened.config.to_dict() == small()[0].to_dict()
    agrees(opened)


def test_what_openvino_compiled_of_an_exported_model_is_kept(exported, tmp_path, monkeypatch):
    monkeypatch.setenv("MRCNN_CACHE", str(tmp_path))
    agrees(open_engine(exported, engine="openvino", precision="float32"))
    assert len(list((tmp_path / "openvino").glob("*.blob"))) == 1
    monkeypatch.setattr(opening, "known_cache_folder", lambda: None)  # none is needed
    agrees(open_engine(exported, engine="openvino", precision="float32"))


def test_an_exported_model_on_whatever_is_fastest(exported, fastest, caplog):
    with caplog.at_level(logging.INFO, "mrcnn"):
        opened = open_engine(exported)
    assert fastest == [(["openvino", "onnxruntime"], "auto")]
    assert opened.engine.name == "openvino" and opened.reason == "measured"
    assert "engine openvino, float32: measured" in caplog.text


def test_an_exported_model_where_only_one_runtime_is(exported, fastest, monkeypatch):
    """The precision is measured all the same."""
    monkeypatch.setattr(opening, "installed", lambda package: package == "onnxruntime")
    opened = open_engine(exported)
    assert opened.engine.name == "onnxruntime" and opened.reason == "measured"
    assert fastest == [(["onnxruntime"], "auto")]
    assert open_engine(exported, precision="float32").reason == "asked for" and len(fastest) == 1
    monkeypatch.setattr(opening, "installed", lambda package: False)
    with pytest.raises(EngineError, match="needs one of these packages, and none is installed: openvino, onnxruntime"):
        open_engine(exported)


def test_an_exported_model_and_an_engine_that_does_not_read_it(exported):
    with pytest.raises(EngineError, match="runs on openvino or onnxruntime. Received: engine 'keras'"):
        open_engine(exported, engine="keras")


def test_formats_of_other_programs(tmp_path):
    def write(there):
        (there / "model.tflite").write_bytes(b"x")
        return "model.tflite"

    write_bundle(tmp_path / "model", "litert", "float32", small()[0], None, write, lambda bundle: {})
    with pytest.raises(EngineError, match="exported as litert, for other programs to run"):
        open_engine(tmp_path / "model")


def test_a_named_engine_runs_in_what_measures_fastest(exported, fastest):
    """OpenVINO says that it computes in bfloat16 wherever there is AVX-512, fast or not."""
    assert open_engine(exported, engine="openvino").engine.precision == "float32"
    config, network = small()
    opened = open_engine(network, config, engine="keras")
    assert (opened.engine.precision, opened.reason) == ("float32", "measured")
    assert fastest == [(["openvino"], "auto"), (["keras"], "auto")]


def test_keras_computes_in_what_measures_fastest(monkeypatch):
    config, network = small()
    monkeypatch.setattr(opening, "choose", lambda engines, *_: Choice(engines[0], "bfloat16", "measured"))
    assert open_engine(network, config, engine="keras").engine.precision == "bfloat16"


def test_a_model_for_bfloat16_runs_where_there_is_none(tmp_path, monkeypatch, fastest):
    import openvino

    from mrcnn.engines import openvino_engine

    config, network = small()

    def write(there):
        model = openvino.Core().read_model(graph_bytes(network, config))
        openvino.save_model(model, there / "model.xml", compress_to_fp16=False)
        return "model.xml"

    write_bundle(tmp_path / "model", "openvino", "bfloat16", config, None, write, lambda bundle: {})
    monkeypatch.setattr(openvino_engine, "capabilities_of", lambda core, device: ["FP32"])
    opened = open_engine(tmp_path / "model")
    assert opened.engine.precision == "float32" and opened.class_names is None
    agrees(opened)
    with pytest.raises(EngineError, match="does not compute in bfloat16"):
        open_engine(tmp_path / "model", precision="bfloat16")
    monkeypatch.setattr(openvino_engine, "capabilities_of", lambda core, device: ["FP32", "BF16"])
    assert open_engine(tmp_path / "model", precision="bfloat16").engine.precision == "bfloat16"
    with pytest.raises(EngineError, match="not quantized"):
        open_engine(tmp_path / "model", precision="int8")


@pytest.mark.parametrize("engine", ["keras", "openvino", "onnxruntime"])
def test_a_network_in_memory(engine):
    config, network = small()
    opened = open_engine(network, config, engine=engine, precision="float32")
    assert (opened.engine.name, opened.reason, opened.class_names) == (engine, "asked for", None)
    agrees(opened)


def test_a_network_in_memory_on_whatever_is_fastest(fastest, monkeypatch):
    config, network = small()
    monkeypatch.setattr(opening, "installed_engines", lambda: ["openvino", "keras"])
    assert open_engine(network, config).engine.name == "openvino"
    monkeypatch.setattr(opening, "installed", lambda package: package != "onnx")  # which writes the graph
    assert open_engine(network, config).engine.name == "keras"
    assert fastest == [(["openvino", "keras"], "auto"), (["keras"], "auto")]


def test_a_network_that_has_no_graph_goes_on_with_keras(fastest, monkeypatch, caplog):
    config = config_of(BACKBONE=strange_backbone)
    network = build_network(config, "inference")
    monkeypatch.setattr(opening, "installed_engines", lambda: ["openvino", "keras"])
    opened = open_engine(network, config)
    assert opened.engine.name == "keras" and opened.reason.startswith("openvino cannot: Layer 'strange'")
    assert "Going on with the engine keras" in caplog.text
    with pytest.raises(EngineError, match="Layer 'strange'"):
        open_engine(network, config, engine="openvino")


def test_a_weights_file(tmp_path):
    from mrcnn import weights

    config, network = small()
    path = tmp_path / "weights.h5"
    weights.save_weights(network, path, {"config": config.to_dict(), "class_names": list(NAMES)})
    opened = open_engine(path, engine="openvino", precision="float32")
    assert opened.class_names == NAMES and opened.config.NUM_CLASSES == 4
    agrees(opened)
    plain = tmp_path / "plain.h5"
    weights.save_weights(network, plain)
    with pytest.raises(EngineError, match="stores no configuration: give config="):
        open_engine(plain)
    agrees(open_engine(plain, config, engine="keras", precision="float32"))


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="no exported model and no weights file"):
        open_engine(tmp_path / "none.h5")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(EngineError, match="neither an exported model .* nor a weights file"):
        open_engine(tmp_path / "x.txt")
    with pytest.raises(BundleError, match="is no exported model"):
        open_engine(tmp_path)


def test_arguments_that_cannot_be(exported):
    config, network = small()
    with pytest.raises(ValueError, match="engine must be auto, keras, openvino, onnxruntime. Received: 'tensorrt'"):
        open_engine(exported, engine="tensorrt")
    with pytest.raises(ValueError, match="precision must be auto"):
        open_engine(exported, precision="fp16")
    with pytest.raises(ValueError, match="threads must be a whole number"):
        open_engine(exported, threads=0)
    with pytest.raises(ValueError, match="name the engine too. Received: device 'GPU', engine 'auto'"):
        open_engine(exported, device="GPU")
    with pytest.raises(EngineError, match="OpenVINO has no device 'TPU' here"):
        open_engine(exported, engine="openvino", device="TPU")
    with pytest.raises(ValueError, match="give config="):
        open_engine(network)
    with pytest.raises(TypeError, match="Received: int"):
        open_engine(3, config)
    with pytest.raises(EngineError, match="needs a quantized model: `mrcnn export --precision int8`"):
        open_engine(network, config, precision="int8")


def test_a_model_of_the_facade():
    class Facade:
        keras_model, config, mode = *small()[::-1], "inference"

    opened = open_engine(Facade(), engine="openvino", precision="float32")
    assert opened.config is small()[0]
    agrees(opened)
    Facade.mode = "training"
    with pytest.raises(ValueError, match="needs a model in 'inference' mode"):
        open_engine(Facade())


def test_the_graph_has_the_weights_of_now():
    """An engine made after the weights changed has the new ones."""
    config = config_of(IMAGE_MAX_DIM=64)
    network = build_network(config, "inference")
    before = network_graph(network, config)
    bias = network.get_layer("fpn_p2").bias
    bias.assign(np.ones(bias.shape))
    assert network_graph(network, config) != before
    assert isinstance(config, Config) and choice.PACKAGES
