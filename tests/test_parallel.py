"""Two devices give what one gives: the same losses, the same weights. Devices are fixed when a framework starts, so the
two are those of a process of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

from mrcnn import parallel
from mrcnn.config import Config
from mrcnn.parallel import ParallelError, data_parallel
from mrcnn.parallel_model import ParallelModel
from tests import two_devices

BACKEND = keras.backend.backend()


def start(devices, result, fields, rank=0, port=0):
    """The program of `tests.two_devices`; on PyTorch one of as many processes as devices."""
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if BACKEND == "torch":
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(devices)}
        environment |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    arguments = [str(devices), str(result), *(f"{name}={value!r}" for name, value in fields.items())]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.two_devices", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def on_one_and_two(folder, fields):
    """What came of training on one device and on two, at the same time."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    ranks = range(2 if BACKEND == "torch" else 1)
    processes = [start(2, folder / "two.npz", fields, rank, port) for rank in ranks]
    if BACKEND == "jax":  # which only a process of its own can tell not to optimize
        processes.append(start(1, folder / "one.npz", fields))
    try:
        if BACKEND != "jax":
            np.savez(folder / "one.npz", **two_devices.train(1, **fields))
        for process in processes:
            told, _ = process.communicate(timeout=300)
            assert process.returncode == 0, told[-3000:]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    with np.load(folder / "one.npz") as one, np.load(folder / "two.npz") as two:
        return dict(one), dict(two)


@pytest.mark.backends
@pytest.mark.parametrize(
    "fields",
    [
        {"VALIDATION_STEPS": 0},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"TRAIN_BN": None}, marks=pytest.mark.slow),
        pytest.param({"EMA_DECAY": 0.5}, marks=pytest.mark.slow),
        pytest.param({"own_network": True}, marks=pytest.mark.slow),
    ],
    ids=lambda fields: ",".join(fields) or "validation",
)
def test_two_devices_train_as_one(tmp_path, fields):
    one, two = on_one_and_two(tmp_path, fields)
    assert set(one) == set(two)
    assert one["losses"].shape == (two_devices.STEPS, 6)
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("devices", "gpu_count", "count", "message"),
    [
        (
            ["GPU:0"],
            2,
            1,
            r"GPU_COUNT is 2.* 1 device here \(GPU:0\).*on 1, which takes the whole batch of 4",
        ),
        (["GPU:0", "GPU:1", "GPU:2"], 4, 2, "there are 3 devices here .*on 2, which each take 1/2 of the batch of 8"),
    ],
)
def test_fewer_devices_than_asked_for_are_told(monkeypatch, devices, gpu_count, count, message):
    monkeypatch.setattr(parallel, "list_devices", lambda: devices)
    monkeypatch.setattr(parallel, "_OnTensorFlow", lambda devices: devices)
    with pytest.warns(UserWarning, match=message):
        spread = data_parallel(Config.from_dict({"GPU_COUNT": gpu_count}))
    assert (spread.count if count == 1 else len(spread)) == count


def test_pytorch_has_a_process_for_each_device(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    config = Config.from_dict({"GPU_COUNT": 2})
    with pytest.warns(UserWarning, match="there is one process.*torchrun --nproc-per-node 2"):
        assert data_parallel(config).count == 1
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ParallelError, match="started 3 processes, and GPU_COUNT is 2. Set GPU_COUNT to 3"):
        data_parallel(config)


@pytest.fixture
def model():
    image = keras.Input((4,), name="image")
    features = keras.layers.Dense(3, name="features")(image)
    loss = keras.layers.Lambda(lambda x: keras.ops.mean(x), output_shape=())(features)
    return keras.Model(image, [features, loss])


@pytest.mark.backends
def test_parallel_model_concatenates_and_averages(model, tmp_path):
    with pytest.warns(UserWarning, match="gpu_count is 3, and this process uses 1 "):
        split = ParallelModel(model, 3)
    assert split.inner_model is model
    assert [layer.name for layer in split.layers] == [layer.name for layer in model.layers]
    images = np.arange(24, dtype=np.float32).reshape(6, 4)
    for found, expected in zip(split(images), model(images), strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found), keras.ops.convert_to_numpy(expected), rtol=1e-5)
    split.save_weights(tmp_path / "w.weights.h5")
    before = split.get_weights()
    model.get_layer("features").set_weights([np.zeros((4, 3)), np.zeros(3)])
    split.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_parallel_model_refuses_what_it_cannot_split(model):
    with pytest.raises(ValueError, match="gpu_count must be a whole number of at least 1. Received: 0"):
        ParallelModel(model, 0)
    with pytest.raises(ValueError, match="must be a functional model"):
        ParallelModel(keras.Model(), 2)
    model.data_parallel = parallel.DataParallel()
    with pytest.raises(ValueError, match="leave ParallelModel out, and set GPU_COUNT"):
        ParallelModel(model, 2)
