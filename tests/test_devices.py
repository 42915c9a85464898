"""Devices are chosen before the framework starts, by Config and by the command line. The GPUs are made up; what becomes
of them is what the frameworks are told."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest
import tensorflow as tf
import torch

from mrcnn import cli, devices
from mrcnn.cli.configuration import stored_values
from mrcnn.config import Config, ConfigError
from mrcnn.devices import DeviceError, choose_devices
from mrcnn.model import MaskRCNN

SHARED = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "XLA_PYTHON_CLIENT_PREALLOCATE",
          "XLA_PYTHON_CLIENT_MEM_FRACTION", "KERAS_TORCH_DEVICE", "LOCAL_RANK")  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    monkeypatch.setattr(devices, "_chosen", {})
    for name in SHARED:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


@pytest.fixture
def tensorflow(monkeypatch):
    """TensorFlow with four GPUs, and what it is told."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    gpus = [f"GPU:{number}" for number in range(4)]
    told = {"visible": gpus}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda chosen, kind: told.update(visible=chosen))
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: told["visible"])
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda gpu, on: told.setdefault("growth", []).append(gpu)
    )
    monkeypatch.setattr(
        tf.config,
        "set_logical_device_configuration",
        lambda gpu, parts: told.setdefault("limits", {}).update({gpu: parts[0].memory_limit}),
    )
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: SimpleNamespace(stdout=f"{1000 * (1 + int(command[-1][-1]))}\n")
    )
    return told


def test_tensorflow_is_told_which_gpus_and_to_grow(tensorflow):
    choose_devices([1, 3], "growth")
    assert tensorflow == {"visible": ["GPU:1", "GPU:3"], "growth": ["GPU:1", "GPU:3"]}
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_tensorflow_is_told_a_share_in_megabytes(tensorflow, monkeypatch):
    choose_devices((0, 3), 0.5)
    assert tensorflow["limits"] == {"GPU:0": 500, "GPU:3": 2000}

    def missing(*_, **__):
        raise FileNotFoundError("no nvidia-smi")

    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(DeviceError, match=r"nvidia-smi does not tell \(no nvidia-smi\).*'growth'"):
        choose_devices(memory=0.25)


def test_none_is_the_cpu_alone_and_unset_is_all(tensorflow):
    choose_devices(None, None)
    assert len(tensorflow["visible"]) == 4
    choose_devices(())
    assert tensorflow["visible"] == []


def test_a_gpu_that_is_not_there_is_told(tensorflow):
    with pytest.raises(DeviceError, match="GPUS asks for GPU 0, 4, and TensorFlow finds 4, numbers 0 to 3.*nvidia-smi"):
        choose_devices([0, 4])


def test_too_late_is_told_but_the_same_again_is_fine(tensorflow, monkeypatch):
    choose_devices([1], "growth")

    def started(*_):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", started)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", started)
    choose_devices([1], "growth")
    with pytest.raises(DeviceError, match="TensorFlow has started already.*GPUS came too late.*choose_devices"):
        choose_devices([2], "growth")


def test_tensorflow_itself_refuses_after_its_start(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    tf.zeros(1)
    set_visible = tf.config.set_visible_devices  # the one device there is plays the GPU
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["CPU:0"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda chosen, kind: set_visible([], "CPU"))
    with pytest.raises(DeviceError, match="TensorFlow has started already"):
        choose_devices([0])


def test_a_model_chooses_its_configurations_devices(tmp_path):
    with pytest.raises(DeviceError, match="GPUS asks for GPU 99"):
        MaskRCNN("inference", Config.from_dict({"GPUS": (99,)}), tmp_path)


def test_weights_do_not_bring_the_devices_they_were_trained_on():
    stored = Config.from_dict({"GPUS": (3,), "GPU_MEMORY": 0.5, "GPU_COUNT": 2}).to_dict()
    values = stored_values(SimpleNamespace(config=stored, path="w.h5"))
    assert values["GPU_COUNT"] == 2 and not {"GPUS", "GPU_MEMORY"} & set(values)


@pytest.fixture
def jax_not_started(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(devices, "_jax_has_started", lambda: False)
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform="gpu")] * 2)


def test_jax_is_told_by_its_environment(jax_not_started, monkeypatch):
    choose_devices([1, 2], 0.5)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,2"
    assert os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.5"
    choose_devices(memory="growth")
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,GPU-abc")  # as a scheduler leaves it
    choose_devices([0, 2])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,GPU-abc"
    with pytest.raises(DeviceError, match="GPU 3, and CUDA_VISIBLE_DEVICES=4,GPU-abc finds 2"):
        choose_devices([3])


def test_jax_that_finds_fewer_or_has_started_is_told(jax_not_started, monkeypatch):
    with pytest.raises(DeviceError, match="GPUS asks for GPU 0, 1, 2, and JAX finds 2 of them"):
        choose_devices([0, 1, 2])
    monkeypatch.setattr(devices, "_jax_has_started", lambda: True)
    with pytest.raises(DeviceError, match="JAX has started already.*GPUS and GPU_MEMORY came too late"):
        choose_devices([0], 0.5)
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform="cpu")])
    choose_devices((), "growth")  # nothing to be told where there is no GPU


def test_each_process_of_pytorch_has_its_own_gpu(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.delitem(sys.modules, "keras.src.backend.torch.core", raising=False)
    told = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", told.append)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, gpu: told.append((share, gpu)))
    choose_devices([2, 0], 0.5)
    monkeypatch.setenv("LOCAL_RANK", "1")
    devices._chosen.clear()
    choose_devices([2, 0], "growth")
    assert told == ["cuda:2", (0.5, 0), (0.5, 1), (0.5, 2), "cuda:0"]
    assert os.environ["KERAS_TORCH_DEVICE"] == "cuda:0"


def test_pytorch_moves_keras_unless_it_has_started(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    core = SimpleNamespace(DEFAULT_DEVICE="cuda")
    monkeypatch.setitem(sys.modules, "keras.src.backend.torch.core", core)
    choose_devices(())
    assert core.DEFAULT_DEVICE == "cpu"
    devices._chosen.clear()
    core.DEFAULT_DEVICE = "cuda"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(DeviceError, match="PyTorch has started already"):
        choose_devices(())


@pytest.mark.parametrize(
    ("field", "value"),
    [("GPUS", "0,1"), ("GPUS", 0), ("GPUS", [-1]), ("GPUS", [0, 0]), ("GPUS", [True]), ("GPU_MEMORY", "grow"),
     ("GPU_MEMORY", 0), ("GPU_MEMORY", 1.5), ("GPU_MEMORY", True)],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(field, value):
    with pytest.raises(ConfigError, match=f"{field} must be None.*Received"):
        Config.from_dict({field: value})
    with pytest.raises(ValueError, match="must be None"):
        choose_devices(**{{"GPUS": "gpus", "GPU_MEMORY": "memory"}[field]: value})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--gpus", "0,1", "--memory-growth"], {"GPUS": (0, 1), "GPU_MEMORY": "growth"}),
        (["--gpus", "none"], {"GPUS": ()}),
        (["--memory-share", "0.5", "--config", "GPU_COUNT=2"], {"GPU_MEMORY": 0.5, "GPU_COUNT": 2}),
        ([], {}),
    ],
)
@pytest.mark.parametrize(
    "command",
    [["detect", "a.jpg", "--weights", "w.h5"], ["train", "--train", "a.json", "--images", "i"],
     ["evaluate", "a.json", "--images", "i", "--weights", "w.h5"], ["export", "w.h5", "out"]],
    ids=lambda command: command[0],
)  # fmt: skip
def test_the_command_line_sets_the_fields(command, arguments, expected, monkeypatch):
    seen = {}
    module = SimpleNamespace(run=lambda args: seen.update(dict(args.config)))
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: module)
    cli.main([*command, *arguments])
    assert seen == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "a"], "'a' is not numbers of GPUs, such as 0,1; nor none"),
        (["--gpus", "1,1"], "is not numbers of GPUs"),
        (["--memory-share", "0"], "0 is not above 0"),
        (["--memory-share", "0.5", "--memory-growth"], "not allowed with"),
    ],
)
def test_wrong_options_are_usage_errors(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["detect", "a.jpg", "--weights", "w.h5", *arguments])
    assert message in capsys.readouterr().err
