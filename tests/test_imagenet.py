"""ImageNet weights of backbones of keras.applications: fetched, loaded, refused. From a server of ours alone."""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import layers, ops

from mrcnn import downloads, imagenet
from mrcnn.cli import main
from mrcnn.cli import training as command
from mrcnn.config import Config
from mrcnn.downloads import DownloadError
from mrcnn.imagenet import _first_kernel, fetch_imagenet, load_application
from mrcnn.layers.keras_backbone import application
from mrcnn.model import MaskRCNN
from mrcnn.weights import WeightsError
from tests.command_line import settings
from tests.shapes import Shapes, ShapesConfig
from tests.test_downloads import server  # noqa: F401
from tests.test_keras_backbones import SMALLEST, config_of, network_of, stir


@cache
def payload_of():
    """A file as Keras releases it, without top, and the network that it is of."""
    network = application(SMALLEST, 3)
    stir(network, np.random.default_rng(3))
    return network


def write_notop(path, network):
    """The weights in the layout of the released files: a whole model's, one level up."""
    network.save(path.with_suffix(".whole.h5"))
    with h5py.File(path.with_suffix(".whole.h5")) as whole, h5py.File(path, "w") as file:
        for key, value in whole["model_weights"].attrs.items():
            file.attrs[key] = value
        for key in whole["model_weights"]:
            whole.copy(whole["model_weights"][key], file, key)
    return path


@pytest.fixture(scope="module")
def payload(tmp_path_factory):
    return write_notop(tmp_path_factory.mktemp("released") / "w.h5", payload_of()).read_bytes()


@pytest.fixture
def released(server, monkeypatch, tmp_path):  # noqa: F811
    """The file on a server of ours, with its hash, for an empty cache."""
    module = sys.modules[getattr(keras.applications, SMALLEST).__module__]
    monkeypatch.setattr(module, "BASE_WEIGHT_PATH", f"{server.base}/")
    digest = hashlib.md5(server.payload).hexdigest()
    monkeypatch.setitem(module.WEIGHTS_HASHES, "small_224_1.0_float", ("", digest))
    monkeypatch.setenv("MRCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "_BACKOFF_S", 0.01)
    return server


def held(network):
    return {
        f"{layer.name}/{weight.name}": ops.convert_to_numpy(weight)
        for layer in network.layers
        for weight in layer.weights
    }


def test_imagenet_is_fetched_once_and_loaded(released, tmp_path):
    config = config_of()
    model = MaskRCNN("inference", config, tmp_path)
    heads = held(model.keras_model)
    before = keras.utils.get_file
    report = model.load_weights("imagenet", by_name=True)
    assert report.complete and report.parameters == payload_of().count_params() and not report.adapted
    assert len(released.requests) == 1
    for key, array in held(model.keras_model).items():
        layer, _, weight = key.partition("/")
        expected = heads[key]
        if layer in report.loaded:
            (expected,) = [w for w in payload_of().get_layer(layer).weights if w.name == weight]
        np.testing.assert_array_equal(array, ops.convert_to_numpy(expected))
    path = Path(model.get_imagenet_weights())
    assert path.name == "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5" and path.parent == tmp_path / "cache"
    assert len(released.requests) == 1
    assert keras.utils.get_file is before and sys.modules[before.__module__].get_file is before
    excluded = model.load_weights(path, by_name=True, exclude=["conv", "mrcnn_mask"])
    assert "conv" not in excluded.loaded and excluded.excluded == ("conv", "mrcnn_mask")


def test_imagenet_without_a_network(released, monkeypatch, tmp_path):
    config, network = network_of()
    monkeypatch.setenv("MRCNN_OFFLINE", "1")
    says = f"imagenet for keras:{SMALLEST}: .*not there, and downloads are off.*Put the file from http://127.*v2.h5 at"
    with pytest.raises(DownloadError, match=says):
        fetch_imagenet(config)
    assert not released.requests
    monkeypatch.delenv("MRCNN_OFFLINE")
    released.payload = released.payload[:-1] + b"?"
    with pytest.raises(DownloadError, match="its MD5 is .* instead of|truncated or damaged"):
        load_application(network, config, "imagenet")
    released.plans = [{"status": 404}]
    with pytest.raises(DownloadError, match="answers 404"):
        fetch_imagenet(config)


def test_files_of_other_networks_are_refused_whole(tmp_path):
    config, network = network_of()
    other = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3), layers.BatchNormalization()])
    path = write_notop(tmp_path / "other.h5", other)
    before = held(network)
    says = f"other.h5 is no file of keras.applications.{SMALLEST} without its top.*Layer count"
    with pytest.raises(WeightsError, match=says):
        load_application(network, config, path)
    broken = application(SMALLEST, 3)
    broken.get_layer("conv_bn").gamma.assign(np.full(16, np.nan))
    with pytest.raises(WeightsError, match="conv_bn/gamma holds NaN or infinity in .*broken.h5"):
        load_application(network, config, write_notop(tmp_path / "broken.h5", broken))
    for key, array in held(network).items():
        np.testing.assert_array_equal(array, before[key])
    with pytest.raises(WeightsError, match="exclude names 'convv', of which the network has no layers"):
        load_application(network, config, tmp_path / "broken.h5", ["convv", "mrcnn_bbox"])
    assert load_application(network, ShapesConfig(), "imagenet") is None
    assert load_application(network, config, "coco") is None


def test_the_first_kernel_is_for_the_configurations_images(rng):
    kernel = rng.normal(size=(3, 3, 3, 4)).astype(np.float32)
    same, told = _first_kernel(kernel, config_of(), SMALLEST)
    assert same is kernel and told == ""
    turned, told = _first_kernel(kernel, config_of("ResNet50"), "ResNet50")
    np.testing.assert_array_equal(turned, kernel[:, :, ::-1])
    assert told == "the order of channels turned round, to rgb"
    blue = {"IMAGE_CHANNEL_ORDER": "bgr"}
    assert _first_kernel(kernel, config_of("ResNet50", **blue), "ResNet50")[0] is kernel
    np.testing.assert_array_equal(_first_kernel(kernel, config_of(**blue), SMALLEST)[0], kernel[:, :, ::-1])
    gray, told = _first_kernel(kernel, config_of(IMAGE_CHANNEL_COUNT=1), SMALLEST)
    np.testing.assert_allclose(gray[:, :, 0], kernel.sum(axis=2), rtol=1e-6)
    assert told == "3 channels (RGB) to 1, the kernels of red, green and blue were summed"


def test_training_from_imagenet_on_the_command_line(released, tmp_path, monkeypatch, capsys):
    """`--weights imagenet` takes the backbone's own."""
    seen = []
    monkeypatch.setattr(MaskRCNN, "load_weights", lambda self, name, *a, **k: seen.append((self.config.BACKBONE, name)))
    monkeypatch.setattr(MaskRCNN, "train", lambda self, *a, **k: None)
    monkeypatch.setattr(command, "_datasets", lambda args: (Shapes(2, size=64), None))
    options = ["--weights", "imagenet", "--logs", str(tmp_path), "--config", *settings(BACKBONE=f"keras:{SMALLEST}")]
    argv = ["train", "--train", "any.json", *options]
    assert main(argv) == 0
    assert seen == [(f"keras:{SMALLEST}", "imagenet")]
    assert not released.requests
    assert main([*argv, "BACKBONE=keras:MobileNetV3Smal"]) == 1
    assert "Did you mean 'keras:MobileNetV3Small'" in capsys.readouterr().err


def test_imagenet_of_a_resnet_is_that_of_its_recipe(monkeypatch):
    monkeypatch.setattr(imagenet, "find_weights", lambda name: name)
    assert fetch_imagenet(Config()) == "imagenet"
    assert fetch_imagenet(Config.modern()()) == "torchvision/resnet50_imagenet1k_v2"
