"""Weights files as such: the layout on disk, what is told from it, and what is refused. No Keras here."""

from __future__ import annotations

import gzip
import shutil

import h5py
import numpy as np
import pytest

from mrcnn.weights import WeightsError, inspect_weights
from mrcnn.weights.contents import RPN_LAYERS, open_weights, read_array, read_contents
from mrcnn.weights.info import read_metadata
from mrcnn.weights.writing import (
    ATTRIBUTE_LIMIT,
    encode_metadata,
    keras2_entries,
    reduced,
    released_layer_names,
    write_keras2,
    write_metadata,
    write_names,
)
from tests import make_h5

MANIFESTS = ("resnet50_4", "resnet101_81")


# Layers whose widths tell what a network is: the sum of their kernels is 6 MB.
TELLING = ("res2a_branch2b", "fpn_p2", "mrcnn_mask_conv1", "mrcnn_class_conv1")


def small(layer, shape):
    """A shape with its channels cut down, so that a ResNet-101 weighs little; vectors and windows stay."""
    if len(shape) == 1 or layer == "res2a_branch2b":
        return tuple(shape)
    return (*shape[:-2], min(8, shape[-2]), shape[-1] if layer in TELLING else min(8, shape[-1]))


def small_values(layer, short, shape):
    return np.full(small(layer, shape), len(layer + short), np.float32)


def weighted_layers(name, shape_of=lambda layer, shape: tuple(shape)):
    """{layer: {weight: array}} of a manifest, in the model's order; the arrays take no memory."""
    layers = {}
    for entry in make_h5.manifest(name):
        for weight_name, (_, shape) in zip(entry["weight_names"], entry["datasets"], strict=True):
            layer, short = weight_name.split(":")[0].split("/")
            layers.setdefault(layer, {})[short] = np.broadcast_to(np.float32(0), shape_of(layer, shape))
    return layers


def write_small(path, name="resnet101_81"):
    with h5py.File(path, "w") as file:
        make_h5.write(file, make_h5.manifest(name), values=small_values)
    return path


def contents(path, known=RPN_LAYERS):
    with open_weights(path) as file:
        return read_contents(file, known)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The file that the old Keras wrote itself."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.h5"
    with gzip.open(make_h5.DATA / "tiny_keras_weights.h5.gz") as packed, path.open("wb") as file:
        shutil.copyfileobj(packed, file)
    return path


# Writing


@pytest.mark.parametrize("name", MANIFESTS)
def test_entries_equal_the_manifest(name):
    entries = [
        {
            "group": group,
            "weight_names": [weight for weight, _ in weights],
            "datasets": [[f"/{group}/{weight}", list(array.shape)] for weight, array in weights],
        }
        for group, weights in keras2_entries(weighted_layers(name))
    ]
    assert entries == make_h5.manifest(name)


@pytest.mark.parametrize("name", MANIFESTS)
def test_files_are_the_same_to_the_byte(name, tmp_path):
    layers = weighted_layers(name)
    values = {
        layer: {short: small_values(layer, short, array.shape) for short, array in weights.items()}
        for layer, weights in layers.items()
    }
    with h5py.File(tmp_path / "ours.h5", "w") as file:
        write_keras2(file, keras2_entries(values))
    expected = write_small(tmp_path / "expected.h5", name)
    assert (tmp_path / "ours.h5").read_bytes() == expected.read_bytes()


def test_order_of_the_model_does_not_matter_for_a_resnet():
    layers = weighted_layers("resnet50_4")
    backwards = dict(reversed(layers.items()))
    assert [group for group, _ in keras2_entries(backwards)] == [group for group, _ in keras2_entries(layers)]


def test_another_backbone_keeps_its_order_before_the_heads():
    heads = [name for name in weighted_layers("resnet50_4") if name.startswith(("fpn_", "rpn_", "mrcnn_"))]
    names = released_layer_names(["stem", "block2", *heads, "block1", "mrcnn_extra"])
    assert names[:5] == ["input_image", "stem", "block2", "block1", "fpn_c5p5"]
    assert names[-1] == "mrcnn_extra"
    assert names.count("rpn_model") == 1
    assert not set(RPN_LAYERS) & set(names)


def test_what_is_no_mask_rcnn_keeps_its_layers():
    assert released_layer_names(["b", "a"]) == ["b", "a"]


def test_long_lists_of_names_are_split_and_read_again(tmp_path):
    layers = {f"a_layer_with_{'quite_' * 50}a_long_name_{index:05d}": {"kernel": np.ones(1)} for index in range(300)}
    with h5py.File(tmp_path / "many.h5", "w") as file:
        write_keras2(file, keras2_entries(layers))
        assert "layer_names" not in file.attrs
        assert file.attrs["layer_names0"].nbytes <= ATTRIBUTE_LIMIT
    assert list(contents(tmp_path / "many.h5").layers) == list(layers)


def test_a_name_too_long_for_an_attribute(tmp_path):
    with h5py.File(tmp_path / "long.h5", "w") as file, pytest.raises(WeightsError, match="70000 bytes"):
        write_names(file, "layer_names", ["x" * 70000])


def test_float16_keeps_what_would_not_fit():
    kernel = np.array([[1.0, -2.5]], np.float32)
    assert reduced(kernel).dtype == np.float16
    for array in (np.ones(3, np.float32), kernel * 1e5, np.ones((2, 2), np.int32)):
        assert reduced(array) is array


# Reading


def test_reads_what_the_old_keras_wrote(tiny):
    found = contents(tiny).layers
    assert {layer: len(weights) for layer, weights in found.items() if layer.startswith("rpn")} == dict.fromkeys(
        RPN_LAYERS, 2
    )
    assert found["conv1"]["kernel"].shape == (3, 3, 3, 8)
    assert list(found["mrcnn_class_bn1"]) == ["gamma", "beta", "moving_mean", "moving_variance"]


def test_reads_the_released_layout(tmp_path):
    found = contents(write_small(tmp_path / "small.h5"))
    expected = weighted_layers("resnet101_81", small)
    shapes = {layer: {key: weight.shape for key, weight in it.items()} for layer, it in found.layers.items()}
    assert shapes == {layer: {key: array.shape for key, array in it.items()} for layer, it in expected.items()}
    assert {"mrcnn_bbox", "rpn_model", "input_image"} <= found.names


def test_reads_names_as_str_split_and_below_model_weights(tmp_path):
    write_small(tmp_path / "plain.h5", "resnet50_4")
    with h5py.File(tmp_path / "plain.h5") as plain, h5py.File(tmp_path / "whole.h5", "w") as whole:
        root = whole.create_group("model_weights")
        for key in plain:
            plain.copy(key, root)
            names = [name.decode() for name in plain[key].attrs["weight_names"]]
            if names:
                root[key].attrs["weight_names"] = np.array(names, dtype=h5py.string_dtype())
        names = [name.decode() for name in plain.attrs["layer_names"]]
        root.attrs["layer_names0"] = np.array(names[:100], dtype=h5py.string_dtype())
        root.attrs["layer_names1"] = np.array(names[100:], dtype="S")
        whole.attrs["model_config"] = "{}"
    plain, whole = contents(tmp_path / "plain.h5"), contents(tmp_path / "whole.h5")
    assert list(plain.layers) == list(whole.layers)
    assert plain.names == whole.names
    assert "whole model" in inspect_weights(tmp_path / "whole.h5").format


def keras2_file(path, groups):
    """{group: {weight name: array}} as a file; names as they are."""
    with h5py.File(path, "w") as file:
        write_keras2(file, [(group, list(weights.items())) for group, weights in groups.items()])
    return path


def test_reads_names_of_keras_1(tmp_path):
    ones = np.ones(2, np.float32)
    path = keras2_file(tmp_path / "one.h5", {
        "conv1": {"conv1_W_1:0": ones, "conv1_b_1:0": ones},
        "bn_conv1": {"bn_conv1_gamma_1:0": ones, "bn_conv1_beta_1:0": ones, "bn_conv1_running_mean_1:0": ones,
                     "bn_conv1_running_std_1:0": ones},
        "res2a_branch2a": {"res2a_branch2a_W:0": ones, "res2a_branch2a_b:0": ones},
    })  # fmt: skip
    found = {layer: list(weights) for layer, weights in contents(path).layers.items()}
    assert found == {
        "conv1": ["kernel", "bias"],
        "bn_conv1": ["gamma", "beta", "moving_mean", "moving_variance"],
        "res2a_branch2a": ["kernel", "bias"],
    }
    assert inspect_weights(path).kind == "backbone only"


def test_reads_what_a_second_model_of_a_session_wrote(tmp_path):
    ones = np.ones(2, np.float32)
    path = keras2_file(tmp_path / "second.h5", {
        "conv1": {"conv1_1/kernel:0": ones},
        "rpn_model": {"rpn_conv_shared_1/kernel:0": ones, "rpn_class_raw_1/kernel:0": ones},
        "outer": {"inner_1/kernel:0": ones, "other/kernel:0": ones},
    })  # fmt: skip
    assert list(contents(path).layers) == ["conv1", "rpn_conv_shared", "rpn_class_raw", "inner_1", "other"]


def test_a_layer_built_of_others(tmp_path):
    ones = np.ones(2, np.float32)
    weights = {"block/a/kernel:0": ones, "block/b/kernel:0": ones}
    path = keras2_file(tmp_path / "block.h5", {"block": weights})
    assert {layer: list(it) for layer, it in contents(path, {"block"}).layers.items()} == {
        "block": ["a/kernel", "b/kernel"]
    }
    assert {layer: list(it) for layer, it in contents(path, {"a", "b"}).layers.items()} == {
        "a": ["kernel"],
        "b": ["kernel"],
    }


def test_a_weight_that_is_there_twice(tmp_path):
    ones = np.ones(2, np.float32)
    path = keras2_file(
        tmp_path / "twice.h5", {"a": {"x/k:0": ones, "y/k:0": ones}, "b": {"x/k:0": ones, "z/k:0": ones}}
    )
    with pytest.raises(WeightsError, match="x/k twice"):
        contents(path)


# What is refused


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"PK\x03\x04 rest", "zip"),
        (b"\x80\x04\x95", "pickle"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"version https://git-lfs.github.com/spec/v1", "LFS"),
        (b"12345678", "begins with"),
    ],
)
def test_other_files_are_named(tmp_path, start, says):
    path = tmp_path / "weights.h5"
    path.write_bytes(start)
    with pytest.raises(WeightsError, match=says):
        inspect_weights(path)


def test_no_file_and_no_plain_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.h5"):
        inspect_weights(tmp_path / "gone.h5")
    with pytest.raises(WeightsError, match="not a file"):
        inspect_weights(tmp_path)


@pytest.mark.parametrize("part", [0.999, 0.5, 0.1])
def test_truncated_files(tmp_path, tiny, part):
    data = tiny.read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(WeightsError, match="truncated or damaged"):
        inspect_weights(tmp_path / "cut.h5")


def test_damaged_files_never_raise_anything_else(tmp_path, tiny):
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.h5"
    refused = 0
    for _ in range(30):
        data = bytearray(tiny.read_bytes())
        start = int(rng.integers(0, 40000))
        data[start : start + 64] = rng.bytes(64)
        path.write_bytes(data)
        try:
            inspect_weights(path)
            with open_weights(path) as file:
                for layer in read_contents(file).layers.values():
                    for weight in layer.values():
                        read_array(file, weight)
        except WeightsError:
            refused += 1
    assert refused > 10


def test_hdf5_of_something_else(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(WeightsError, match=r"not one of Keras weights.*images"):
        inspect_weights(tmp_path / "data.h5")


def test_lists_that_the_file_does_not_hold(tmp_path):
    path = write_small(tmp_path / "small.h5", "resnet50_4")
    with h5py.File(path, "r+") as file:
        del file["conv1/conv1/bias:0"]
    with pytest.raises(WeightsError, match="conv1/bias:0 is listed, but not in the file"):
        inspect_weights(path)
    with h5py.File(path, "r+") as file:
        file.create_group("conv1/conv1/bias:0")
    with pytest.raises(WeightsError, match="not an array"):
        inspect_weights(path)
    with h5py.File(path, "r+") as file:
        del file["conv1"]
    with pytest.raises(WeightsError, match="conv1 is listed"):
        inspect_weights(path)


def test_names_that_are_no_names(tmp_path):
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file.attrs["layer_names"] = np.arange(3)
    with pytest.raises(WeightsError, match="where names belong"):
        inspect_weights(tmp_path / "odd.h5")


def test_links_out_of_the_file_are_not_followed(tmp_path, tiny):
    path = tmp_path / "link.h5"
    for target in ("bias", "group"):
        shutil.copy(tiny, path)
        with h5py.File(path, "r+") as file:
            if target == "bias":
                del file["conv1/conv1/bias:0"]
                file["conv1/conv1/bias:0"] = h5py.ExternalLink(str(tiny), "/conv1/conv1/bias:0")
            else:
                del file["conv1"]
                file["conv1"] = h5py.ExternalLink(str(tiny), "/conv1")
        with pytest.raises(WeightsError, match="points to another file"):
            inspect_weights(path)


# What a file is for


@pytest.mark.parametrize(
    ("name", "backbone", "classes"), [("resnet50_4", "resnet50", 4), ("resnet101_81", "resnet101", 81)]
)
def test_inspect_the_released_layout(tmp_path, name, backbone, classes):
    info = inspect_weights(write_small(tmp_path / "small.h5", name))
    assert (info.kind, info.backbone, info.num_classes, info.image_channels) == ("mask_rcnn", backbone, classes, 3)
    assert info.layer_count == len(weighted_layers(name))
    assert info.fields == {
        "NUM_CLASSES": classes,
        "IMAGE_CHANNEL_COUNT": 3,
        "TOP_DOWN_PYRAMID_SIZE": 256,
        "RPN_CONV_SIZE": 512,
        "len(RPN_ANCHOR_RATIOS)": 3,
        "FPN_CLASSIF_FC_LAYERS_SIZE": 1024,
        "POOL_SIZE": 7,
        "MASK_CONV_SIZE": 256,
    }
    assert (info.config, info.class_names, info.epoch, info.metadata, info.has_optimizer) == (
        None,
        None,
        None,
        {},
        False,
    )
    for line in (f"backbone:        {backbone}", f"{classes} (background included)", "float32", "keras_version 2.1.6"):
        assert line in str(info)


def test_inspect_the_tiny_file(tiny):
    info = inspect_weights(tiny)
    assert (info.kind, info.backbone, info.num_classes, info.fields["TOP_DOWN_PYRAMID_SIZE"]) == (
        "mask_rcnn",
        "custom",
        3,
        8,
    )
    assert info.parameter_count == sum(
        int(np.prod(weight.shape)) for layer in contents(tiny).layers.values() for weight in layer.values()
    )


def test_inspect_something_unknown(tmp_path):
    info = inspect_weights(keras2_file(tmp_path / "mlp.h5", {"dense": {"dense/kernel:0": np.ones((2, 3))}}))
    assert (info.kind, info.backbone, info.num_classes, info.parameter_count) == ("unknown", "custom", None, 6)
    assert inspect_weights(keras2_file(tmp_path / "none.h5", {"input": {}})).backbone is None


@pytest.mark.parametrize("length", [3, 200_000])
def test_metadata(tmp_path, length):
    metadata = {
        "config": {"NAME": "shapes", "MEAN_PIXEL": np.array([1.5, 2.0]), "LEVEL": np.int64(3)},
        "class_names": ["BG", "é" * length],
        "epoch": 7,
    }
    path = keras2_file(tmp_path / "meta.h5", {"dense": {"dense/kernel:0": np.ones((2, 3))}})
    with h5py.File(path, "r+") as file:
        write_metadata(file, metadata)
    info = inspect_weights(path)
    assert info.config == {"NAME": "shapes", "MEAN_PIXEL": [1.5, 2.0], "LEVEL": 3}
    assert info.class_names == ("BG", "é" * length)
    assert (info.epoch, info.metadata["epoch"]) == (7, 7)
    assert "NAME 'shapes'" in str(info)


@pytest.mark.parametrize("value", [object(), float("nan"), {1j}])
def test_metadata_that_is_no_json(value):
    with pytest.raises(WeightsError, match="JSON"):
        encode_metadata({"config": value})


@pytest.mark.parametrize("text", [b"{", b"[1]", b"\xff\xfe"])
def test_metadata_that_is_damaged(tmp_path, text):
    with h5py.File(tmp_path / "meta.h5", "w") as file:
        file.attrs["mrcnn_metadata"] = np.bytes_(text)
        with pytest.raises(WeightsError, match="JSON"):
            read_metadata(file)
