"""Exporting: each format is written, run and compared; what cannot be is refused and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import mrcnn
from mrcnn import export, exporters, formats
from mrcnn.agreement import compare
from mrcnn.bundle import MODEL_FILE, is_bundle, read_bundle
from mrcnn.data.images import ImageError
from mrcnn.engines import EngineError, open_engine, opening
from mrcnn.engines.choice import Choice
from mrcnn.engines.openvino_engine import OpenVINOEngine, prefers_bfloat16
from mrcnn.export import describe_checks, export_model
from mrcnn.exporters import Exporter
from mrcnn.formats import FORMATS, ExportError, check_export
from mrcnn.network import build_network
from tests.graph.cases import build, check, config_of, graph_bytes, keras_raw
from tests.graph.test_network import strange_backbone
from tests.nuclei_network import network_inputs, nuclei_network, nuclei_picture

ROOT = Path(mrcnn.__file__).parents[1]
NAMES = ("BG", "nucleus")
BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras writes this format on TensorFlow")


@pytest.fixture(autouse=True, scope="module")
def keras_runs_once():
    """What Keras finds with a network in an image is not asked twice: preparing it takes seconds."""
    run, known = export._run_keras, {}

    def once(network, config, name, inputs):
        key = id(network), name, inputs[0].tobytes()
        if key not in known:
            known[key] = network, run(network, config, name, inputs)
        return known[key][1]

    export._run_keras = once
    yield
    export._run_keras = run


def picture():
    return nuclei_picture(12, seed=1)


def export_nuclei(folder, format="openvino", **options):
    config, network = nuclei_network(0.5)
    return export_model(network, config, folder, format, class_names=NAMES, **{"image": picture(), **options})


def two_others():
    """Inputs of two images of another size, and the network."""
    config, network = nuclei_network(0.5)
    return network_inputs(config, [nuclei_picture(5, seed=2, size=128), nuclei_picture(2, seed=3, size=128)]), network


@pytest.mark.parametrize("format", ["openvino", "onnx"])
def test_what_this_package_runs_again(format, tmp_path):
    bundle = export_nuclei(tmp_path / "model", format)
    assert (bundle.format, bundle.precision, bundle.class_names) == (format, "float32", NAMES)
    assert bundle.checks["agreeing"] == 12 and bundle.checks["box"] <= 1e-2 and bundle.checks["score"] <= 1e-3
    assert bundle.checks["inputs"] == {
        "input_image": ["B", "h", "w", 3], "input_image_meta": ["B", 14], "input_anchors": ["B", "A", 4],
    }  # fmt: skip
    engine = "openvino" if format == "openvino" else "onnxruntime"
    assert bundle.checks["ran_in"].startswith(engine) and "in float32" in bundle.checks["ran_in"]
    told = describe_checks(bundle)
    assert "(192 x 192 pixels)" in told and "12 of 12 detections agree" in told
    assert "more that" not in told
    if prefers_bfloat16():  # which a detector here might choose
        assert bundle.checks["bfloat16"]["matched"] == 12 and bundle.checks["bfloat16"]["agrees"]
        assert "in bfloat16 12 of 12 are found again" in told
    # Another number of images, of another size.
    arrays, network = two_others()
    opened = open_engine(tmp_path / "model", engine=engine, precision="float32")
    check(keras_raw(network, arrays), opened.engine.run(*arrays), (128, 128), least=2)


def test_an_onnx_file_tells_configuration_and_names_by_itself(tmp_path):
    import onnx

    bundle = export_nuclei(tmp_path / "model", "onnx")
    stored = {entry.key: json.loads(entry.value) for entry in onnx.load(bundle.path).metadata_props}
    assert stored["class_names"] == list(NAMES) and stored["config"]["NUM_CLASSES"] == 2


def test_bfloat16_halves_the_file_and_nothing_else(tmp_path):
    """Its weights are half as large; what must stay float32 still can be asked for, and thresholds are as they were."""
    config, network = nuclei_network(0.5)
    image = nuclei_picture(12, seed=1)
    full = export_model(network, config, tmp_path / "full", image=image)
    half = export_model(network, config, tmp_path / "half", precision="bf16", image=image)
    sizes = [bundle.path.with_suffix(".bin").stat().st_size for bundle in (full, half)]
    assert half.precision == "bfloat16" and 0.49 < sizes[1] / sizes[0] < 0.52
    assert half.checks["matched"] == half.checks["expected"] == 12
    assert "12 of 12 detections are found again" in describe_checks(half)

    arrays = network_inputs(config, [image])
    shape = arrays[0].shape[1:3]
    from_file = OpenVINOEngine(half.path, half.checks["ran_in"].rpartition(" ")[2]).run(*arrays)[0]
    in_float32 = OpenVINOEngine(half.path, "float32").run(*arrays)[0]
    expected = OpenVINOEngine(full.path, "float32").run(*arrays)[0]
    close = compare(expected, in_float32, shape)
    assert close.agreeing == 12 and close.box < 0.1 and close.score < 1e-3
    assert compare(expected, from_file, shape).box < 1
    kept = [
        len([name for port in OpenVINOEngine(bundle.path, "float32")._read.outputs for name in port.get_names()])
        for bundle in (full, half)
    ]
    assert kept[0] == kept[1] > 18


@on_tensorflow
@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_saved_model(precision, tmp_path):
    import tensorflow as tf

    config, network = nuclei_network(0.5)
    bundle = export_model(
        network, config, tmp_path / "model", "saved_model", precision, image=nuclei_picture(12, seed=1)
    )
    assert bundle.checks["expected"] == bundle.checks["matched"] == 12
    assert bundle.checks["box"] < (1e-3 if precision == "float32" else 1)
    run = tf.saved_model.load(str(bundle.path)).signatures["serving_default"]
    arrays, _ = two_others()
    names = ("input_image", "input_image_meta", "input_anchors")
    found = {k: v.numpy() for k, v in run(**dict(zip(names, map(tf.constant, arrays), strict=True))).items()}
    assert found["detections"].shape == (2, config.DETECTION_MAX_INSTANCES, 6)
    assert found["masks"].shape == (2, config.DETECTION_MAX_INSTANCES, 28, 28)
    for expected, rows in zip(keras_raw(network, arrays), found["detections"], strict=True):
        assert (rows[:, 4] > 0).sum() == len(expected[0])
    with pytest.raises(EngineError, match="exported as saved_model, for other programs to run"):
        open_engine(tmp_path / "model")


@on_tensorflow
def test_litert(tmp_path, capfd):
    """With built-in operations alone, and of open sizes."""
    import tensorflow as tf

    bundle = export_nuclei(tmp_path / "model", "litert")
    assert bundle.checks["agreeing"] == 12
    capfd.readouterr()
    tf.lite.experimental.Analyzer.analyze(model_path=str(bundle.path))
    told = capfd.readouterr().out
    assert "CONV_2D" in told and "Flex" not in told
    arrays, network = two_others()
    runner = tf.lite.Interpreter(model_path=str(bundle.path)).get_signature_runner()
    found = runner(**dict(zip(("input_image", "input_image_meta", "input_anchors"), arrays, strict=True)))
    raws = [
        (rows[rows[:, 4] > 0], masks[rows[:, 4] > 0])
        for rows, masks in zip(found["detections"], found["masks"], strict=True)
    ]
    check(keras_raw(network, arrays), raws, (128, 128), least=2)


TORCH = """
import numpy as np, sys, torch
from mrcnn.export import export_model
from tests.graph.cases import build, check, config_of, inputs, keras_raw, pictures
config = config_of(IMAGE_MAX_DIM=64, PRE_NMS_LIMIT=100, POST_NMS_ROIS_INFERENCE=20, DETECTION_MAX_INSTANCES=8)
network = build(config)
bundle = export_model(network, config, sys.argv[1], "torch", image=pictures(1, 64, 64)[0])
assert bundle.checks["agreeing"] >= 4, bundle.checks
assert bundle.checks["inputs"]["input_image"] == [1, 64, 64, 3]
arrays = inputs(config, pictures(1, 64, 64, seed=7))
found = torch.export.load(str(bundle.path)).module()([torch.from_numpy(array) for array in arrays])
rows, masks = found["detections"][0].detach().numpy(), found["masks"][0].detach().numpy()
check(keras_raw(network, arrays), [(rows[rows[:, 4] > 0], masks[rows[:, 4] > 0])], (64, 64), least=3)
"""


@pytest.mark.slow
def test_torch(tmp_path):
    """In a process of its own: Keras writes it on PyTorch."""
    done = subprocess.run(
        [sys.executable, "-c", TORCH, str(tmp_path / "model")], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "torch"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_int8(tmp_path):
    pytest.importorskip("nncf")
    from PIL import Image

    config, network = nuclei_network(0.5)
    files = []
    for seed in range(10):
        files.append(tmp_path / f"{seed}.png")
        Image.fromarray(nuclei_picture(8, seed=seed, size=128)).save(files[-1])
    seen = []

    def measure(engine):
        seen.append((engine.name, engine.precision))
        return {"mask_ap": {"before": 0.5, "after": 0.25}}

    bundle = export_model(
        network, config, tmp_path / "model", precision="int8", image=nuclei_picture(12, seed=20),
        calibration=[*files[:9], np.asarray(Image.open(files[9]))], measure=measure,
    )  # fmt: skip
    assert bundle.precision == "int8" and bundle.checks["matched"] >= 11 and "in int8" in bundle.checks["ran_in"]
    assert seen == [("openvino", "int8")] and bundle.checks["mask_ap"] == {"before": 0.5, "after": 0.25}
    opened = open_engine(tmp_path / "model")
    assert opened.engine.precision == "int8" and opened.class_names is None
    with pytest.raises(EngineError, match="was quantized to int8"):
        open_engine(tmp_path / "model", precision="float32")


def test_where_nothing_is_found_a_copy_without_background_is_compared(tmp_path):
    config, network = nuclei_network(1.0)
    bundle = export_model(network, config, tmp_path / "model", image=picture())
    assert bundle.checks["background_ruled_out"] and bundle.checks["agreeing"] > 10
    assert "a copy without background was exported and compared" in describe_checks(bundle)
    opened = open_engine(tmp_path / "model", precision="float32")  # the copy itself is not what was kept
    found = opened.engine.run(*network_inputs(config, [picture()]))
    assert opened.config.DETECTION_MIN_CONFIDENCE == 1.0 and len(found[0][0]) == 0
    with pytest.raises(ExportError, match=r"finds nothing in the given image, so what bfloat16 costs cannot be seen"):
        export_model(network, config, tmp_path / "other", precision="bfloat16", image=picture())
    with pytest.raises(ExportError, match="finds nothing in the pictures that ship"):
        export_model(network, config, tmp_path / "other", precision="bfloat16")
    assert not (tmp_path / "other").exists()


def test_without_an_image_there_are_two(tmp_path):
    config, network = nuclei_network(0.5)
    bundle = export_model(network, config, tmp_path / "model", "onnx")
    assert bundle.checks["image"] == "a picture of cells" and bundle.checks["expected"] > 40
    for channels in (1, 4):
        for image in export._pictures().values():
            other = config_of(IMAGE_CHANNEL_COUNT=channels, MEAN_PIXEL=np.zeros(channels))
            assert export._with_channels(image, other).shape == (*image.shape[:2], channels)


def wrong(kind):
    """A network with the bias of one of its last layers changed: what a bad export would be."""
    config, network = nuclei_network(0.5)
    other = build_network(config, "inference")
    other.set_weights(network.get_weights())
    changes = {"box": ("mrcnn_bbox_fc", 0.05), "score": ("mrcnn_class_logits", [0, -6]), "mask": ("mrcnn_mask", 1)}
    name, change = changes[kind]
    bias = other.get_layer(name).bias
    bias.assign(keras.ops.convert_to_numpy(bias) + np.float32(change))
    return other


@pytest.mark.parametrize("kind", ["box", "score", "mask"])
def test_a_model_that_differs_is_not_kept(kind, tmp_path, monkeypatch):
    config, _ = nuclei_network(0.5)
    old = export_nuclei(tmp_path / "model", "onnx")
    content = old.path.read_bytes()
    bad = graph_bytes(wrong(kind), config)
    monkeypatch.setattr(exporters, "_onnx", lambda job: bad)
    with pytest.raises(ExportError, match=r"does not agree with Keras, and was not kept.*Keras finds 12 objects"):
        export_nuclei(tmp_path / "model", "onnx")
    if kind == "box":
        with pytest.raises(ExportError, match="boxes 0.01 pixels, scores 0.001, masks 0.01"):
            export_nuclei(tmp_path / "new", "openvino")
    assert read_bundle(tmp_path / "model").path.read_bytes() == content
    assert os.listdir(tmp_path) == ["model"]


def test_a_model_of_less_precision_that_differs_by_pixels_is_not_kept(tmp_path, monkeypatch):
    config, network = nuclei_network(0.5)
    full = Exporter(exporters._write_openvino, lambda job, path: (moved(keras_raw(network, job.inputs)[0]), "a test"))

    def moved(raw):
        """Boxes an eighth of their height too low."""
        detections, masks = raw
        detections = detections.copy()
        detections[:, [0, 2]] += (detections[:, 2:3] - detections[:, 0:1]) / 8
        return detections, masks

    monkeypatch.setitem(exporters._EXPORTERS, "openvino", full)
    with pytest.raises(ExportError, match="90% of detections found again, boxes 3% of their side in the median"):
        export_model(network, config, tmp_path / "m", precision="bfloat16", image=nuclei_picture(12, seed=1))
    assert os.listdir(tmp_path) == []


def test_a_detector_that_may_choose_does_not_choose_what_was_too_far_off(tmp_path, monkeypatch):
    """The float32 file is good, and what bfloat16 makes of it here is not."""

    _, network = nuclei_network(0.5)

    class Half:
        def run(self, *arrays):
            return [(detections[:6], masks[:6]) for detections, masks in keras_raw(network, arrays)]

    monkeypatch.setattr(export, "bfloat16_engine", lambda path: Half())
    bundle = export_nuclei(tmp_path / "model")
    assert bundle.checks["agreeing"] == 12
    assert (bundle.checks["bfloat16"]["matched"], bundle.checks["bfloat16"]["agrees"]) == (6, False)
    told = describe_checks(bundle)
    assert "in bfloat16 6 of 12 are found again" in told and "will choose float32" in told
    monkeypatch.setattr(opening, "choose", lambda engines, *_: Choice(engines[0], "bfloat16", "measured"))
    assert open_engine(tmp_path / "model").engine.precision == "float32"


def test_those_that_do_not_agree_are_told_of(tmp_path, monkeypatch):
    """One of 20 may lie on a threshold; that it is missing, and what lies far off, is said."""
    config, network = nuclei_network(0.5)
    moved = keras_raw(network, network_inputs(config, [picture()]))[0]
    moved[0][0, :4] += 0.02
    monkeypatch.setitem(
        exporters._EXPORTERS, "onnx", Exporter(exporters._write_onnx, lambda job, path: (moved, "a test"))
    )
    monkeypatch.setattr(export, "bfloat16_engine", lambda path: None)
    bundle = export_nuclei(tmp_path / "model", "onnx")
    assert bundle.checks["agreeing"] == 11 and "bfloat16" not in bundle.checks
    far = bundle.checks["worst_box"]
    assert far == pytest.approx(0.02 * 192, rel=0.02)
    assert f"1 more that differ by more, boxes by up to {far:.2g} pixels, or that only one" in describe_checks(bundle)


def test_what_cannot_be_is_refused_before_the_network_runs(tmp_path, monkeypatch):
    config, network = nuclei_network(0.5)

    def never(*arguments):
        raise AssertionError("it was run")

    monkeypatch.setattr(export, "_run_keras", never)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()

    def refused(error, match, *arguments, **options):
        with pytest.raises(error, match=match):
            export_model(network, config, *(arguments or ("new",)), **options)

    refused(ValueError, "format must be one of openvino, onnx, saved_model, litert, torch. Received: 'coreml'",
            format="coreml")  # fmt: skip
    refused(ValueError, "precision must be auto, float32", precision="fp16")
    refused(ExportError, "Received: precision 'auto'", precision="auto")
    refused(ExportError, r"onnx is exported in float32. Received: precision 'bfloat16', for which there is openvino",
            format="onnx", precision="bf16")  # fmt: skip
    refused(ExportError, "litert is exported in float32", format="litert", precision="int8")
    refused(ValueError, "calibration images go with precision int8", calibration=[picture()])
    refused(ValueError, "calibration images go with precision int8", precision="int8")
    refused(ValueError, "class_names must be 2, the background's first. Received: 3", class_names=["BG", "a", "b"])
    refused(ValueError, "measure goes with what an engine runs", format="saved_model", measure=lambda engine: {})
    refused(FileExistsError, "exists and is no exported model", "text")
    refused(FileNotFoundError, "does not exist", "no/where")
    refused(FileNotFoundError, "No such image file: none.png", image="none.png")
    (tmp_path / "x.png").write_text("no picture")
    refused(ImageError, "Cannot read the image file", image="x.png")
    other = next(name for name, format in FORMATS.items() if format.backend not in (None, BACKEND))
    refused(ExportError, f"Keras exports as {other} on .*KERAS_BACKEND=", format=other)
    assert sorted(os.listdir(tmp_path)) == ["text", "x.png"]


def test_packages_that_are_missing_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "installed", lambda package: package != "nncf")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ImportError, match=r"Exporting as openvino, int8, needs the package nncf.*\[int8\]"):
        check_export("openvino", "int8", tmp_path / "new")
    assert check_export("openvino", "bf16", tmp_path / "new") == "bfloat16"


def test_a_layer_without_a_form_leaves_nothing(tmp_path):
    config = config_of(BACKBONE=strange_backbone)
    with pytest.raises(EngineError, match="Layer 'strange'"):
        export_model(build(config), config, tmp_path / "model", image=picture())
    assert os.listdir(tmp_path) == []


@on_tensorflow
def test_an_exporter_that_fails_is_told_in_a_line(tmp_path, monkeypatch):
    def export(*arguments, **options):
        raise RuntimeError("\nno such operation\nand a lot more")

    monkeypatch.setattr(keras.Model, "export", export)
    with pytest.raises(ExportError, match=r"cannot export this network as tf_saved_model: no such operation$"):
        export_nuclei(tmp_path / "model", "saved_model")
    assert os.listdir(tmp_path) == []


def test_every_format_has_an_exporter():
    assert list(exporters._EXPORTERS) == list(FORMATS)


def test_the_description_is_for_people_too(tmp_path):
    export_nuclei(tmp_path / "model")
    told = json.loads((tmp_path / "model" / MODEL_FILE).read_text())
    assert told["preprocessing"]["channels"] == "RGB" and told["checks"]["inputs"]["input_image"][3] == 3
    assert is_bundle(tmp_path / "model")
