"""Backbones of keras.applications: found levels, names, weights, training and export; and Keras's own files."""

from __future__ import annotations

from functools import cache

import keras
import numpy as np
import pytest
from keras import layers, ops

from mrcnn import training
from mrcnn.applications import APPLICATIONS
from mrcnn.cli import CommandError, main
from mrcnn.cli.configuration import make_config, stored_values
from mrcnn.config import Config, ConfigError
from mrcnn.engines import onnxruntime_engine, openvino_engine
from mrcnn.folding import fold_batch_norm
from mrcnn.layers import keras_backbone
from mrcnn.layers.keras_backbone import BackboneError, application, pyramid_levels, stable_names, weighted_layers
from mrcnn.layers.normalization import BatchNorm
from mrcnn.model import MaskRCNN
from mrcnn.network import _features, build_network
from mrcnn.stage_layers import layers_from_stage
from mrcnn.weights import inspect_weights, load_weights, save_weights
from mrcnn.weights.keras_applications import convert as convert_file
from tests import golden
from tests.graph.cases import check, graph_bytes, inputs, keras_raw, pictures
from tests.running import call
from tests.shapes import Shapes, ShapesConfig
from tests.test_training import untraced  # noqa: F401

SMALLEST = "MobileNetV3Small"


def config_of(name=SMALLEST, **changes):
    size = {"IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 64, "RPN_ANCHOR_SCALES": [8, 16, 24, 32, 48], "IMAGES_PER_GPU": 2}
    return ShapesConfig.from_dict({"BACKBONE": f"keras:{name}", **size, **changes})


def fill(network, seed=0):
    """Weights with which values neither vanish nor explode on the way."""
    rng = np.random.default_rng(seed)
    golden.fill_small(network, seed)
    for layer in network.layers:
        if isinstance(layer, layers.DepthwiseConv2D):
            height, width = layer.kernel_size
            layer.kernel.assign(rng.normal(0, np.sqrt(2 / height / width), layer.kernel.shape))
    stir(network, rng)


def stir(model, rng):
    """Statistics and scales that differ, around what keeps a network's values where they are."""
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.7, 1.3, weight.shape))
        elif len(weight.shape) == 1:
            weight.assign(rng.normal(0, 0.1, weight.shape))


@cache
def network_of(mode="inference", **changes):
    config = config_of(**changes)
    network = build_network(config, mode, training.TrainingModel if mode == "training" else keras.Model)
    fill(network)
    return config, network


# Levels and names


def test_the_table_is_what_keras_has():
    """Its names, and of those that do not scale images themselves what they want."""
    there = {
        name for name in dir(keras.applications)
        if callable(getattr(keras.applications, name)) and name[0].isupper()
    }  # fmt: skip
    assert there == set(APPLICATIONS)
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (1, 3, 4, 3)).astype(np.float32)
    inside = []
    for name, pixels in APPLICATIONS.items():
        module = getattr(keras.applications, getattr(keras.applications, name).__module__.rpartition(".")[2])
        wanted = module.preprocess_input(image.copy())
        if np.array_equal(wanted, image):
            inside.append(name)
            continue
        found = (image - pixels.mean) / pixels.std
        np.testing.assert_allclose(found[..., ::-1] if pixels.blue_first else found, wanted, atol=1e-4)
    assert all(name.startswith(("EfficientNet", "ConvNeXt", "MobileNetV3")) for name in inside)


@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetV2B0"])
def test_what_is_left_out_is_in_the_means(name):
    """The layers that scale images, in networks that have such."""
    whole = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(64, 64, 3))
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    last = [layer for layer in whole.layers if isinstance(layer, layers.Rescaling | layers.Normalization)][-1]
    scaled = ops.convert_to_numpy(keras.Model(whole.input, last.output)(image))
    pixels = APPLICATIONS[name]
    np.testing.assert_allclose((image - pixels.mean) / pixels.std, scaled, atol=1e-4)


LEVELS = {
    "MobileNetV2": ["block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu", "out_relu"],
    "ResNet50V2": ["conv2_block2_out", "conv3_block3_out", "conv4_block5_out", "post_relu"],
    "EfficientNetV2B0": ["block2b_add", "block4a_expand_activation", "block6a_expand_activation", "top_activation"],
}


@pytest.mark.parametrize("name", LEVELS)
def test_levels_are_the_last_before_the_size_changes(name):
    found = pyramid_levels(application(name, 3))
    assert [tensor._keras_history.operation.name for tensor in found] == LEVELS[name]
    assert [tensor.shape[1:3] for tensor in found] == [(672 // s, 736 // s) for s in (4, 8, 16, 32)]


def check_features(name, channels, rng, monkeypatch):
    """C2..C5 of the copy against Keras's own network; and in an image of another size."""
    monkeypatch.setattr(keras_backbone, "_HEIGHT", 352)
    monkeypatch.setattr(keras_backbone, "_WIDTH", 416)
    theirs = application(name, channels)
    stir(theirs, rng)
    image = keras.Input((None, None, channels))
    ours = keras.Model([image], _features(config_of(name, IMAGE_CHANNEL_COUNT=channels), image))
    given = {layer.name: layer for layer in ours.layers if layer.weights}
    for layer_name, layer in weighted_layers(theirs).items():
        for mine, other in zip(given.pop(layer_name).weights, layer.weights, strict=True):
            mine.assign(other)
    assert not given and len(ours.weights) == len(theirs.weights)
    peer = keras.Model([theirs.input], pyramid_levels(theirs))
    x = rng.normal(0, 1, (1, 352, 416, channels)).astype(np.float32)
    for mine, other, stride in zip(call(ours, [x]), call(peer, [x]), (4, 8, 16, 32), strict=True):
        assert mine.shape == other.shape == (1, 352 // stride, 416 // stride, other.shape[-1])
        assert other.std() > 0 and np.abs(mine - other).max() <= 1e-4 * np.abs(other).max()
    assert [tensor.shape[1:3] for tensor in ours.compute_output_spec(keras.KerasTensor((1, 64, 32, channels)))] == [
        (64 // stride, 32 // stride) for stride in (4, 8, 16, 32)
    ]


@pytest.mark.backends
@(pytest.mark.slow if keras.backend.backend() == "jax" else pytest.mark.backends)  # compiles for half a minute
def test_features_are_those_of_the_network_itself(rng, monkeypatch):
    check_features(SMALLEST, 3, rng, monkeypatch)


def test_features_of_nested_layers_and_of_gray_images(rng, monkeypatch):
    check_features("ConvNeXtTiny", 1, rng, monkeypatch)


def test_features_are_those_of_keras(tmp_path):
    """C2..C5 of our ResNet-50 with a file that Keras wrote of its own."""
    theirs = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(64, 96, 3))
    rng = np.random.default_rng(1)
    for weight in theirs.weights:
        spread = {"gamma": 0.3, "moving_variance": 0.3}.get(weight.name)
        if spread:
            weight.assign(rng.uniform(1 - spread, 1 + spread, weight.shape))
        elif weight.name != "kernel":
            weight.assign(rng.normal(0, 0.1, weight.shape))
    path = tmp_path / "resnet50_notop.weights.h5"
    theirs.save_weights(path)
    found = convert_file(path)
    config = Config.from_dict(found.fields)
    image = keras.Input((None, None, 3))
    ours = keras.Model([image], _features(config, image))
    for layer in ours.layers:
        for weight in layer.weights:
            weight.assign(found.arrays[layer.name][weight.name])
    assert {layer.name for layer in ours.layers if layer.weights} == set(found.arrays)
    photo = rng.integers(0, 256, (1, 64, 96, 3)).astype(np.float32)
    molded = (photo - config.MEAN_PIXEL) / config.STD_PIXEL
    ends = [f"conv{stage}_block{block}_out" for stage, block in ((2, 3), (3, 4), (4, 6), (5, 3))]
    peer = keras.Model([theirs.input], [theirs.get_layer(name).output for name in ends])
    expected = call(peer, [keras.applications.resnet.preprocess_input(photo.copy())])
    for mine, other in zip(call(ours, [molded]), expected, strict=True):
        assert mine.shape == other.shape and other.std() > 0.01
        assert np.abs(mine - other).max() <= 1e-4 * np.abs(other).max()


def test_names_are_stable_and_unique():
    """Whatever was built before; and those of all layers with weights."""
    _, network = network_of()
    names = [layer.name for layer in network.layers]
    assert len(set(names)) == len(names)
    assert {"conv", "conv_bn", "expanded_conv_project", "fpn_c2p2", "rpn_model"} <= set(names)
    numbered = {name for name in names if name.startswith("backbone_")}
    assert {"backbone_activation_0", "backbone_re_lu_0"} <= numbered
    assert not [layer.name for layer in network.layers if layer.name in numbered and layer.weights]
    layers.ReLU(), layers.Rescaling(2.0), layers.ZeroPadding2D()  # which Keras counts
    image = keras.Input((64, 64, 3))
    again = [layer.name for layer in keras.Model(image, _features(config_of(), image)).layers][1:]
    assert again == names[1 : len(again) + 1] or set(again) <= set(names)
    assert "backbone_layer_normalization_0" in stable_names(application("ConvNeXtTiny", 3)).values()


def test_without_the_strides_it_is_refused():
    says = "has feature maps of the strides 8, 16, 32, and .* 4, 8, 16 and 32. Its other .*672 x 736: 335 x 367"
    with pytest.raises(ConfigError, match=f"BACKBONE 'keras:Xception' will not do: xception {says}"):
        build_network(config_of("Xception"), "inference")


def test_strides_of_networks_made_up():
    image = keras.Input((672, 736, 3))
    x = image
    for stride in (2, 2, 2, 2):
        x = layers.Conv2D(3, 3, strides=stride, padding="same")(x)
    with pytest.raises(BackboneError, match="strides 2, 4, 8, 16, and a feature pyramid is made of .* 16 and 32.$"):
        pyramid_levels(keras.Model(image, x))
    with pytest.raises(BackboneError, match=r"strides \(none\)"):
        pyramid_levels(keras.Model(image, layers.Conv2D(1, 3)(image)))
    with pytest.raises(BackboneError, match="keras.applications of Keras .* has no NoSuchNet"):
        application("NoSuchNet", 3)


# Normalization, training


def norms_of(network):
    return [layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)]


@pytest.mark.parametrize(("train_bn", "norm"), [(None, "batch"), (True, "batch"), (None, "frozen"), (False, "group")])
def test_batch_normalization_is_as_configured(train_bn, norm):
    image = keras.Input((64, 64, 3))
    norms = norms_of(keras.Model(image, _features(config_of(TRAIN_BN=train_bn, NORM=norm), image)))
    assert len(norms) == 34 and all(type(norm) is BatchNorm for norm in norms)
    assert {norm.momentum for norm in norms} == {0.999} and {norm.epsilon for norm in norms} == {1e-3}
    frozen = norm == "frozen"
    assert {(norm.train_bn, norm.frozen) for norm in norms} == {(False if frozen else train_bn, frozen)}
    assert all(bool(norm.trainable_weights) is not frozen for norm in norms)


def test_convolutions_take_normalizations_over():
    config, network = network_of()
    folded = fold_batch_norm(network)
    assert not norms_of(folded)
    arrays = inputs(config, pictures(1, 64, 64))
    for mine, other in zip(call(folded, arrays)[4:], call(network, arrays)[4:], strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-4)


def test_stages_are_told_from_the_network():
    _, network = network_of("training")
    names = {stage: set(layers_from_stage(network, stage)) for stage in (3, 4, 5)}
    assert names[5] < names[4] < names[3]
    # What is before the first convolution of a stride of 4, 8, 16 is not in it, that one is.
    for stage, last, first in (
        (3, "expanded_conv_1_expand_bn", "expanded_conv_1_depthwise"),
        (4, "expanded_conv_3_expand_bn", "expanded_conv_3_depthwise"),
        (5, "expanded_conv_8_expand_bn", "expanded_conv_8_depthwise"),
    ):
        assert last not in names[stage] and first in names[stage], stage
        chosen = training.set_trainable(network, training.stage_pattern(f"{stage}+", network))
        assert first in chosen and last not in chosen and "mrcnn_mask" in chosen and "rpn_class_raw" in chosen
    assert training.stage_pattern("heads", network) == training.HEADS
    assert "conv" in training.set_trainable(network, training.stage_pattern("all", network))
    assert training.stage_pattern("5+") == training.STAGES["5+"]


def test_stages_of_the_original_keep_their_pattern():
    network = build_network(ShapesConfig.from_dict({"IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 64}), "training")
    assert layers_from_stage(network, 4) is None
    assert training.stage_pattern("4+", network) == training.STAGES["4+"]


@pytest.mark.usefixtures("untraced")
def test_trains_a_stage_and_goes_on(tmp_path):
    """Statistics stay, what is not in the stage stays, the rest moves; and the checkpoint tells the backbone."""
    config = config_of(STEPS_PER_EPOCH=1, VALIDATION_STEPS=0)
    model = MaskRCNN("training", config, tmp_path)
    fill(model.keras_model)
    before = {w.path: ops.convert_to_numpy(w) for w in model.keras_model.weights}
    model.train(Shapes(2, size=64), None, 0.01, 1, "5+", verbose=0)
    moved = {w.path for w in model.keras_model.weights if not np.array_equal(before[w.path], ops.convert_to_numpy(w))}
    assert not [path for path in moved if "moving" in path]
    assert {"conv_1/kernel", "conv_1_bn/gamma", "fpn_c2p2/kernel", "rpn_conv_shared/kernel"} <= moved
    assert not [path for path in moved if path.startswith(("conv/", "expanded_conv_8_expand", "expanded_conv_7"))]
    path = model.find_last()
    info = inspect_weights(path)
    assert (info.backbone, info.image_channels, info.kind) == (f"keras:{SMALLEST}", 3, "mask_rcnn")
    again = MaskRCNN("inference", Config.from_dict(info.config), tmp_path)
    assert again.load_weights(path).complete
    assert again.config.MEAN_PIXEL.tolist() == [127.5]


# Files and engines


@pytest.mark.parametrize("name", ["w.h5", "w.weights.h5"])
def test_weights_are_saved_and_loaded(tmp_path, name):
    config, network = network_of()
    save_weights(network, tmp_path / name, {"config": config.to_dict()})
    before = [ops.convert_to_numpy(weight) for weight in network.weights]
    for weight in network.weights:
        weight.assign(ops.convert_to_numpy(weight) + 1)
    report = load_weights(network, tmp_path / name)
    assert report.complete and report.parameters == network.count_params()
    for weight, kept in zip(network.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), kept)


def test_the_command_line_knows_the_backbone(tmp_path, capsys):
    config, network = network_of()
    save_weights(network, tmp_path / "w.h5", {"config": config.to_dict()})
    assert main(["info", str(tmp_path / "w.h5")]) == 0
    assert f"backbone:        keras:{SMALLEST}" in capsys.readouterr().out
    info = inspect_weights(tmp_path / "w.h5")
    assert make_config(info, stored_values(info), []).to_dict() == config.to_dict()
    save_weights(network, tmp_path / "w.h5", {"config": {**config.to_dict(), "BACKBONE": "my_backbone"}})
    info = inspect_weights(tmp_path / "w.h5")
    with pytest.raises(CommandError, match="with a backbone of its own"):
        make_config(info, stored_values(info), [])


def test_exported_engines_find_what_keras_does():
    config, network = network_of(DETECTION_MIN_CONFIDENCE=0.0)
    arrays = inputs(config, pictures(1, 64, 64))
    expected = keras_raw(network, arrays)
    model = graph_bytes(network, config)
    for engine in (openvino_engine.OpenVINOEngine(model, "float32"), onnxruntime_engine.ONNXRuntimeEngine(model)):
        check(expected, engine.run(*arrays), (64, 64), least=2)
