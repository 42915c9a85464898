"""`mrcnn train`: its options of optimization, what a stopped run says, and going on with it."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path

import h5py
import pytest

from mrcnn.cli import main
from mrcnn.cli.optimization import resume_command
from mrcnn.interrupts import TrainingInterrupted
from tests.command_line import error_line, settings, write_weights
from tests.shapes import KINDS, ShapesConfig
from tests.test_cli_commands import Trained, shapes  # noqa: F401


class Stopping(Trained):
    """Stands in for MaskRCNN; training is stopped by a signal."""

    signal: int | None = None

    def __init__(self, mode, config, model_dir):
        super().__init__(mode, config, model_dir)
        self.model_dir, self.log_dir = str(model_dir), f"{model_dir}/my run"

    def train(self, train_set, val_set, **options):
        self.options = options
        if self.signal is not None:
            raise TrainingInterrupted("Stopped.", f"{self.log_dir}/mask_rcnn_x_0003_step000007.h5", self.signal)


@pytest.fixture
def train(shapes, monkeypatch):  # noqa: F811
    import mrcnn.model

    monkeypatch.setattr(mrcnn.model, "MaskRCNN", Stopping)
    monkeypatch.setattr(Stopping, "signal", None)

    def run(*arguments: str) -> tuple[int, Stopping]:
        code = main(["train", "--train", shapes.annotations, "--images", str(shapes.folder), *arguments])
        return code, Stopping.last

    return run


def checkpoint(logs: Path, time: str, file: str, plan: list, name: str = "shapes") -> Path:
    folder = logs / f"{name}{time}"
    folder.mkdir(parents=True, exist_ok=True)
    stored = {**ShapesConfig().to_dict(), "NAME": name, "LEARNING_RATE_SCHEDULE": "cosine", "STEPS_PER_EPOCH": 77}
    told = {"config": stored, "class_names": ["BG", *KINDS], "epoch": 3, "training": {"plan": plan}}
    path = write_weights(folder / file, **told)
    with h5py.File(path, "a") as opened:
        opened.create_group("optimizer_weights")
    return path


def test_options_are_fields_and_stages(train):
    code, model = train(
        *("--weights", "none", "--stages", "heads:10:1e-3,all:20", "--optimizer", "AdamW", "--schedule", "cosine"),
        *("--warmup", "5", "--accumulate", "4", "--ema", "0.99", "--precision", "bf16", "--save-every", "50"),
        *("--learning-rate", "0.5", "--config", "EMA_DECAY=0.5"),
    )
    assert code == 0
    wanted = {
        "OPTIMIZER": "AdamW", "LEARNING_RATE_SCHEDULE": "cosine", "WARMUP_STEPS": 5, "GRADIENT_ACCUMULATION": 4,
        "EMA_DECAY": 0.5, "PRECISION": "mixed_bfloat16", "SAVE_EVERY": 50,
    }  # fmt: skip
    assert model.config.to_dict().items() >= wanted.items()
    options = {"layers": [("heads", 10, 1e-3), ("all", 20, None)], "epochs": None, "learning_rate": 0.5}
    assert model.options.items() >= options.items()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_to_go_on(train, monkeypatch, capsys, number, code):
    monkeypatch.setattr(Stopping, "signal", number)
    found, _ = train("--weights", "none", "--logs", "my logs")
    assert found == code
    told = capsys.readouterr().err
    assert "stopped, and saved to my logs/my run/mask_rcnn_x_0003_step000007.h5. To go on: mrcnn train --train" in told
    again = shlex.split(told.partition("To go on: ")[2])
    assert again[-4:] == ["--logs", "my logs", "--resume", "my logs/my run"]


@pytest.mark.parametrize(
    "before", [["--a", "b"], ["--resume", "--a", "b"], ["--a", "b", "--resume"], ["--resume", "x", "--a", "b"],
               ["--resume=x", "--a", "b"]],
)  # fmt: skip
def test_the_command_that_goes_on(before):
    assert resume_command(before, "a run") == "mrcnn --a b --resume 'a run'"


def test_resume_takes_the_newest_run_with_its_settings_and_plan(train, tmp_path, capsys):
    plan = [{"layers": "heads", "end": 5, "rate": 0.1}, {"layers": "all", "end": 9, "rate": 0.01}]
    checkpoint(tmp_path, "20260101T1200", "mask_rcnn_shapes_0008.h5", [])
    checkpoint(tmp_path, "20260102T1200", "mask_rcnn_shapes_0003.h5", plan)
    newest = checkpoint(tmp_path, "20260102T1200", "mask_rcnn_shapes_0003_step000007.h5", plan)
    code, model = train("--resume", "--name", "shapes", "--logs", str(tmp_path))
    assert code == 0 and model.calls == [("load", str(newest), ())]
    assert model.model_dir == str(tmp_path)
    assert (model.config.LEARNING_RATE_SCHEDULE, model.config.STEPS_PER_EPOCH) == ("cosine", 77)
    assert model.options["layers"] == [("heads", 5, 0.1), ("all", 9, 0.01)] and model.options["epochs"] is None
    assert f"going on from {newest}" in capsys.readouterr().err
    # What is given over again holds; --logs is that of the run.
    _, model = train("--resume", str(newest.parent), "--epochs", "20", "--schedule", "step", "--logs", "elsewhere")
    assert (model.model_dir, model.options["epochs"]) == (str(tmp_path), 20)
    assert model.config.LEARNING_RATE_SCHEDULE == "step"
    _, model = train("--resume", str(newest), "--layers", "4+")
    assert (model.options["layers"], model.options["epochs"]) == ("4+", 10)


def test_resume_of_one_stage_keeps_its_layers(train, tmp_path):
    path = checkpoint(tmp_path, "20260101T1200", "mask_rcnn_shapes_0003.h5", [{"layers": "5+", "end": 7, "rate": 0.2}])
    _, model = train("--resume", str(path))
    options = model.options
    assert (options["layers"], options["epochs"], options["learning_rate"]) == ("5+", 7, 0.2)


def test_resume_without_a_run_starts_one(train, tmp_path, capsys):
    code, model = train("--resume", "--weights", "none", "--logs", str(tmp_path))
    assert code == 0 and model.calls == [] and model.options["epochs"] == 10
    assert f"no run of 'mrcnn' in {tmp_path} to go on with: a new one starts" in capsys.readouterr().err


def test_runs_that_cannot_be_resumed(train, tmp_path, shapes, capsys):  # noqa: F811
    (tmp_path / "shapes20260101T1200").mkdir()
    assert train("--resume", str(tmp_path / "shapes20260101T1200"))[0] == 1
    assert "No checkpoint (mask_rcnn*.h5)" in error_line(capsys)
    assert train("--resume", str(tmp_path / "nowhere"))[0] == 1
    assert "--resume needs a run's folder (NAMEyyyymmddThhmm) or a checkpoint in it" in error_line(capsys)
    path = checkpoint(tmp_path, "20260103T1200", "mask_rcnn_shapes_0003.h5", [])
    truth = json.loads(Path(shapes.annotations).read_text())
    for category in truth["categories"]:
        category["name"] += "s"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(truth))
    assert train("--resume", str(path), "--train", str(other))[0] == 1
    assert "is no checkpoint of a run 'shapes' on the classes of" in error_line(capsys)
    assert train("--weights", "none", "--stages", "all:3", "--layers", "all")[0] == 1
    assert "--stages and --layers say the same" in error_line(capsys)


@pytest.mark.parametrize(
    "arguments", [["--stages", "all"], ["--ema", "1"], ["--precision", "int8"], ["--save-every", "0"]]
)
def test_wrong_options_are_refused(train, arguments, capsys):
    with pytest.raises(SystemExit) as left:
        train(*arguments)
    assert left.value.code == 2 and arguments[0] in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_is_stopped_and_resumed_for_true(shapes, tmp_path, monkeypatch, capsys):  # noqa: F811
    from mrcnn.resuming import Course

    monkeypatch.chdir(tmp_path)
    took, on_train_batch_end = [], Course.on_train_batch_end

    def stop_once(self, batch, logs=None):
        took.append(self.begun + batch)
        if len(took) == 2:
            signal.raise_signal(signal.SIGINT)
        on_train_batch_end(self, batch, logs)

    monkeypatch.setattr(Course, "on_train_batch_end", stop_once)
    argv = ["train", "--train", shapes.annotations, "--images", str(shapes.folder), "--weights", "none", "--stages"]
    argv += ["heads:1:1e-3,all:2:1e-4", "--preflight", "0", "--config", *settings(STEPS_PER_EPOCH=3)]
    assert main(argv) == 130
    command = capsys.readouterr().err.partition("To go on: mrcnn ")[2]
    (saved,) = Path("logs").glob("mrcnn*/mask_rcnn*.h5")
    assert saved.name == "mask_rcnn_mrcnn_0000_step000002.h5"
    assert main(shlex.split(command)) == 0
    assert took == [0, 1, 2, 0, 1, 2]
    assert {path.name for path in saved.parent.glob("mask_rcnn*")} == {
        "mask_rcnn_mrcnn_0001.h5",
        "mask_rcnn_mrcnn_0002.h5",
    }
