"""The commands on an exported model: without Keras, with what the folder tells, and with the results of the weights."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import mrcnn
from mrcnn.bundle import write_bundle
from mrcnn.cli import main
from mrcnn.cli.informing import checks_in_words
from mrcnn.config import Config
from tests.command_line import error_line
from tests.nuclei_network import nuclei_network, nuclei_picture

pytest.importorskip("onnx")
pytest.importorskip("openvino")

ROOT = Path(mrcnn.__file__).parents[1]
# Its answer is no matter of which engine measures fastest, which would have to be found out first.
FLOAT32 = ["--engine", "openvino", "--precision", "float32"]


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory) -> SimpleNamespace:
    """The network of the demo as an exported model, and two images with what it finds in them as their annotation."""
    from mrcnn.graph.network import network_graph

    folder = tmp_path_factory.mktemp("nuclei")
    config, network = nuclei_network()

    def write(where: Path) -> str:
        (where / "model.onnx").write_bytes(network_graph(network, config).SerializeToString())
        return "model.onnx"

    checks = {"expected": 9, "found": 8, "agreeing": 8, "box": 0.25, "score": 0.5, "mask": 0.125, "image": "x.png",
              "ran_in": "a test", "molded_shape": [1, 64, 128, 3], "background_ruled_out": False,
              "mask_ap": {"before": 0.5, "after": 0.25}}  # fmt: skip
    write_bundle(folder / "model", "onnx", "float32", config, ["BG", "nucleus"], write, lambda bundle: checks)
    images = []
    for seed in range(2):
        images.append(str(folder / f"{seed}.png"))
        Image.fromarray(nuclei_picture(5 + seed, seed)).save(images[-1])
    argv = ["detect", *images, "--weights", str(folder / "model"), *FLOAT32, "--output", str(folder / "found")]
    assert main(argv) == 0
    found = json.loads((folder / "found" / "detections.json").read_text())
    annotations = {
        "images": [{"id": i + 1, "file_name": f"{i}.png", "width": 192, "height": 192} for i in range(2)],
        "categories": [{"id": 1, "name": "nucleus"}],
        "annotations": [
            {**entry, "id": number, "iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3]}
            for number, entry in enumerate(found, start=1)
        ],
    }
    (folder / "annotations.json").write_text(json.dumps(annotations))
    return SimpleNamespace(folder=folder, model=str(folder / "model"), images=images, found=found)


def detect(nuclei, output: Path, *arguments: str) -> list[dict]:
    argv = ["detect", *nuclei.images, "--weights", nuclei.model, "--output", str(output), *arguments]
    assert main(argv) == 0
    return json.loads((output / "detections.json").read_text())


def test_the_same_is_found_as_with_the_weights(nuclei, tmp_path):
    argv = ["detect", *nuclei.images, "--weights", "nuclei", "--output", str(tmp_path), "--engine", "keras"]
    assert main([*argv, "--precision", "f32", "--min-confidence", "0.5"]) == 0
    entries = json.loads((tmp_path / "detections.json").read_text())
    assert len(entries) == len(nuclei.found) >= 11
    for one, other in zip(entries, nuclei.found, strict=True):
        assert (one["file_name"], one["category_name"]) == (other["file_name"], other["category_name"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)
        np.testing.assert_allclose(one["bbox"], other["bbox"], atol=1)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights there")
def test_a_deployment_needs_numpy_opencv_and_the_runtime(nuclei, tmp_path):
    """Of all that is installed only these can be imported."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for package in ("numpy", "cv2", "openvino", "openvino_telemetry"):
        spec = importlib.util.find_spec(package)
        if spec is not None:
            home = Path(spec.origin).parent
            for path in (home, home.with_name(f"{package}.libs"), home.with_name("opencv_python_headless.libs")):
                if path.is_dir() and not (packages / path.name).exists():
                    os.symlink(path, packages / path.name)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packages), str(ROOT)])}
    argv = [sys.executable, "-S", "-m", "mrcnn", "detect", *nuclei.images, "--weights", nuclei.model, *FLOAT32]
    done = subprocess.run([*argv, "--out", str(tmp_path / "out")], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "out" / "detections.json").read_text()) == nuclei.found
    with Image.open(tmp_path / "out" / "0_detected.png") as picture:
        drawn = np.asarray(picture).astype(int)
    assert np.abs(drawn - nuclei_picture(5, 0)).max(axis=2).astype(bool).mean() > 0.1
    done = subprocess.run([*argv, "--weights", "nuclei"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("mrcnn: error: No module named")


def test_what_of_an_exported_model_can_be_changed(nuclei, tmp_path, capsys):
    renamed = detect(nuclei, tmp_path / "a", *FLOAT32, "--classes", "cell")
    assert {entry["category_name"] for entry in renamed} == {"cell"}
    least = float(np.median([entry["score"] for entry in nuclei.found]))
    surer = detect(nuclei, tmp_path / "b", *FLOAT32, "--min-confidence", str(least))
    assert [entry["score"] for entry in surer] == [e["score"] for e in nuclei.found if e["score"] >= least]
    assert 0 < len(surer) < len(nuclei.found)
    larger = detect(nuclei, tmp_path / "c", *FLOAT32, "--config", "IMAGE_MIN_DIM=384", "IMAGES_PER_GPU=2")
    assert larger != nuclei.found and {entry["segmentation"]["size"][0] for entry in larger} == {192}
    capsys.readouterr()
    detect(nuclei, tmp_path / "d", *FLOAT32, "--threads", "1", "-v")
    assert capsys.readouterr().out.startswith("engine: openvino, float32, on CPU, 1 threads. Why: ")


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--min-confidence", "0.4"], "was exported to find what scores 0.5 or better"),
        (["--config", "POOL_SIZE=5", "IMAGE_MIN_DIM=64"], "POOL_SIZE can no longer be changed. What can: IMAGE_RESIZE"),
        (["--config", "DETECTION_MIN_CONFIDENCE=0.9"], "(--min-confidence raises it)"),
        (["--config", "IMAGE_MIN_DIMM=64"], "No such field of Config: IMAGE_MIN_DIMM"),
        (["--config", "BATCH_SIZE=2"], "IMAGES_PER_GPU"),
        (["--classes", "a,b"], "must name the 1 classes of"),
        (["--engine", "keras"], "which runs on openvino or onnxruntime. Received: engine 'keras'"),
        (["--precision", "int8"], "int8"),
        (
            ["--weights", "nuclei", "--precision", "int8"],
            "int8 needs a quantized model: `mrcnn export --precision int8`",
        ),
        (["--weights", "."], "is no exported model"),
        (["--weights", "damaged"], "model.onnx is missing"),
    ],
)
def test_mistakes_are_told_in_a_line(nuclei, arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "model.json").write_bytes(Path(nuclei.model, "model.json").read_bytes())
    assert main(["detect", nuclei.images[0], "--weights", nuclei.model, *arguments]) == 1
    assert told in error_line(capsys)


def test_evaluate_measures_an_exported_model(nuclei, tmp_path, capsys):
    argv = ["evaluate", str(nuclei.folder / "annotations.json"), "--images", str(nuclei.folder), "--weights"]
    assert main([*argv, nuclei.model, "--engine", "onnxruntime", "--json", str(tmp_path / "a.json")]) == 0
    printed = capsys.readouterr()
    assert "was exported to find what scores 0.5 or better: what scores less is missing" in printed.err
    assert printed.out.startswith("engine: onnxruntime, float32\n")
    figures = json.loads((tmp_path / "a.json").read_text())
    assert figures["mask"]["ap"] == 1 and figures["box"]["ap50"] == 1
    assert (figures["engine"], figures["precision"], figures["image_count"]) == ("onnxruntime", "float32", 2)
    # A higher threshold cuts the curve short, and is asked for.
    assert main([*argv, nuclei.model, *FLOAT32, "--min-confidence", "0.999", "--json", str(tmp_path / "b.json")]) == 0
    assert json.loads((tmp_path / "b.json").read_text())["mask"]["ap"] < 0.95
    assert capsys.readouterr().err.count("was exported") == 0


def test_evaluate_takes_weights_in_the_networks_own_numbers(nuclei, monkeypatch):
    """Keras in float32, whatever is faster, unless something else is asked for."""
    asked = []

    class Asked(Exception):
        pass

    def detector(model, config=None, **options):
        asked.append(options)
        raise Asked

    monkeypatch.setattr("mrcnn.cli.running.Detector", detector)
    network = SimpleNamespace(model=None, class_names=("BG", "nucleus"), names_known=True)
    monkeypatch.setattr("mrcnn.cli.running.load_network", lambda *arguments: network)
    argv = ["evaluate", str(nuclei.folder / "annotations.json"), "--images", str(nuclei.folder), "--weights"]
    for more in (["nuclei"], ["nuclei", "--precision", "bf16"], ["nuclei", "--engine", "auto"], [nuclei.model]):
        assert main([*argv, *more]) == 1
    assert [(options["engine"], options["precision"]) for options in asked] == [
        ("keras", "float32"), ("keras", "bf16"), ("auto", "float32"), ("auto", "float32"),
    ]  # fmt: skip
    assert main(["detect", nuclei.images[0], "--weights", "nuclei", "--output", str(nuclei.folder / "none")]) == 1
    assert (asked[-1]["engine"], asked[-1]["precision"]) == ("auto", "auto")


@pytest.mark.parametrize(("agrees", "end"), [(True, "away"), (False, "away: not chosen for detection")])
def test_info_tells_what_bfloat16_makes_of_it(agrees, end):
    checks = {
        "image": "x.png", "ran_in": "a test", "expected": 9, "found": 8, "matched": 8, "agreeing": 8, "border": 0,
        "box": 0.25, "score": 0.1, "mask": 0.1, "worst_box": 0.25, "median_box": 0.1,
    }  # fmt: skip
    rows = checks_in_words({**checks, "bfloat16": {**checks, "matched": 7, "agrees": agrees}})
    assert rows["in bfloat16"] == f"7 of 9 are found again, boxes up to 0.25 pixels {end}"
    assert set(rows) == {"checked with", "beside Keras", "in bfloat16"}


def test_info_tells_what_an_exported_model_is(nuclei, capsys):
    assert main(["info", nuclei.model]) == 0
    told = {name: text.strip() for name, text in (line.split(":", 1) for line in capsys.readouterr().out.splitlines())}
    assert told["format"] == "onnx (model.onnx)" and told["precision"] == "float32"
    assert told["class names"] == "BG, nucleus" and told["classes"].startswith("2 ") and told["least score"] == "0.5"
    size = sum(path.stat().st_size for path in Path(nuclei.model).iterdir())
    assert told["size"] == f"{size / 1e6:.1f} MB in 2 files"
    assert told["checked with"] == "x.png (64 x 128), run by a test"
    assert told["beside Keras"].startswith("8 of 9 detections agree; largest differences: boxes 0.25 pixels")
    assert told["mask ap"] == "before 0.5, after 0.25"
    assert main(["info", nuclei.model, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["format"] == "onnx" and values["size_bytes"] == size and values["class_names"] == ["BG", "nucleus"]
    assert values["checks"]["agreeing"] == 8
    assert Config.from_dict(values["config"]).DETECTION_MIN_CONFIDENCE == 0.5
