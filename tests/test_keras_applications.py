"""Files of ImageNet classifiers as weights of our ResNets: keras.applications' own, and what timm writes."""

from __future__ import annotations

import re

import h5py
import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.weights import WeightsError
from mrcnn.weights.keras_applications import convert, is_keras_applications
from mrcnn.weights.torchvision import convert as convert_torch

DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}


def layers_of(blocks, top=None):
    """Names of layers and weights of a file of keras.applications, all of next to no size."""

    def conv(name, *shape):
        return {name: {"kernel": shape or (1, 1, 2, 2), "bias": (2,)}}

    def norm(name):
        return {name: dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), (2,))}

    found = conv("conv1_conv", 7, 7, 3, 2) | norm("conv1_bn")
    for stage, count in enumerate(blocks, start=2):
        for block in range(1, count + 1):
            for branch in "0123" if block == 1 else "123":
                name = f"conv{stage}_block{block}_{branch}"
                found |= conv(f"{name}_conv") | norm(f"{name}_bn")
    if top:
        found[top] = {"kernel": (2, 1000), "bias": (1000,)}
    return found


def write(path, layers, root=""):
    """A file in the layout of Keras 2, of arrays that differ."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        base = file.create_group(root) if root else file
        base.attrs["layer_names"] = [name.encode() for name in ["input_1", *layers]]
        base.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
        for name, weights in layers.items():
            group = base.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{weight}:0".encode() for weight in weights]
            for weight, shape in weights.items():
                group[f"{name}/{weight}:0"] = rng.normal(size=shape).astype(np.float32)
    return path


@pytest.mark.parametrize(
    ("backbone", "top"), [("resnet50", None), ("resnet50", "probs"), ("resnet101", "predictions"), ("resnet152", None)]
)
def test_each_tensor_has_its_place(tmp_path, backbone, top):
    path = write(tmp_path / "r.h5", layers_of(DEPTHS[backbone], top), root="model_weights" if top else "")
    assert is_keras_applications(path)
    found = convert(path)
    assert found.preset is None
    assert found.fields == {
        "BACKBONE": backbone, "IMAGE_CHANNEL_COUNT": 3, "RESNET_STRIDE_IN_3X3": False, "SYMMETRIC_PADDING": True,
        "CONV_BIAS": True, "NORM": "batch", "NORM_EPSILON": 1.001e-5, "MEAN_PIXEL": [123.68, 116.779, 103.939],
        "STD_PIXEL": [1.0], "IMAGE_CHANNEL_ORDER": "rgb",
    }  # fmt: skip
    config = Config.from_dict(found.fields)
    assert config.MEAN_PIXEL.tolist() == [123.68, 116.779, 103.939]
    assert len({fate.name for fate in found.fates}) == len(found.fates)
    assert [fate.name for fate in found.unused] == ([f"{top}/kernel", f"{top}/bias"] if top else [])
    assert len(found.arrays) == len(layers_of(DEPTHS[backbone]))
    with h5py.File(path) as file:
        base = file["model_weights"] if top else file
        for theirs, ours in (
            ("conv2_block1_0_conv", "res2a_branch1"), ("conv2_block1_1_bn", "bn2a_branch2a"),
            ("conv3_block4_2_conv", "res3d_branch2b"), ("conv5_block3_3_bn", "bn5c_branch2c"), ("conv1_bn", "bn_conv1"),
        ):  # fmt: skip
            for weight, array in found.arrays[ours].items():
                np.testing.assert_array_equal(array, base[f"{theirs}/{theirs}/{weight}:0"][()])
        first = base["conv1_conv/conv1_conv/kernel:0"][()]
    np.testing.assert_array_equal(found.arrays["conv1"]["kernel"], first[:, :, ::-1])
    (told,) = [str(fate) for fate in found.fates if fate.target == "conv1/kernel"]
    assert told == "conv1_conv/kernel (7 x 7 x 3 x 2) -> conv1/kernel: blue, green, red to red, green, blue"
    last = {"resnet50": "4f", "resnet101": "4w", "resnet152": "4zj"}[backbone]
    assert f"res{last}_branch2c" in found.arrays


def test_files_of_other_networks(tmp_path):
    layers = layers_of(DEPTHS["resnet50"])
    v2 = layers | {"conv2_block1_preact_bn": {"gamma": (2,)}}
    lacking = {name: weights for name, weights in layers.items() if name != "conv4_block3_2_bn"}
    more = layers | {"conv2_block1_se": {"kernel": (1, 1, 2, 2)}}
    dense = {name: weights for name, weights in layers.items() if not re.search(r"_3_|conv3", name)}
    for name, wrong, message in (
        ("v2", v2, "ResNet V2.*BACKBONE 'keras:ResNet50V2'"),
        ("lacking", lacking, "it lacks conv4_block3_2_bn/beta, conv4_block3_2_bn/gamma"),
        ("more", more, "no layer of a resnet50 takes these: conv2_block1_se"),
        ("dense", dense, "is no file of keras.applications' ResNet50, ResNet101 or ResNet152.*'keras:DenseNet121'"),
        ("short", layers_of((3, 4, 5, 3)), "is no file of keras.applications' ResNet50"),
    ):
        path = write(tmp_path / f"{name}.h5", wrong)
        assert is_keras_applications(path)
        with pytest.raises(WeightsError, match=message) as error:
            convert(path)
        assert str(path) in str(error.value)


def test_what_is_none_of_them(tmp_path):
    ours = write(tmp_path / "ours.h5", {"conv1": {"kernel": (7, 7, 3, 2)}, "res2a_branch2a": {"kernel": (1, 1, 2, 2)}})
    assert not is_keras_applications(ours)
    (tmp_path / "text.h5").write_text("no HDF5")
    assert not is_keras_applications(tmp_path / "text.h5")
    assert not is_keras_applications(tmp_path / "missing.h5")
    with pytest.raises(FileNotFoundError):
        convert(tmp_path / "missing.h5")
    with pytest.raises(WeightsError, match="is not an HDF5 weights file"):
        convert(tmp_path / "text.h5")


def test_images_of_other_channels(tmp_path):
    layers = layers_of(DEPTHS["resnet50"])
    layers["conv1_conv"]["kernel"] = (7, 7, 4, 2)
    found = convert(write(tmp_path / "four.h5", layers))
    assert found.fields["IMAGE_CHANNEL_COUNT"] == 4 and "MEAN_PIXEL" not in found.fields
    assert {fate.how for fate in found.fates} == {"as it is"}


def timm(blocks=(3, 4, 6, 3), norm="batch", **others):
    """A state dict with the names that timm's ResNet has, of next to no size."""

    def conv(name, *shape):
        return {f"{name}.weight": shape or (64, 64, 1, 1)}

    def bn(name):
        weights = ("weight", "bias") if norm == "group" else ("weight", "bias", "running_mean", "running_var")
        return {f"{name}.{weight}": (64,) for weight in weights}

    shapes = conv("conv1", 64, 3, 7, 7) | bn("bn1")
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            start = f"layer{stage}.{block}"
            for number in (1, 2, 3):
                shapes |= conv(f"{start}.conv{number}", *((64, 64, 3, 3) if number == 2 else ()))
                shapes |= bn(f"{start}.bn{number}")
            if block == 0:
                shapes |= conv(f"{start}.downsample.0") | bn(f"{start}.downsample.1")
    shapes |= {"fc.weight": (1000, 64), "fc.bias": (1000,)} | others
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def test_a_resnet_of_timm():
    found = convert_torch(timm())
    assert found.preset is None
    assert found.fields == {
        "BACKBONE": "resnet50", "IMAGE_CHANNEL_COUNT": 3, "NORM": "batch", "RESNET_STRIDE_IN_3X3": True,
        "SYMMETRIC_PADDING": True, "CONV_BIAS": False, "NORM_EPSILON": 1e-5, "MEAN_PIXEL": [123.675, 116.28, 103.53],
        "STD_PIXEL": [58.395, 57.12, 57.375],
    }  # fmt: skip
    assert [fate.name for fate in found.unused] == ["fc.weight", "fc.bias"]
    assert set(found.arrays["res4f_branch2b"]) == {"kernel"}
    assert set(found.arrays["bn5a_branch1"]) == {"gamma", "beta", "moving_mean", "moving_variance"}
    assert convert_torch(timm((3, 4, 23, 3))).fields["BACKBONE"] == "resnet101"
    grouped = convert_torch(timm(norm="group"))  # resnet50_gn
    assert grouped.fields["NORM"] == "group" and set(grouped.arrays["bn_conv1"]) == {"gamma", "beta"}
    Config.from_dict(grouped.fields)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            timm(**{"conv1.0.weight": (32, 3, 3, 3)}),
            "a deep stem of three convolutions.*conv1.0.weight.*resnet50.a1_in1k",
        ),
        (timm(**{"layer2.0.downsample.2.weight": (64,)}), "an average pooling in the shortcut"),
        (timm(**{"layer1.0.se.fc1.weight": (4, 64, 1, 1)}), "an attention of channels"),
        (timm(**{"maxpool.0.weight": (64, 64, 3, 3)}), "in place of the first pooling"),
        (timm(**{"layer1.0.bn4.weight": (64,)}), "No layer takes these tensors: layer1.0.bn4.weight"),
        (timm(**{"layer1.0.bn2.gain": (64,)}), "No layer takes these tensors: layer1.0.bn2.gain"),
        (timm((2, 2, 2, 2)), r"There is no backbone of \(2, 2, 2, 2\) bottlenecks"),  # resnet26
    ],
)
def test_resnets_of_timm_that_differ(state, message):
    with pytest.raises(WeightsError, match=message):
        convert_torch(state)
