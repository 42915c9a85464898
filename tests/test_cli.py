"""The command line: what it accepts, how it tells errors, and what it makes of weights files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import mrcnn
from mrcnn import cli
from mrcnn.cli import main
from mrcnn.config import Config
from mrcnn.data.coco_names import COCO_NAMES
from tests.command_line import error_line, write_weights
from tests.shapes import KINDS, ShapesConfig

COMMANDS = ("detect", "train", "evaluate", "export", "demo", "info", "report")
HEAVY = ("numpy", "keras", "tensorflow", "jax", "torch", "h5py", "cv2", "matplotlib", "PIL", "pycocotools", "tqdm")


# What is asked


def test_help_imports_nothing_heavy():
    """`--help` of every command, measured by what it imports: time depends on the machine."""
    code = f"""
import sys
from mrcnn.cli import main
for command in [[], *([name] for name in {COMMANDS!r})]:
    try:
        main([*command, "--help"])
    except SystemExit as leaving:
        assert leaving.code == 0
print("imported:", *[module for module in {HEAVY!r} if module in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported:"
    assert all(f"usage: mrcnn {name}" in done.stdout for name in COMMANDS)


def test_version_and_module(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0 and capsys.readouterr().out == f"mrcnn {mrcnn.__version__}\n"
    done = subprocess.run([sys.executable, "-m", "mrcnn", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"mrcnn {mrcnn.__version__}\n"


@pytest.mark.parametrize(
    "argv, told",
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice"),
        (["detect", "a.png"], "--weights"),
        (["detect", "--weights", "w.h5"], "IMAGE"),
        (["detect", "a.png", "--weights", "w.h5", "--min-confidence", "1.5"], "not from 0 to 1"),
        (["detect", "a.png", "--weights", "w.h5", "--min-confidence", "nan"], "finite"),
        (["detect", "--weights", "w.h5", "--config", "A=1", "a.png"], "files go before --config"),
        (["detect", "a.png", "--weights", "w.h5", "--engine", "fast"], "invalid choice: 'fast'"),
        (["detect", "a.png", "--weights", "w.h5", "--precision", "float16"], "invalid choice: 'float16'"),
        (["detect", "a.png", "--weights", "w.h5", "--threads", "0"], "at least 1"),
        (["detect", "a.mp4", "--weights", "w.h5", "--every", "0.5"], "whole number"),
        (["train", "--images", "a"], "--train"),
        (["train", "--train", "a.json", "--data-format", "paper"], "invalid choice: 'paper'"),
        (["train", "--train", "a.json", "--images", ".", "--epochs", "0"], "at least 1"),
        (["train", "--train", "a.json", "--images", ".", "--epochs", "1.5"], "whole number"),
        (["train", "--train", "a.json", "--images", ".", "--learning-rate", "-1"], "above 0"),
        (["train", "--train", "a.json", "--images", ".", "--name", "a/b"], "letters"),
        (["info"], "WEIGHTS"),
    ],
)
def test_wrong_usage_exits_2(argv, told, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(argv)
    assert leaving.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, setting",
    [
        ("IMAGE_MAX_DIM=512", ("IMAGE_MAX_DIM", 512)),
        ("RPN_ANCHOR_SCALES=8,16,32", ("RPN_ANCHOR_SCALES", (8, 16, 32))),
        ("TRAIN_BN=None", ("TRAIN_BN", None)),
        ("BACKBONE=resnet50", ("BACKBONE", "resnet50")),
        ("NAME=a=b", ("NAME", "a=b")),
        ("LOSS_WEIGHTS={'rpn_class_loss': 2}", ("LOSS_WEIGHTS", {"rpn_class_loss": 2})),
    ],
)
def test_settings_are_python_values_or_text(text, setting):
    assert cli._setting(text) == setting


# How errors are told


@pytest.fixture
def failing(monkeypatch):
    """Make `mrcnn info` raise."""

    def set_up(error: BaseException) -> None:
        def run(args):
            raise error

        monkeypatch.setattr("mrcnn.cli.informing.run", run)

    return set_up


def test_a_bug_shows_its_traceback(failing, capsys):
    failing(RuntimeError("two\nlines"))
    assert main(["info", "w.h5"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error and error.endswith("mrcnn: error: two lines\n")


def test_verbose_shows_the_traceback_of_a_users_error(tmp_path, capsys):
    for argv in (["info", str(tmp_path / "no.h5"), "-v"], ["-v", "info", str(tmp_path / "no.h5")]):
        assert main(argv) == 1
        error = capsys.readouterr().err
        assert "Traceback" in error and "mrcnn: error: There is no weights file" in error


def test_interruption_exits_130_quietly(failing, capsys):
    failing(KeyboardInterrupt())
    assert main(["info", "w.h5"]) == 130
    assert capsys.readouterr() == ("", "")


def test_system_errors_name_the_file(failing, capsys):
    failing(PermissionError(13, "Permission denied", "w.h5"))
    assert main(["info", "w.h5"]) == 1
    assert error_line(capsys) == "mrcnn: error: w.h5: Permission denied"


@pytest.mark.skipif(os.name == "nt", reason="no such pipes")
def test_a_reader_that_leaves_is_no_error(tmp_path):
    weights = write_weights(tmp_path / "w.h5", config=Config().to_dict(), class_names=["x" * 200] * 4000)
    command = f"'{sys.executable}' -m mrcnn info --json '{weights}' | head -1"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("{\n", "")


# info


def test_info_tells_what_a_file_holds_without_a_framework(tmp_path):
    config = ShapesConfig().to_dict()
    path = write_weights(
        tmp_path / "w.h5", config=config, class_names=["BG", *KINDS], epoch=7, losses={"loss": 1.23456}
    )
    code = """
import sys
from mrcnn.cli import main
code = main(["info", sys.argv[1]])
print("imported:", *[m for m in ("keras", "tensorflow", "jax", "torch") if m in sys.modules])
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    lines = dict(line.split(":", 1) for line in done.stdout.splitlines())
    told = {name: value.strip() for name, value in lines.items()}
    assert told["imported"] == ""
    assert (
        told["backbone"] == "resnet14" and told["epoch"] == "7" and told["class names"] == "BG, square, disk, triangle"
    )
    assert told["classes"].startswith("4 ") and told["image size"] == "128 x 128 (square)"
    assert told["losses"] == "loss 1.235"


def test_info_as_json(tmp_path, capsys):
    path = write_weights(tmp_path / "w.h5", classes=3)
    assert main(["info", str(path), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["num_classes"] == 3 and values["config"] is None and values["path"] == str(path)


@pytest.mark.parametrize("content, told", [(b"", "empty"), (b"PK\x03\x04zip", "zip archive"), (b"<html>", "HTML")])
def test_info_refuses_other_files(tmp_path, content, told, capsys):
    path = tmp_path / "w.h5"
    path.write_bytes(content)
    assert main(["info", str(path)]) == 1
    assert told in error_line(capsys)


# Configuration from weights


def inference_config(path: Path, *arguments: str, monkeypatch, classes: str | None = None) -> SimpleNamespace:
    """The configuration and class names that a network of `path` would be built with."""
    from mrcnn.cli import configuration

    class Model:
        def __init__(self, mode, config, model_dir):
            self.mode, self.config, self.keras_model = mode, config, self

        def load_weights(self, path):
            self.path = path

    import mrcnn.model

    monkeypatch.setattr(mrcnn.model, "MaskRCNN", Model)
    network = configuration.load_network(str(path), [cli._setting(a) for a in arguments], classes, 0.25)
    return SimpleNamespace(config=network.model.config, names=network.class_names, known=network.names_known)


def test_stored_configuration_is_used_and_settings_override_it(tmp_path, monkeypatch):
    stored = {**ShapesConfig().to_dict(), "IMAGE_RESIZE_MODE": "crop"}
    path = write_weights(tmp_path / "w.h5", config=stored, class_names=["BG", *KINDS])
    found = inference_config(path, "DETECTION_NMS_THRESHOLD=0.2", monkeypatch=monkeypatch)
    config = found.config
    assert list(ShapesConfig.RPN_ANCHOR_SCALES) == config.RPN_ANCHOR_SCALES and config.BACKBONE == "resnet14"
    assert (config.DETECTION_MIN_CONFIDENCE, config.DETECTION_NMS_THRESHOLD, config.BATCH_SIZE) == (0.25, 0.2, 1)
    assert config.IMAGE_RESIZE_MODE == "pad64"  # not the random crops of training
    assert found.names == ("BG", *KINDS) and found.known


def test_files_without_configuration_are_deduced(tmp_path, monkeypatch, capsys):
    found = inference_config(write_weights(tmp_path / "w.h5"), monkeypatch=monkeypatch)
    assert (found.config.NUM_CLASSES, found.config.BACKBONE, found.config.TOP_DOWN_PYRAMID_SIZE) == (4, "resnet14", 96)
    assert found.names == ("BG", "class 1", "class 2", "class 3") and not found.known
    assert "stores no configuration" in capsys.readouterr().err
    path = write_weights(tmp_path / "coco.h5", classes=81)
    assert inference_config(path, monkeypatch=monkeypatch).names == COCO_NAMES
    found = inference_config(path, monkeypatch=monkeypatch, classes=",".join("x" * 80))
    assert found.names == ("BG", *("x" * 80)) and found.known


def test_fields_of_a_later_version_are_told_and_left_out(tmp_path, monkeypatch, capsys):
    path = write_weights(tmp_path / "w.h5", config={"NUM_CLASSES": 4, "BACKBONE": "resnet14", "WARP_DRIVE": 1})
    assert inference_config(path, monkeypatch=monkeypatch).config.NUM_CLASSES == 4
    assert "WARP_DRIVE" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--config", "IMAGE_MAX_DIMM=64"], "IMAGE_MAX_DIM"),
        (["--config", "IMAGE_MAX_DIM=100"], "Nearest: 64, 128"),
        (["--config", "BATCH_SIZE=2"], "IMAGES_PER_GPU"),
        (["--config", "VALIDATION_STEPS=two"], "whole number"),
        (["--classes", "a,b"], "must name the 3 classes"),
        (["--weights", "backbone.h5"], "backbone only"),
        (["--weights", "own.h5"], "a backbone of its own (my_backbone)"),
        (["--weights", "none.h5"], "There is no weights file none.h5"),
        (["--weights", "text.h5"], "not an HDF5 weights file"),
        (["--json", "nowhere/out.json"], "nowhere does not exist"),
        (["--output", "text.h5"], "text.h5"),
    ],
)
def test_users_mistakes_are_told_in_a_line(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "w.h5")
    write_weights(tmp_path / "backbone.h5", kind="backbone")
    write_weights(tmp_path / "own.h5", config={"BACKBONE": "my_backbone", "NUM_CLASSES": 4})
    (tmp_path / "text.h5").write_text("text")
    Image.new("RGB", (8, 8)).save("a.png")
    assert main(["detect", "a.png", "--weights", "w.h5", *arguments]) == 1
    assert told in error_line(capsys)
