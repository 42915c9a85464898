"""`mrcnn export`: what it writes and tells, and what it refuses before a network is built."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mrcnn
from mrcnn.bundle import read_bundle
from mrcnn.cli import main
from tests.command_line import error_line, write_weights
from tests.nuclei_network import nuclei_picture

ROOT = Path(mrcnn.__file__).parents[1]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(nuclei_picture(12, seed=1)).save("cells.png")
    return tmp_path


def annotated(folder, count=2):
    """Images of nuclei with boxes of what is bright in them as annotations."""
    import cv2

    folder.mkdir()
    images, annotations = [], []
    for number in range(1, count + 1):
        picture = nuclei_picture(6, seed=number, size=128)
        Image.fromarray(picture).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 128, "height": 128})
        bright = (cv2.GaussianBlur(picture[..., 0], (5, 5), 0) > 45).astype(np.uint8)
        for outline in cv2.findContours(bright, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
            x, y, width, height = cv2.boundingRect(outline)
            if width * height > 100:
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0,
                     "bbox": [x, y, width, height], "area": width * height,
                     "segmentation": [outline.ravel().tolist()]}
                )  # fmt: skip
    told = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "nucleus"}]}
    (folder / "annotations.json").write_text(json.dumps(told))


def test_what_is_written_is_told_and_can_be_used(here, capsys):
    annotated(here / "val")
    argv = ["export", "nuclei", "model", "--image", "cells.png", "--annotations", "val/annotations.json",
            "--images", "val", "--min-confidence", "0.3"]  # fmt: skip
    assert main(argv) == 0
    out = capsys.readouterr().out
    bundle = read_bundle("model")
    assert bundle.config.DETECTION_MIN_CONFIDENCE == 0.3 and bundle.class_names == ("BG", "nucleus")
    assert "wrote model: openvino, float32, " in out and " MB" in out
    assert "checked against Keras with cells.png (192 x 192 pixels), run by openvino" in out
    assert "12 of 12 detections agree; largest differences: boxes" in out
    assert "use it: mrcnn detect photo.jpg --weights model" in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith(("before", "after"))}
    assert rows["before"] == rows["after"] and float(rows["before"][0]) > 0.5
    for kind in ("box_ap", "mask_ap"):
        assert bundle.checks[kind]["after"] == pytest.approx(bundle.checks[kind]["before"], abs=1e-3)
        assert bundle.checks[kind]["before"] > 0.5
    argv = ["detect", "cells.png", "--weights", "model", "--engine", "openvino", "--precision", "float32"]
    assert main(argv) == 0
    assert "12 instances" in capsys.readouterr().out


@pytest.mark.slow
def test_int8_from_a_folder(here, capsys):
    pytest.importorskip("nncf")
    os.mkdir("calibration")
    for seed in range(10):
        Image.fromarray(nuclei_picture(8, seed=seed, size=128)).save(f"calibration/{seed}.png")
    annotated(here / "val")
    argv = ["export", "nuclei", "model", "--precision", "int8", "--calibration", "calibration", "--image", "cells.png",
            "--annotations", "val/annotations.json", "--images", "val"]  # fmt: skip
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "wrote model: openvino, int8" in out and "detections are found again" in out
    assert all(any(line.startswith(word) for line in out.splitlines()) for word in ("before", "after", "lost"))


@pytest.mark.slow
def test_keras_runs_on_what_the_format_needs(here):
    """In a process of its own, for Keras chooses once. Here PyTorch, which is not what it would choose."""
    program = "import sys; from mrcnn.cli import main; sys.exit(main(sys.argv[1:]))"
    argv = ["export", "nuclei", "model", "--format", "torch", "--image", "cells.png", "--config", "PRE_NMS_LIMIT=200"]
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", program, *argv], capture_output=True, text=True, check=False,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Keras runs on torch for this format" in done.stderr
    assert 'use it: torch.export.load("model/model.pt2").module()' in done.stdout


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["nuclei", "new", "--format", "onnx", "--precision", "bf16"], "onnx is exported in float32"),
        (["nuclei", "new", "--precision", "int8"], "--precision int8 needs --calibration DIR"),
        (["nuclei", "new", "--calibration", "val"], "--calibration is for --precision int8. Received: --precision"),
        (["nuclei", "new", "--precision", "int8", "--calibration", "nowhere"], "There is no folder nowhere"),
        (["nuclei", "new", "--precision", "int8", "--calibration", "empty"], "The folder empty holds no images"),
        (["nuclei", "new", "--image", "none.png"], "No such image file: none.png"),
        (["nuclei", "new", "--annotations", "x.json"], "No such file or folder: x.json"),
        (["nuclei", "new", "--images", "val"], "--images DIR, the folder of the annotated images, needs --annotations"),
        (["nuclei", "new", "--annotations", "x.json", "--images", "val", "--format", "litert"],
         "Average precision is measured of what this package runs: openvino and onnx"),
        (["nuclei", "new", "--annotations", "x.json", "--images", "empty"], "x.json"),
        (["nuclei", "empty"], "exists and is no exported model"),
        (["nuclei", "no/where"], "does not exist"),
        (["none.h5", "new"], "There is no weights file none.h5"),
        (["empty", "new"], "empty is a folder. An export is made from weights"),
        (["backbone.h5", "new"], "holds no Mask R-CNN"),
        (["nuclei", "new", "--classes", "cell,other"], "--classes must name the 1 classes"),
        (["nuclei", "new", "--config", "NO_FIELD=1"], "NO_FIELD"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_line(arguments, told, here, monkeypatch, capsys):
    def never(*arguments, **options):
        raise AssertionError("a network was built")

    monkeypatch.setattr("mrcnn.model.MaskRCNN", never)
    os.mkdir("empty")
    write_weights(here / "backbone.h5", kind="backbone")
    assert main(["export", *arguments]) == 1
    assert told in error_line(capsys)
    assert sorted(os.listdir()) == ["backbone.h5", "cells.png", "empty"]


@pytest.mark.parametrize(
    "arguments", [["nuclei"], ["nuclei", "new", "--format", "coreml"], ["nuclei", "new", "--precision", "x"]]
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(["export", *arguments])
    assert left.value.code == 2
    assert "usage: mrcnn export" in capsys.readouterr().err


def test_formats_are_those_of_the_package():
    from mrcnn.cli import _parser
    from mrcnn.formats import FORMATS

    for name in FORMATS:
        assert _parser().parse_args(["export", "w", "out", "--format", name]).format == name
