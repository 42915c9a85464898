"""The Keras model inside MaskRCNN, as scripts of 2019 use it."""

from __future__ import annotations

import warnings

import h5py
import keras
import numpy as np
import pytest
from keras import ops

from mrcnn import habits
from mrcnn.keras_model import Network
from mrcnn.model import MaskRCNN
from mrcnn.weights import WeightsError, inspect_weights, save_weights
from tests import golden
from tests.small import SmallConfig, images


@pytest.fixture(scope="module")
def model():
    model = MaskRCNN("inference", SmallConfig(), "logs")
    golden.fill_small(model.keras_model)
    return model


@pytest.fixture(scope="module")
def trainable():
    return MaskRCNN("training", SmallConfig(), "logs")


@pytest.fixture
def nothing_told(monkeypatch):
    monkeypatch.setattr(habits, "_told", set())


def values(network):
    return [ops.convert_to_numpy(weight) for weight in network.weights]


def test_save_weights_writes_the_originals_layout(model, tmp_path):
    model.keras_model.save_weights(str(tmp_path / "mask_rcnn_shapes.h5"))
    with h5py.File(tmp_path / "mask_rcnn_shapes.h5") as file:
        assert {b"input_image", b"rpn_model", b"ROI", b"mrcnn_mask"} <= set(file.attrs["layer_names"])
        assert file["conv1"].attrs["weight_names"].tolist() == [b"conv1/kernel:0", b"conv1/bias:0"]
        kernel = file["rpn_model/rpn_conv_shared/kernel:0"][()]
        np.testing.assert_array_equal(
            kernel, ops.convert_to_numpy(model.keras_model.get_layer("rpn_model").get_layer("rpn_conv_shared").kernel)
        )


@pytest.mark.parametrize("name", ["mine.h5", "mine.weights.h5"])
def test_weights_go_from_inference_to_training_and_back(model, trainable, tmp_path, name):
    before = values(model.keras_model)
    golden.fill_small(trainable.keras_model, seed=1)
    model.keras_model.save_weights(tmp_path / name)
    assert trainable.keras_model.load_weights(str(tmp_path / name), by_name=True).complete
    golden.fill_small(model.keras_model, seed=2)
    trainable.keras_model.save_weights(str(tmp_path / name), overwrite=True)
    assert model.keras_model.load_weights(tmp_path / name).complete
    for value, expected in zip(values(model.keras_model), before, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_files_that_are_refused(model, tmp_path):
    with pytest.raises(WeightsError, match=r"named \.h5.*mine\.ckpt"):
        model.keras_model.save_weights(tmp_path / "mine.ckpt")
    path = tmp_path / "mine.h5"
    path.touch()
    with pytest.raises(FileExistsError, match="overwrite is False"):
        model.keras_model.save_weights(path, overwrite=False)
    with pytest.raises(FileNotFoundError):
        model.keras_model.load_weights(tmp_path / "none.h5", by_name=True)


def test_layers_that_do_not_fit_raise_or_are_skipped_aloud(model, tmp_path):
    other = MaskRCNN("inference", SmallConfig.from_dict({"NUM_CLASSES": 2}), "logs")
    model.keras_model.save_weights(tmp_path / "four.h5")
    before = values(other.keras_model)
    with pytest.raises(WeightsError, match="NUM_CLASSES is 2, the file has 4: exclude"):
        other.keras_model.load_weights(tmp_path / "four.h5", by_name=True)
    for value, expected in zip(values(other.keras_model), before, strict=True):
        np.testing.assert_array_equal(value, expected)
    with pytest.warns(UserWarning, match="does not fit them: mrcnn_bbox_fc, mrcnn_class_logits, mrcnn_mask"):
        report = other.keras_model.load_weights(tmp_path / "four.h5", by_name=True, skip_mismatch=True)
    assert "mrcnn_mask" not in report.loaded
    np.testing.assert_array_equal(
        *(ops.convert_to_numpy(m.keras_model.get_layer("conv1").kernel) for m in (model, other))
    )


def test_a_backbone_alone_is_loaded_by_name(model, trainable, tmp_path):
    network = model.keras_model
    save_weights(keras.Model(network.input[0], network.get_layer("res5a_out").output), tmp_path / "backbone.h5")
    assert inspect_weights(tmp_path / "backbone.h5").kind == "backbone only"
    with pytest.raises(WeightsError):
        trainable.keras_model.load_weights(tmp_path / "backbone.h5")
    report = trainable.keras_model.load_weights(tmp_path / "backbone.h5", by_name=True)
    assert "conv1" in report.loaded
    assert "mrcnn_mask" not in report.loaded


def test_a_backbone_of_another_depth_is_loaded_by_name(model, tmp_path):
    """As sample scripts give a ResNet-101 the weights of a ResNet-50, and the other way round."""
    network = model.keras_model
    save_weights(keras.Model(network.input[0], network.get_layer("res4a_out").output), tmp_path / "short.h5")
    lacking = r"It lacks these layers, which stay as they are \(\d+\): res5a_branch2a, bn5a_branch2a, "
    for load in (model.load_weights, network.load_weights):
        with pytest.raises(WeightsError):
            load(tmp_path / "short.h5")
        with pytest.warns(UserWarning, match=lacking) as told:
            report = load(str(tmp_path / "short.h5"), by_name=True)
        assert told[0].filename == __file__
        assert "conv1" in report.loaded and "res5a_branch2a" not in report.loaded
    with pytest.warns(UserWarning, match=lacking):
        report = model.load_weights(tmp_path / "short.h5", by_name=True, exclude="bn_conv1")
    assert "conv1" in report.loaded and "bn_conv1" not in report.loaded

    model.keras_model.save_weights(tmp_path / "deep.h5")
    with h5py.File(tmp_path / "deep.h5", "r+") as file:
        file["res4g_branch2a/res4g_branch2a/kernel:0"] = np.ones((1, 1, 2, 2), np.float32)
        file["res4g_branch2a"].attrs["weight_names"] = [b"res4g_branch2a/kernel:0"]
        file.attrs["layer_names"] = [*file.attrs["layer_names"], b"res4g_branch2a"]
    with pytest.raises(WeightsError, match="res4g_branch2a"):
        model.load_weights(tmp_path / "deep.h5")
    with pytest.warns(UserWarning, match=r"These of its layers are left out \(1\): res4g_branch2a\."):
        assert "mrcnn_mask" in model.load_weights(tmp_path / "deep.h5", by_name=True).loaded
    with h5py.File(tmp_path / "deep.h5", "r+") as file:
        file.attrs["layer_names"] = [name for name in file.attrs["layer_names"] if name != b"mrcnn_mask_conv2"]
    with pytest.raises(WeightsError, match="mrcnn_mask_conv2"):  # a head is not left out
        model.load_weights(tmp_path / "deep.h5", by_name=True)


# What notebooks ask for by name, and the shapes that they reckon with.
SHAPES = {
    "input_image": (None, None, None, 3),
    "input_image_meta": (None, 16),
    "res2b_out": (None, None, None, 32),
    "fpn_p2": (None, None, None, 64),
    "fpn_p6": (None, None, None, 64),
    "rpn_class": (None, None, 2),
    "rpn_bbox": (None, None, 4),
    "ROI": (None, 50, 4),
    "roi_align_classifier": (None, 50, 7, 7, 64),
    "mrcnn_class_conv1": (None, 50, 1, 1, 128),
    "mrcnn_class_bn2": (None, 50, 1, 1, 128),
    "mrcnn_class_logits": (None, 50, 4),
    "mrcnn_class": (None, 50, 4),
    "mrcnn_bbox_fc": (None, 50, 16),
    "mrcnn_bbox": (None, 50, 4, 4),
    "mrcnn_detection": (None, 10, 6),
    "roi_align_mask": (None, 10, 14, 14, 64),
    "mrcnn_mask_conv4": (None, 10, 14, 14, 32),
    "mrcnn_mask_deconv": (None, 10, 28, 28, 32),
    "mrcnn_mask": (None, 10, 28, 28, 4),
}


@pytest.mark.parametrize("name", SHAPES)
def test_outputs_of_layers(model, name):
    layer = model.keras_model.get_layer(name)
    assert layer.name == name
    assert tuple(layer.output.shape) == SHAPES[name]


def test_a_layer_of_the_heads_is_the_layer_itself_but_for_its_output(model):
    network = model.keras_model
    layer = network.get_layer("mrcnn_mask")
    inside = next(one for one in network.layers if one.name == "mrcnn_mask")
    assert isinstance(layer, keras.layers.Conv2D)
    assert layer.kernel is inside.kernel
    assert repr(layer) == repr(inside)
    layer.trainable = False
    assert inside.trainable is False
    layer.trainable = True
    assert tuple(layer(np.zeros((1, 2, 2, 32), np.float32)).shape) == (1, 2, 2, 4)
    assert network.get_layer(index=1).name == network.layers[1].name
    with pytest.raises(ValueError, match="No such layer: res9z"):
        network.get_layer("res9z")


@pytest.mark.backends
def test_predict_gives_the_seven_outputs(model, rng):
    pictures = images(rng)
    molded, metas, windows = model.mold_inputs(pictures)
    anchors = model.get_anchors(molded.shape[1:])
    anchors = np.broadcast_to(anchors, (2, *anchors.shape))
    outputs = model.keras_model.predict([molded, metas, anchors], verbose=0)
    assert [output.shape for output in outputs] == [
        (2, 10, 6), (2, 50, 4), (2, 50, 4, 4), (2, 10, 28, 28, 4), (2, 50, 4), (2, 1023, 2), (2, 1023, 4),
    ]  # fmt: skip
    results = model.detect(pictures)
    assert sum(len(result["rois"]) for result in results)
    for index, result in enumerate(results):
        boxes, class_ids, scores, masks = model.unmold_detections(
            outputs[0][index], outputs[3][index], (64, 64, 3), molded[index].shape, windows[index]
        )
        np.testing.assert_array_equal(result["rois"], boxes)
        np.testing.assert_array_equal(result["class_ids"], class_ids)
        np.testing.assert_allclose(result["scores"], scores, atol=1e-6)
        assert np.mean(result["masks"] != masks) < 1e-3


def test_what_keras_does_by_itself(model, tmp_path):
    lines = []
    model.keras_model.summary(print_fn=lambda text, **options: lines.append(text))
    assert "mrcnn_detection" in "".join(lines)
    model.keras_model.save(tmp_path / "mine.keras")
    again = keras.models.load_model(tmp_path / "mine.keras")
    assert isinstance(again, Network)
    for value, expected in zip(values(again), values(model.keras_model), strict=True):
        np.testing.assert_array_equal(value, expected)


class Doubling(Network):
    """Learns a factor; its loss is its output, as that of the training network is."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.square(y_pred - 2.0))


def doubling():
    inputs = [keras.Input((1,), name="a"), keras.Input((1,), name="b")]
    outputs = keras.layers.Dense(1, name="dense")(keras.layers.Add()(inputs))
    network = Doubling(inputs, outputs)
    network.compile(optimizer=keras.optimizers.SGD(0.01), loss=[None])
    return network


def batches():
    """As `data_generator` gives them: lists, and no targets."""
    while True:
        yield [np.ones((4, 1), np.float32), np.ones((4, 1), np.float32)], []


@pytest.mark.backends
def test_fit_takes_batches_of_lists():
    network = doubling()
    history = network.fit(
        batches(), steps_per_epoch=5, epochs=2, validation_data=batches(), validation_steps=1, verbose=0
    ).history
    assert history["val_loss"][1] < history["val_loss"][0]
    arrays = next(batches())[0]
    assert network.fit(arrays, [], verbose=0).history["loss"]  # no generator


@pytest.mark.backends
def test_the_generator_methods_of_keras_2(nothing_told):
    network = doubling()
    old = {"max_queue_size": 100, "workers": 0, "use_multiprocessing": True}
    with pytest.warns(FutureWarning, match=r"keras_model\.fit_generator: calls keras_model\.fit") as told:
        history = network.fit_generator(
            batches(), initial_epoch=1, epochs=3, steps_per_epoch=2, callbacks=[], validation_data=batches(),
            validation_steps=1, verbose=0, **old,
        )  # fmt: skip
    assert told[0].filename == __file__
    assert history.epoch == [1, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        network.fit_generator(batches(), steps_per_epoch=1, verbose=0)  # told already
    with pytest.warns(FutureWarning, match="predict_generator"):
        assert network.predict_generator(batches(), steps=2, verbose=0, **old).shape == (8, 1)
    with pytest.warns(FutureWarning, match="evaluate_generator"):
        assert np.ndim(network.evaluate_generator(batches(), steps=1, verbose=0, **old)) == 0


@pytest.mark.parametrize(
    ("habit", "advice"),
    [
        (lambda network: network._make_predict_function(), "detect may be called from any thread"),
        (lambda network: network._make_train_function(), "does nothing"),
        (lambda network: network._make_test_function(), "does nothing"),
        (lambda network: network.metrics_tensors.append(1), "write a Keras callback"),
        (lambda network: network.add_metric(1, name="mine"), "write a Keras callback"),
        (lambda network: setattr(network, "metrics_tensors", []), "write a Keras callback"),
        (lambda network: setattr(network, "uses_learning_phase", True), "the argument `training` of a call decides"),
    ],
)
def test_habits_without_effect_are_told_once(model, nothing_told, habit, advice):
    with pytest.warns(FutureWarning, match=advice) as told:
        habit(model.keras_model)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        habit(model.keras_model)
        assert model.keras_model.uses_learning_phase is False
        assert model.keras_model.metrics_tensors == []


def test_a_compile_of_ones_own(trainable):
    """What a subclass's `compile` did: its own optimizer, and no loss, for the network has its own."""
    network = trainable.keras_model
    network._losses = []
    network.compile(optimizer=keras.optimizers.Adam(0.001), loss=[None] * len(network.outputs))
    assert network.loss_weights == dict.fromkeys(SmallConfig.LOSS_WEIGHTS, 1.0)
    assert network.weight_decay == SmallConfig.WEIGHT_DECAY
    assert {"loss", "rpn_class_loss", "mrcnn_mask_loss"} <= set(network.metrics_names)
    assert not network.jit_compile or keras.backend.backend() == "jax"
    with pytest.raises(NotImplementedError, match="LOSS_WEIGHTS.*self.add_loss"):
        network.add_loss(network.get_layer("rpn_class_loss").output)
