"""Weights between models and files: reports, refusals, both layouts, optimizer state."""

from __future__ import annotations

import shutil

import h5py
import keras
import numpy as np
import pytest
from keras import layers, ops

from mrcnn.weights import WeightsError, inspect_weights, load_optimizer, load_weights, save_weights
from tests.test_weights_files import keras2_file

pytestmark = pytest.mark.backends

LAYOUTS = ("w.h5", "w.weights.h5")
CLASS_LAYERS = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]


def miniature(classes=3, channels=3, extra=(), without=(), seed=None):
    """A network with the names of Mask R-CNN's parts, and next to nothing behind them."""

    def conv(name, width, size=1):
        return layers.Conv2D(width, size, padding="same", name=name)

    image = layers.Input((8, 8, channels), name="input_image")
    x = layers.BatchNormalization(name="bn_conv1")(conv("conv1", 4, 3)(image))
    for name in ("res2a_branch2a", *extra):
        if name not in without:
            x = conv(name, 4)(layers.ReLU()(x))
    p2 = conv("fpn_p2", 4, 3)(conv("fpn_c5p5", 4)(x))
    feature_map = layers.Input((None, None, 4), name="input_rpn_feature_map")
    shared = conv("rpn_conv_shared", 4, 3)(feature_map)
    outputs = [conv("rpn_class_raw", 6)(shared), conv("rpn_bbox_pred", 12)(shared)]
    rpn_class, rpn_bbox = keras.Model(feature_map, outputs, name="rpn_model")(p2)
    pooled = layers.GlobalAveragePooling2D()(p2)
    logits = layers.Dense(classes, name="mrcnn_class_logits")(pooled)
    bbox = layers.Reshape((classes, 4), name="mrcnn_bbox")(layers.Dense(4 * classes, name="mrcnn_bbox_fc")(pooled))
    mask = conv("mrcnn_mask", classes)(p2)
    model = keras.Model(image, [logits, bbox, mask, rpn_class, rpn_bbox], name="miniature")
    if seed is not None:
        rng = np.random.default_rng(seed)
        for weight in model.weights:
            weight.assign(rng.normal(size=tuple(weight.shape)).astype(np.float32))
    return model


def values(model):
    return [ops.convert_to_numpy(weight).copy() for weight in model.weights]


def assert_equal(first, second, atol=0.0):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.fixture
def saved(tmp_path):
    """(model, path of its weights in the Keras 2 layout)."""
    model = miniature(seed=1)
    save_weights(model, tmp_path / "saved.h5")
    return model, tmp_path / "saved.h5"


def refused(model, path, match, **arguments):
    """Loading raises, says why, and leaves the model as it was. Gives the report."""
    before = values(model)
    with pytest.raises(WeightsError, match=match) as caught:
        load_weights(model, path, **arguments)
    assert_equal(values(model), before)
    return caught.value.report


# There and back


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(("dtype", "error"), [(None, 0.0), ("float32", 0.0), ("float16", 4e-3)])
def test_there_and_back(tmp_path, name, dtype, error):
    model, other = miniature(seed=1), miniature(seed=2)
    save_weights(model, tmp_path / name, metadata={"epoch": 3, "class_names": ["BG", "a", "b"]}, dtype=dtype)
    report = load_weights(other, tmp_path / name)
    assert_equal(values(other), values(model), atol=error)
    assert report.complete
    assert len(report.loaded) == 11
    assert report.parameters == sum(value.size for value in values(model))
    assert "loaded: 11 layers" in str(report)
    info = inspect_weights(tmp_path / name)
    assert (info.kind, info.num_classes, info.image_channels, info.epoch) == ("mask_rcnn", 3, 3, 3)
    assert info.dtypes == (("float16", "float32") if dtype == "float16" else ("float32",))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_layout_of_keras_3_is_its_own(tmp_path):
    model, other = miniature(seed=1), miniature(seed=2)
    model.save_weights(tmp_path / "theirs.weights.h5")
    load_weights(other, tmp_path / "theirs.weights.h5")
    assert_equal(values(other), values(model))
    third = miniature(seed=3)
    save_weights(model, tmp_path / "ours.weights.h5", metadata={"epoch": 1})
    third.load_weights(tmp_path / "ours.weights.h5")
    assert_equal(values(third), values(model))


def test_contents_decide_and_not_the_name(tmp_path):
    model, other = miniature(seed=1), miniature(seed=2)
    save_weights(model, tmp_path / "a.weights.h5")
    shutil.move(tmp_path / "a.weights.h5", tmp_path / "a.h5")
    load_weights(other, tmp_path / "a.h5")
    assert_equal(values(other), values(model))


def test_saves_over_a_file_and_through_a_link(tmp_path, saved):
    _, path = saved
    link = tmp_path / "link.h5"
    link.symlink_to(path)
    model = miniature(seed=5)
    save_weights(model, link)
    assert link.is_symlink()
    other = miniature()
    load_weights(other, path)
    assert_equal(values(other), values(model))


def test_float64_is_cast(saved):
    model, path = saved
    with h5py.File(path, "r+") as file:
        kernel = file["conv1/conv1/kernel:0"][()].astype(np.float64)
        del file["conv1/conv1/kernel:0"]
        file["conv1/conv1/kernel:0"] = kernel
    other = miniature(seed=2)
    load_weights(other, path)
    assert_equal(values(other), values(model))


class Composite(layers.Layer):
    """A layer built of others."""

    def build(self, shape):
        self.first, self.second = layers.Conv2D(2, 1, name="first"), layers.Conv2D(2, 1, name="second")
        self.first.build(shape)
        self.second.build((*shape[:-1], 2))

    def call(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize("name", LAYOUTS)
def test_other_kinds_of_layers(tmp_path, name):
    def build():
        inner_input = layers.Input((4, 4, 3))
        inner = keras.Model(inner_input, layers.DepthwiseConv2D(3, name="depthwise")(inner_input), name="backbone")
        image = layers.Input((4, 4, 3))
        x = layers.GroupNormalization(1, name="group")(inner(image))
        x = Composite(name="block")(x)
        x = layers.Reshape((4, 2))(x)
        x = layers.MultiHeadAttention(1, 2, name="attention")(x, x)
        x = layers.TimeDistributed(layers.Dense(2), name="each")(x)
        return keras.Model(image, layers.Dropout(0.5)(x))

    model, other = build(), build()
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=tuple(weight.shape)))
    save_weights(model, tmp_path / name)
    assert load_weights(other, tmp_path / name).loaded == ("depthwise", "group", "block", "attention", "each")
    assert_equal(values(other), values(model))


# What does not fit


def test_other_number_of_classes(saved):
    _, path = saved
    other = miniature(classes=2, seed=2)
    report = refused(
        other, path, r"NUM_CLASSES is 2, the file has 3: exclude mrcnn_class_logits, mrcnn_bbox_fc, mrcnn_mask\."
    )
    assert {mismatch.layer for mismatch in report.mismatched} == {*CLASS_LAYERS} - {"mrcnn_bbox"}
    assert "mrcnn_mask/bias: model (2,), file (3,)" in str(report)
    for forgotten in ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask"):
        exclude = [*(layer for layer in CLASS_LAYERS if layer != forgotten), "mrcnn_bbox"]
        with pytest.raises(
            WeightsError, match=rf"NUM_CLASSES is 2, the file has 3: exclude {forgotten}\.\n.*{forgotten}/"
        ):
            load_weights(other, path, exclude=exclude)
    before = values(other)
    report = load_weights(other, path, exclude=CLASS_LAYERS)
    assert report.excluded == ("mrcnn_bbox_fc", "mrcnn_class_logits", "mrcnn_mask")
    changed = [
        weight.path
        for weight, old, new in zip(other.weights, before, values(other), strict=True)
        if not np.array_equal(old, new)
    ]
    assert not [path for path in changed if path.startswith(tuple(CLASS_LAYERS))]
    assert len(changed) == len(before) - 6


@pytest.mark.parametrize("name", LAYOUTS)
def test_other_number_of_channels(tmp_path, name):
    save_weights(miniature(seed=1), tmp_path / name)
    other = miniature(channels=1)
    refused(other, tmp_path / name, "IMAGE_CHANNEL_COUNT is 1, the file has 3: exclude conv1")
    load_weights(other, tmp_path / name, exclude="conv1")


@pytest.mark.parametrize("name", LAYOUTS)
def test_missing_and_unexpected_layers(tmp_path, name):
    many = [f"res3{letter}_branch2a" for letter in "abcdefghijkl"]
    save_weights(miniature(extra=many), tmp_path / name)
    report = refused(miniature(), tmp_path / name, r"unexpected in the file \(12\).* and 4 more")
    assert report.unexpected == tuple(many)
    save_weights(miniature(), tmp_path / name)
    report = refused(miniature(extra=many), tmp_path / name, r"missing from the file \(12\)")
    assert report.missing == tuple(many)
    assert not report.complete
    load_weights(miniature(extra=many), tmp_path / name, exclude=many)


@pytest.mark.parametrize(("ours", "theirs"), [("resnet50", "resnet101"), ("resnet101", "resnet50")])
def test_other_backbone(tmp_path, ours, theirs):
    blocks = {"resnet50": "abcdef", "resnet101": "abcdefghijklmnopqrstuvw"}

    def names(backbone):
        stages = {2: "bc", 3: "abcd", 4: blocks[backbone], 5: "abc"}
        return ["res2a_branch2c", *(f"res{stage}{b}_branch2a" for stage, letters in stages.items() for b in letters)]

    save_weights(miniature(extra=names(theirs)), tmp_path / "w.h5")
    refused(
        miniature(extra=names(ours)),
        tmp_path / "w.h5",
        f"BACKBONE is {ours}, the file is a {theirs}: set BACKBONE to {theirs}",
    )
    refused(miniature(extra=names(ours)), tmp_path / "w.h5", "BACKBONE is", only="backbone")
    save_weights(miniature(), tmp_path / "w.h5")
    refused(miniature(extra=names(ours)), tmp_path / "w.h5", f"BACKBONE is {ours}, the file has another")


def test_a_weight_that_one_side_lacks(saved):
    _, path = saved
    with h5py.File(path, "r+") as file:
        file["conv1"].attrs["weight_names"] = np.array([b"conv1/kernel:0"])
    report = refused(miniature(), path, r"conv1/bias: model \(4,\), file absent")
    assert [str(mismatch) for mismatch in report.mismatched] == ["conv1/bias: model (4,), file absent"]


def test_another_network_altogether(tmp_path, saved):
    path = keras2_file(tmp_path / "mlp.h5", {"dense": {"dense/kernel:0": np.ones((2, 3), np.float32)}})
    refused(miniature(), path, "no layer of the file is in the model")


def replace(path, name, data):
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = data


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers(saved, bad):
    _, path = saved
    kernel = np.zeros((3, 3, 3, 4), np.float32)
    kernel[1, 1, 1, 1] = bad
    replace(path, "conv1/conv1/kernel:0", kernel)
    refused(miniature(seed=2), path, "NaN or infinity in 1 weights: conv1/kernel")
    assert load_weights(miniature(), path, exclude=["conv1"]).excluded == ("conv1",)


@pytest.mark.parametrize("data", [np.zeros((3, 3, 3, 4), np.int32), np.full((3, 3, 3, 4), b"x")])
def test_values_of_another_kind(saved, data):
    _, path = saved
    replace(path, "conv1/conv1/kernel:0", data)
    refused(miniature(seed=2), path, f"conv1/kernel: model float32, file .*{data.dtype.str[1:]}|int32")


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("part", [0.9, 0.5, 0.01, 0.0])
def test_truncated_files(tmp_path, name, part):
    save_weights(miniature(), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(part * len(data))])
    refused(miniature(), tmp_path / name, "truncated|not an HDF5")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.h5"):
        load_weights(miniature(), tmp_path / "none.h5")


# exclude and only


def test_exclude(saved):
    model, path = saved
    refused(miniature(), path, r"'mrcn_mask', which is no layer .*Did you mean mrcnn_mask", exclude=["mrcn_mask"])
    refused(miniature(), path, "'backbone'", exclude="backbone")
    refused(miniature(), path, "'a', 'b', which are no layer", exclude=["a", "b"])
    other = miniature(seed=2)
    with pytest.warns(UserWarning, match=r"'mrcn_mask', which is no layer .*Did you mean mrcnn_mask") as told:
        assert load_weights(other, path, exclude=["conv1", "mrcn_mask"]).excluded == ("conv1",)
    assert told[0].filename == __file__
    report = load_weights(other, path, exclude="rpn_model")
    assert report.excluded == ("rpn_bbox_pred", "rpn_class_raw", "rpn_conv_shared")
    assert load_weights(other, path, exclude=None).excluded == ()
    assert load_weights(other, path, exclude=("mrcnn_bbox", "input_image")).excluded == ()
    assert_equal(values(other), values(model))


def imagenet(path, names=("res2a_branch2a",)):
    """A classifier's file, with the names of Keras 1."""
    rng = np.random.default_rng(0)
    groups = {"input_1": {}, "conv1": {"conv1_W:0": rng.normal(size=(3, 3, 3, 4)), "conv1_b:0": rng.normal(size=4)}}
    groups["bn_conv1"] = {
        f"bn_conv1_{name}:0": rng.uniform(size=4) for name in ("gamma", "beta", "running_mean", "running_std")
    }
    for name in names:
        groups[name] = {f"{name}_W:0": rng.normal(size=(1, 1, 4, 4)), f"{name}_b:0": rng.normal(size=4)}
    return keras2_file(path, groups), groups


def test_backbone_only(tmp_path):
    path, groups = imagenet(tmp_path / "imagenet.h5")
    model = miniature(seed=1)
    refused(model, path, 'the file holds a backbone and no heads: load it with only="backbone"')
    head = ops.convert_to_numpy(model.get_layer("fpn_p2").kernel).copy()
    report = load_weights(model, path, only="backbone")
    assert report.loaded == ("conv1", "bn_conv1", "res2a_branch2a")
    assert report.excluded == ()
    np.testing.assert_array_equal(ops.convert_to_numpy(model.get_layer("fpn_p2").kernel), head)
    variance = ops.convert_to_numpy(model.get_layer("bn_conv1").moving_variance)
    np.testing.assert_allclose(variance, groups["bn_conv1"]["bn_conv1_running_std:0"], rtol=1e-6)
    refused(miniature(extra=["res3a_branch2a"]), path, "missing from the file .1.: res3a", only="backbone")
    path, _ = imagenet(tmp_path / "more.h5", ("res2a_branch2a", "fc1000"))
    refused(model, path, "unexpected in the file .1.: fc1000", only="backbone")
    load_weights(model, path, only="backbone", exclude="fc1000")
    refused(model, path, 'only must be "backbone"', only="heads")


def test_backbone_of_a_whole_file(saved):
    model, path = saved
    other = miniature(classes=5, seed=2)
    load_weights(other, path, only="backbone")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(other.get_layer("conv1").kernel), ops.convert_to_numpy(model.get_layer("conv1").kernel)
    )


# Saving


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("error", [OSError("No space left"), KeyboardInterrupt(), RuntimeError("HDF5 failed")])
def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch, name, error):
    save_weights(miniature(seed=1), tmp_path / name)
    before = (tmp_path / name).read_bytes()

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("mrcnn.weights.loading.write_metadata", fail)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else WeightsError
    with pytest.raises(expected):
        save_weights(miniature(seed=2), tmp_path / name, metadata={})
    assert (tmp_path / name).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", LAYOUTS)
def test_nan_is_not_saved(tmp_path, name):
    model = miniature(seed=1)
    model.get_layer("fpn_p2").bias.assign([0, np.nan, 0, 0])
    with pytest.raises(WeightsError, match="NaN or infinity in 1 weights: fpn_p2/bias"):
        save_weights(model, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_names_and_places_that_will_not_do(tmp_path):
    with pytest.raises(WeightsError, match=r"named \.h5"):
        save_weights(miniature(), tmp_path / "weights.keras")
    with pytest.raises(WeightsError, match="float32"):
        save_weights(miniature(), tmp_path / "weights.h5", dtype="int8")
    with pytest.raises(FileNotFoundError):
        save_weights(miniature(), tmp_path / "none" / "weights.h5")
    with pytest.raises(WeightsError, match="JSON"):
        save_weights(miniature(), tmp_path / "weights.h5", metadata={"config": object()})
    assert list(tmp_path.iterdir()) == []


def test_models_that_cannot_be_told_apart(tmp_path):
    image = layers.Input((3,))
    inner = keras.Model(image, layers.Dense(3, name="dense")(image), name="inner")
    model = keras.Model(image, layers.Dense(3, name="dense")(inner(image)))
    with pytest.raises(WeightsError, match="Two layers that hold weights are named dense"):
        save_weights(model, tmp_path / "twice.h5")
    with pytest.raises(WeightsError, match="holds no weights"):
        save_weights(keras.Model(image, layers.ReLU()(image)), tmp_path / "none.h5")
    shared = layers.Dense(3, name="shared")
    model = keras.Model(image, shared(shared(image)))
    save_weights(model, tmp_path / "shared.h5")
    assert load_weights(model, tmp_path / "shared.h5").loaded == ("shared",)


# Optimizer state


def trained(model, optimizer, steps=2):
    optimizer.build(model.trainable_variables)
    for _ in range(steps):
        gradients = [ops.ones_like(ops.convert_to_tensor(variable)) for variable in model.trainable_variables]
        optimizer.apply(gradients, model.trainable_variables)
    return optimizer


def state(optimizer):
    return [ops.convert_to_numpy(variable).copy() for variable in optimizer.variables]


@pytest.mark.parametrize("name", LAYOUTS)
def test_optimizer_state(tmp_path, name):
    model = miniature(seed=1)
    optimizer = trained(model, keras.optimizers.SGD(0.5, momentum=0.9, global_clipnorm=5.0))
    save_weights(model, tmp_path / name, optimizer=optimizer)
    assert inspect_weights(tmp_path / name).has_optimizer
    other = miniature()
    load_weights(other, tmp_path / name)
    assert_equal(values(other), values(model))
    fresh = keras.optimizers.SGD(0.25, momentum=0.9, global_clipnorm=5.0)
    fresh.build(other.trainable_variables)
    assert load_optimizer(fresh, tmp_path / name)
    assert float(ops.convert_to_numpy(fresh.learning_rate)) == 0.25
    assert int(ops.convert_to_numpy(fresh.iterations)) == 2
    fresh.learning_rate.assign(0.5)
    assert_equal(state(fresh), state(optimizer))


def test_optimizer_state_that_does_not_fit(tmp_path):
    model = miniature(seed=1)
    save_weights(model, tmp_path / "none.h5")
    save_weights(model, tmp_path / "sgd.h5", optimizer=trained(model, keras.optimizers.SGD(0.5, momentum=0.9)))

    def unchanged(optimizer, path, match):
        before = state(optimizer)
        with pytest.warns(UserWarning, match=match):
            assert not load_optimizer(optimizer, path)
        assert_equal(state(optimizer), before)

    sgd = trained(model, keras.optimizers.SGD(0.5, momentum=0.9), steps=1)
    unchanged(sgd, tmp_path / "none.h5", "holds no optimizer state: the optimizer starts afresh")
    unchanged(
        trained(model, keras.optimizers.Adam(), 1), tmp_path / "sgd.h5", "state of SGD, and the optimizer is Adam"
    )
    other = miniature(classes=4)
    unchanged(trained(other, keras.optimizers.SGD(0.5, momentum=0.9), 1), tmp_path / "sgd.h5", "other shapes")
    other = miniature()
    other.get_layer("conv1").trainable = False
    unchanged(
        trained(other, keras.optimizers.SGD(0.5, momentum=0.9), 1), tmp_path / "sgd.h5", "other trainable layers.*conv1"
    )
    with h5py.File(tmp_path / "sgd.h5", "r+") as file:
        file["optimizer_weights"]["0003"][...] = np.nan
    unchanged(sgd, tmp_path / "sgd.h5", "NaN")
    with pytest.raises(WeightsError, match=r"optimizer\.build"):
        load_optimizer(keras.optimizers.SGD(), tmp_path / "sgd.h5")
