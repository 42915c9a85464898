"""docs/interop.md: its code runs as it stands there, block after block in one namespace."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.engines.base import EngineError
from mrcnn.graph.network import network_graph
from mrcnn.network import build_network
from tests.shapes import Shapes, ShapesConfig

PAGE = Path(__file__).parents[1] / "docs" / "interop.md"
BACKEND = keras.backend.backend()
# The last block of its section trains: minutes on JAX.
TRAINS = "Trained and run like any other"


class PartsConfig(ShapesConfig):
    NAME = "parts"
    IMAGES_PER_GPU = 2
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (8, 16, 24, 32, 48)
    STEPS_PER_EPOCH = 2
    TOP_DOWN_PYRAMID_SIZE = RPN_CONV_SIZE = FPN_CLASSIF_FC_LAYERS_SIZE = 16
    MASK_CONV_SIZE = 8
    MASK_HEAD_POSITIVES_ONLY = False
    VALIDATION_STEPS = 0
    USE_RPN_ROIS = False  # ROIs about the objects: some are positive, though nothing is learned yet


def blocks():
    """(where it stands, what stands before it, the code) of each block of Python for this backend."""
    found = []
    text = PAGE.read_text(encoding="utf-8")
    for match in re.finditer(r"(?:<!-- (\w+) -->\n)?```python\n(.*?)```", text, re.S):
        if match[1] in (None, BACKEND):
            before = text[: match.start()]
            found.append((before.count("\n") + 1, before.rstrip().rpartition("\n")[2], match[2]))
    return found


def run(code, line, namespace):
    # Empty lines, so that an error tells the line of the page.
    exec(compile("\n" * line + code, str(PAGE), "exec"), namespace)


@pytest.fixture(scope="module")
def page():
    """What the page defines."""
    namespace = {"PartsConfig": PartsConfig, "train": Shapes(4, size=64), "val": Shapes(2, size=64), "np": np}
    for line, before, code in blocks():
        if not before.startswith(TRAINS):
            run(code, line, namespace)
    return namespace


@pytest.mark.backends
def test_a_layer_of_ops(page, rng):
    layer = page["ChannelAttention"](reduction=2)
    x = rng.normal(size=(2, 3, 5, 4)).astype(np.float32)
    found = ops.convert_to_numpy(layer(x))
    squeeze, excite = (ops.convert_to_numpy(w) for w in layer.weights)
    weights = 1 / (1 + np.exp(-np.maximum(x.mean(axis=(1, 2)) @ squeeze, 0) @ excite))
    np.testing.assert_allclose(found, x * weights[:, None, None], atol=1e-5)
    assert page["ChannelAttention"].from_config(layer.get_config()).reduction == 2


@pytest.mark.backends
def test_a_derived_layer(page, rng):
    layer = page["StandardizedConv2D"](3, 3, padding="same", bias_initializer="ones")
    x = rng.normal(size=(1, 6, 7, 2)).astype(np.float32)
    found = ops.convert_to_numpy(layer(x))
    kernel = ops.convert_to_numpy(layer.kernel)
    kernel = (kernel - kernel.mean(axis=(0, 1, 2))) / np.sqrt(kernel.var(axis=(0, 1, 2)) * 18 + 1e-5)
    plain = keras.layers.Conv2D(3, 3, padding="same")
    plain.build(x.shape)
    plain.set_weights([kernel, np.ones(3)])
    np.testing.assert_allclose(found, ops.convert_to_numpy(plain(x)), atol=1e-4)


@pytest.mark.backends
def test_a_layer_of_the_backends_own_op(page, rng):
    """The same numbers on all backends."""
    x = rng.normal(0, 5, (2, 3, 4, 7)).astype(np.float32)
    padded = np.pad(x**2, [(0, 0)] * 3 + [(2, 2)])
    energy = sum(padded[..., i : i + 7] for i in range(5))
    found = page["LocalNormalization"]()(x)
    np.testing.assert_allclose(ops.convert_to_numpy(found), x / (1 + 0.01 * energy) ** 0.75, rtol=1e-5)


@pytest.mark.backends
def test_a_loss_and_its_lack_of_objects(page, rng):
    target = (rng.random((1, 3, 4, 4)) > 0.5).astype(np.float32)
    masks = rng.random((1, 3, 4, 4, 3)).astype(np.float32)
    loss = page["DiceLoss"]()
    classes = np.array([[2, 0, 1]], np.int32)
    dice = [
        1 - (2 * (t * m).sum() + 1) / ((t + m).sum() + 1)
        for t, m in ((target[0, 0], masks[0, 0, ..., 2]), (target[0, 2], masks[0, 2, ..., 1]))
    ]
    assert float(ops.convert_to_numpy(loss(target, classes, masks))) == pytest.approx(np.mean(dice), abs=1e-5)
    assert float(ops.convert_to_numpy(loss(target, 0 * classes, masks))) == 0


def test_a_network_of_keras_applications(page, tmp_path):
    """Builds, saves, loads, and has an ONNX form."""
    model = page["MaskRCNN"]("inference", page["MobileConfig"](), tmp_path)
    nested = model.keras_model.get_layer("mobilenet")
    assert nested.outputs[-1].shape[-1] == 1280
    saved = [ops.convert_to_numpy(weight) for weight in nested.weights]
    model.save_weights(tmp_path / "mobile.h5")
    for weight in nested.weights:
        weight.assign(np.zeros(weight.shape))
    model.load_weights(tmp_path / "mobile.h5")
    for weight, value in zip(nested.weights, saved, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)
    assert network_graph(model.keras_model, model.config).graph.node


def test_what_cannot_be_written_as_onnx_is_named(page):
    config = page["OwnConfig"]()
    with pytest.raises(EngineError, match=r"'res1_conv' \(StandardizedConv2D\) has no ONNX form.*keras runs any"):
        network_graph(build_network(config, "inference"), config)


def test_own_augmentation(page):
    image, masks = page["train"].load_image(0), page["train"].load_mask(0)[0]
    changed, moved = page["augmentation"](image, masks, np.random.default_rng(3))
    assert (changed != image).any()
    assert moved.shape == masks.shape


def test_own_backbone_loss_and_head_train_and_detect(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # which the page's model_dir is in
    built = {}

    class Watched(page["FillMaskRCNN"]):
        def build(self, mode, config):
            network = built[mode] = super().build(mode, config)
            if mode == "training":
                built["before"] = ops.convert_to_numpy(network.get_layer("mrcnn_fill").kernel)
            return network

    (block,) = [(code, line) for line, before, code in blocks() if before.startswith(TRAINS)]
    namespace = {**page, "FillMaskRCNN": Watched}
    run(*block, namespace)
    network = built["training"]
    assert type(network.get_layer("mrcnn_mask_loss")).__name__ == "DiceLoss"
    history = network.history.history
    assert all(np.isfinite(values).all() for values in history.values())
    assert 0 < history["mrcnn_mask_loss"][0] < 1
    after = ops.convert_to_numpy(network.get_layer("mrcnn_fill").kernel)
    assert np.abs(after - built["before"]).max() > 0
    loaded = built["inference"].get_layer("mrcnn_fill").kernel
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded), after)
    config = namespace["model"].config
    assert set(namespace["result"]) >= {"rois", "class_ids", "scores", "masks"}
    assert namespace["fill"].shape == (1, config.DETECTION_MAX_INSTANCES)
    assert ((namespace["fill"] >= 0) & (namespace["fill"] <= 1)).all()
