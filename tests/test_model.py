"""The facade: from files and images to results, and what it says when something is wrong."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import h5py
import keras
import numpy as np
import pytest
from keras import ops

from mrcnn import model as model_module
from mrcnn import training
from mrcnn.config import Config, ConfigError
from mrcnn.keras_model import Network
from mrcnn.model import MaskRCNN
from mrcnn.weights import WeightsError, inspect_weights
from tests import golden, make_h5
from tests.shapes import ShapesConfig
from tests.small import SmallConfig


@cache
def golden_model(name):
    model = MaskRCNN("inference", golden.config_of(golden.load(name)), "logs")
    golden.fill(model.keras_model)
    return model


@cache
def shapes_model():
    return MaskRCNN("inference", ShapesConfig(), "logs")


@cache
def small_model():
    model = MaskRCNN("inference", SmallConfig(), "logs")
    golden.fill_small(model.keras_model)
    return model


@pytest.mark.backends
@pytest.mark.parametrize("name", ["e2e_r50_b1", pytest.param("e2e_r101_b1", marks=pytest.mark.slow)])
def test_detect_golden(name):
    """From the image to boxes and masks in its pixels, as the original's detect() gave them."""
    data = golden.load(name)
    result = golden_model(name).detect([data["image0"]])[0]
    golden.check(f"{name} detect rois", result["rois"], data["det0_rois"])
    golden.check(f"{name} detect class_ids", result["class_ids"], data["det0_class_ids"])
    golden.check(f"{name} detect scores", result["scores"], data["det0_scores"], atol=1e-4)
    shape = tuple(data["det0_masks_shape"])
    expected = np.unpackbits(data["det0_masks_packed"])[: np.prod(shape)].reshape(shape)
    assert result["masks"].shape == shape
    differing = np.mean(result["masks"] != expected)
    print(f"golden {name} detect masks: {differing:.2e} of the pixels differ")
    assert differing < 1e-4  # a probability within 1e-5 of one half may fall on either side


@pytest.mark.parametrize("name", ["e2e_r50_b1"])
def test_mold_inputs_golden(name):
    data, model = golden.load(name), golden_model(name)
    molded, metas, windows = model.mold_inputs([data["image0"]])
    golden.check(f"{name} input_image", molded, data["input_image"], atol=1e-5)
    assert molded.dtype == np.float64
    golden.check(f"{name} input_image_meta", metas, data["input_image_meta"], atol=1e-6)
    golden.check(f"{name} windows", windows, data["windows"])
    golden.check(f"{name} input_anchors", model.get_anchors(molded.shape[1:])[None], data["input_anchors"], atol=1e-7)
    assert model.anchors.shape == data["input_anchors"].shape[1:]  # these are in pixels


def test_detect_molded_answers_in_pixels_of_the_molded_image():
    data, model = golden.load("e2e_r50_b1"), golden_model("e2e_r50_b1")
    image = data["image0"][:80, :60]  # to be enlarged, and padded
    molded, metas, windows = model.mold_inputs([image])
    found, whole = model.detect_molded(molded, metas)[0], model.detect([image])[0]
    assert len(whole["rois"])
    assert found["masks"].shape == (*molded.shape[1:3], len(found["rois"]))
    scale, origin = metas[0, 11], np.tile(windows[0][:2], 2)
    assert scale > 1 and origin.any()
    for box, score in zip(whole["rois"], whole["scores"], strict=True):
        same = np.argmin(np.abs(found["scores"] - score))
        np.testing.assert_allclose(found["rois"][same], box * scale + origin, atol=2)


def test_detect_takes_any_number_of_images_of_any_size(rng):
    model = shapes_model()
    shapes = [(100, 80, 3), (64, 200), (50, 50, 1), (300, 128, 4), (1, 1, 3)]  # grayscale and RGBA among them
    images = [rng.integers(0, 255, shape, dtype=np.uint8) for shape in shapes]
    results = model.detect(images)
    assert len(results) == len(images) > model.config.BATCH_SIZE
    for image, result in zip(images, results, strict=True):
        count = len(result["rois"])
        assert result["masks"].shape == (*image.shape[:2], count)
        assert result["masks"].dtype == bool
        assert len(result["scores"]) == len(result["class_ids"]) == count
    assert model.detect([]) == []


def test_detect_of_sizes_mixed_in_a_batch_is_as_of_each_alone(rng):
    config = ShapesConfig.from_dict({"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 64, "DETECTION_MIN_CONFIDENCE": 0})
    model = MaskRCNN("inference", config, "logs")
    golden.fill_small(model.keras_model)
    images = [rng.integers(0, 255, shape, dtype=np.uint8) for shape in [(64, 64, 3), (64, 128, 3), (64, 100, 3)]]
    together = model.detect(images)
    assert any(len(result["rois"]) for result in together)
    for image, result in zip(images, together, strict=True):
        alone = model.detect([image])[0]
        np.testing.assert_allclose(result["rois"], alone["rois"], atol=1)
        np.testing.assert_allclose(result["scores"], alone["scores"], atol=1e-5)


def test_detect_in_tiles(rng):
    model, image = shapes_model(), rng.integers(0, 255, (64, 150, 3), dtype=np.uint8)
    (result,) = model.detect([image], masks="rle", tile=64, overlap=0.4)
    (expected,) = model.detector.detect([image], masks="rle", tile=64, overlap=0.4)
    for key in ("rois", "class_ids", "scores"):
        np.testing.assert_array_equal(result[key], expected[key])
    assert result["masks"] == expected["masks"] and all(rle["size"] == [64, 150] for rle in result["masks"])


def test_detect_says_which_image_it_cannot_take():
    with pytest.raises(ValueError, match=r"Image 1 of 2: .*5 channels"):
        shapes_model().detect([np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 5), np.uint8)])
    with pytest.raises(ValueError, match=r"list of images.*detect\(\[image\]\)"):
        shapes_model().detect(np.zeros((64, 64, 3), np.uint8))


def test_detect_verbose_prints_what_goes_in(capsys):
    model, image = shapes_model(), np.zeros((64, 64, 3), np.uint8)
    model.detect([image], verbose=1)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [
        "Processing 1 images",
        "image                    shape: (64, 64, 3)           min:    0.00000  max:    0.00000  uint8",
    ]
    names = ["Processing", "image", "molded_images", "image_metas", "anchors"]
    assert [line.split(" ")[0] for line in printed] == names
    molded, metas, _ = model.mold_inputs([image])
    model.detect_molded(molded, metas, verbose=1)
    assert [line.split(" ")[0] for line in capsys.readouterr().out.splitlines()] == names


def test_weights_saved_by_the_model_tell_their_configuration(tmp_path):
    model = shapes_model()
    model.save_weights(tmp_path / "mine.h5")
    info = inspect_weights(tmp_path / "mine.h5")
    assert (info.kind, info.config["NAME"], info.num_classes) == ("mask_rcnn", "shapes", 4)
    assert MaskRCNN("inference", ShapesConfig(), tmp_path).load_weights(tmp_path / "mine.h5").complete


def test_a_mode_does_what_it_is_for():
    with pytest.raises(ValueError, match=r"train needs a model in 'training' mode"):
        shapes_model().train(None, None, 0.1, 1, "all")
    training = MaskRCNN("training", ShapesConfig(), "logs")
    with pytest.raises(ValueError, match=r"detect needs a model in 'inference' mode"):
        training.detect([])
    assert training.get_anchors((128, 128, 3)).shape == training.anchors.shape  # these need no mode


def test_a_copy_of_the_network_is_made_anew_after_loading_weights(tmp_path):
    plain = shapes_model()
    plain.save_weights(tmp_path / "mine.h5")
    first = plain.detector
    assert (first.engine.name, first.engine.precision) == ("keras", "float32")
    plain.load_weights(tmp_path / "mine.h5")
    assert plain.detector is first
    model = MaskRCNN("inference", ShapesConfig(), "logs", precision="bf16")
    first = model.detector
    assert (first.engine.name, first.engine.precision) == ("keras", "bfloat16")
    assert model.detector is first
    model.load_weights(tmp_path / "mine.h5")
    assert model.detector is not first


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"engine": "caffe"}, "engine must be auto, keras, .*'caffe'"),
        ({"precision": "float8"}, "precision must be .*'float8'"),
        ({"threads": 0}, "threads must be .*0"),
    ],
)
def test_engine_arguments_that_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        MaskRCNN("inference", ShapesConfig(), "logs", **wrong)


@pytest.mark.parametrize("engine", ["auto", "keras", "openvino"])
def test_threads_are_told_before_the_network_is_built(engine, monkeypatch):
    told = []
    monkeypatch.setattr(model_module, "preset_threads", lambda threads, name: told.append((threads, name)))
    monkeypatch.setattr(MaskRCNN, "build", lambda self, mode, config: told.append(mode))
    MaskRCNN("inference", ShapesConfig(), "logs", engine=engine, threads=1)
    assert told == [(1, engine), "inference"]


def test_another_engine_and_its_threads():
    model = MaskRCNN("inference", ShapesConfig(), "logs", engine="openvino", precision="float32", threads=1)
    made = model.detector.engine
    assert (made.name, made.precision, made.threads) == ("openvino", "float32", 1)


def test_threads_that_share_a_model_make_one_detector(monkeypatch):
    model, made = shapes_model(), []
    model._detector = None

    class Slow:
        def __init__(self, *_, **__):
            time.sleep(0.05)
            made.append(self)

    monkeypatch.setattr(model_module, "Detector", Slow)
    with ThreadPoolExecutor(8) as pool:
        detectors = list(pool.map(lambda _: model.detector, range(8)))
    assert made == [detectors[0]] and set(detectors) == set(made)
    model._detector = None


def test_detect_gives_masks_in_other_forms(rng):
    image = rng.integers(0, 255, (100, 80, 3), dtype=np.uint8)
    model = shapes_model()
    molded, metas, _ = model.mold_inputs([image])
    assert "masks" not in model.detect([image], masks="none")[0]
    assert "masks" not in model.detect_molded(molded, metas, masks="none")[0]
    assert isinstance(model.detect([image], masks="rle")[0]["masks"], list)


def test_resnet101_of_81_classes_takes_the_released_layout_and_a_large_image(tmp_path, rng):
    class CocoConfig(Config):
        NAME = "coco"
        IMAGES_PER_GPU = 1
        NUM_CLASSES = 81
        DETECTION_MIN_CONFIDENCE = 0

    path = tmp_path / "mask_rcnn_coco.h5"
    with h5py.File(path, "w") as file:
        make_h5.write(file, make_h5.manifest("resnet101_81"))
    model = MaskRCNN("inference", CocoConfig(), tmp_path)
    report = model.load_weights(path, by_name=True)
    assert report.complete
    assert not report.excluded
    assert report.parameters == 64_158_584
    result = model.detect([rng.integers(0, 255, (768, 1024, 3), dtype=np.uint8)])[0]
    assert result["masks"].shape == (768, 1024, len(result["rois"]))
    assert np.isfinite(result["scores"]).all()

    other = MaskRCNN("inference", CocoConfig.from_dict({"NUM_CLASSES": 2, "IMAGES_PER_GPU": 1}), tmp_path)
    with pytest.raises(WeightsError, match="NUM_CLASSES is 2, the file has 81: exclude"):
        other.load_weights(path, by_name=True)
    exclude = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]
    for forgotten in ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask"):
        with pytest.raises(WeightsError, match=rf"exclude {forgotten}\.\n.*{forgotten}/kernel: model \("):
            other.load_weights(path, by_name=True, exclude=[name for name in exclude if name != forgotten])
    assert set(other.load_weights(path, by_name=True, exclude=exclude).excluded) <= set(exclude)


def test_find_last_takes_the_newest_checkpoint(tmp_path):
    model = MaskRCNN("inference", ShapesConfig(), tmp_path)
    with pytest.raises(FileNotFoundError, match="No training run of 'shapes'"):
        model.find_last()
    for run in ("shapes20250101T0000", "shapes20260101T0000", "other20270101T0000", "shapes_v220280101T0000"):
        (tmp_path / run).mkdir()
    with pytest.raises(FileNotFoundError, match="no epoch was finished"):
        model.find_last()
    for epoch in (1, 2, 10):
        (tmp_path / "shapes20260101T0000" / f"mask_rcnn_shapes_{epoch:04d}.h5").touch()
    assert model.find_last().endswith("mask_rcnn_shapes_0010.h5")
    (tmp_path / "shapes20270101T0000").mkdir()  # stopped in its first epoch
    assert model.find_last().endswith("mask_rcnn_shapes_0010.h5")
    for run in tmp_path.glob("shapes202*"):
        run.rename(tmp_path / f"{run.name}-good")  # a name of the user's own, where there is none of ours
    assert model.find_last() == str(tmp_path / "shapes20260101T0000-good" / "mask_rcnn_shapes_0010.h5")


def test_log_directory_and_epoch_come_from_a_checkpoints_path(tmp_path, capsys):
    model = MaskRCNN("training", ShapesConfig(), tmp_path)
    assert model.epoch == 0
    run = tmp_path / "shapes20260102T0304"  # under `model_dir` and of the configuration's name, wherever the file was
    model.set_log_dir(tmp_path / "elsewhere" / "other20260102T0304" / "mask_rcnn_other_0007.h5")
    assert (model.epoch, model.log_dir) == (7, str(run))
    assert model.checkpoint_path.format(epoch=8) == str(run / "mask_rcnn_shapes_0008.h5")
    assert "Re-starting from epoch 7" in capsys.readouterr().out
    model.set_log_dir(tmp_path / "mask_rcnn_coco.h5")  # not a checkpoint of a run
    assert model.epoch == 0
    assert str(tmp_path / "shapes2") in model.log_dir


@pytest.fixture
def no_training(monkeypatch):
    """What `train` prints and prepares, without the work."""
    monkeypatch.setattr(training, "fit", lambda *arguments, **options: None)


def test_train_prints_what_it_always_did(tmp_path, capsys, no_training):
    model = MaskRCNN("training", ShapesConfig(), tmp_path)
    model.train(None, None, learning_rate=0.001, epochs=2, layers="heads", preflight_seconds=0)
    lines = capsys.readouterr().out.splitlines()
    path = f"{model.log_dir}/mask_rcnn_shapes_{{epoch:04d}}.h5"
    assert lines[:5] == [
        "", "Starting at epoch 0. LR=0.001", "", f"Checkpoint Path: {path}", "Selecting layers to train",
    ]  # fmt: skip
    assert lines[5] == "fpn_c5p5               (Conv2D)"
    assert "rpn_conv_shared        (Conv2D)" in lines
    assert "mrcnn_class_bn1        (BatchNorm)" in lines
    assert not any(line.startswith(("res", "conv1", "ROI")) for line in lines)
    model.set_trainable("mrcnn_mask", indent=2)
    assert capsys.readouterr().out == "Selecting layers to train\n  mrcnn_mask             (Conv2D)\n"
    model.set_trainable(".*", verbose=0)
    assert capsys.readouterr().out == ""


def test_train_checks_what_a_script_has_changed_since(tmp_path, no_training):
    model = MaskRCNN("training", SmallConfig(), tmp_path)
    model.config.STEPS_PER_EPOCH = 5 / 2
    model.train(None, None, 0.001, 1, "heads", verbose=0)
    assert model.config.STEPS_PER_EPOCH == 3
    model.config.VALIDATION_STEPS = "few"
    with pytest.raises(ConfigError, match="VALIDATION_STEPS must be .*'few'"):
        model.train(None, None, 0.001, 2, "heads", verbose=0)


def test_train_calls_what_a_subclass_overrides(tmp_path, no_training):
    """As forks did, for another optimizer or other layers."""

    class Mine(MaskRCNN):
        def set_trainable(self, layer_regex, keras_model=None, indent=0, verbose=1):
            super().set_trainable("mrcnn_mask", verbose=0)

        def compile(self, learning_rate, momentum):
            optimizer = keras.optimizers.Adam(learning_rate)
            self.keras_model.compile(optimizer=optimizer, loss=[None] * len(self.keras_model.outputs))

    model = Mine("training", ShapesConfig(), tmp_path)
    model.train(None, None, 0.001, 1, "all", preflight_seconds=0)
    assert type(model.keras_model.optimizer).__name__ == "Adam"
    assert [weight.path.split("/")[-2:] for weight in model.keras_model.trainable_weights] == [
        ["mrcnn_mask", "kernel"],
        ["mrcnn_mask", "bias"],
    ]


def test_a_subclass_whose_init_calls_none_of_ours(tmp_path, rng):
    """Forks of the original did so, to change what it does."""

    class Mine(MaskRCNN):
        def __init__(self, mode, config, model_dir):
            self.mode = mode
            self.config = config
            self.model_dir = model_dir
            self.set_log_dir()
            self.keras_model = self.build(mode=mode, config=config)

    model, other = Mine("inference", SmallConfig(), str(tmp_path)), small_model()
    other.save_weights(tmp_path / "mine.h5")
    assert model.load_weights(str(tmp_path / "mine.h5"), by_name=True).complete
    image = rng.integers(0, 255, (50, 64, 3), dtype=np.uint8)
    found, expected = model.detect([image])[0], other.detect([image])[0]
    assert len(expected["rois"])
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    assert model.epoch == 0 and model.anchors.shape == other.anchors.shape
    with pytest.raises(FileNotFoundError):
        model.find_last()


def test_a_network_that_is_put_in_the_place_of_another_is_what_detects(rng):
    model = small_model()
    image, network = rng.integers(0, 255, (50, 64, 3), dtype=np.uint8), model.keras_model
    assert len(model.detect([image])[0]["rois"])
    model.keras_model = keras.Model(network.inputs, [ops.zeros_like(network.outputs[0]), *network.outputs[1:]])
    assert isinstance(model.keras_model, Network)  # of the same layers, and with the old names of methods
    assert model.keras_model.get_layer("conv1") is network.get_layer("conv1")
    assert not len(model.detect([image])[0]["rois"])
    model.keras_model = network
    assert model.keras_model is network


def test_anchors_are_kept_by_shape():
    model = MaskRCNN("inference", ShapesConfig(), "logs")
    assert model._anchor_cache == {}
    anchors = model.get_anchors((64, 64, 3))
    pixels = model.anchors
    assert anchors.dtype == np.float32
    assert model.get_anchors(np.array([64, 64, 3])) is anchors
    assert list(model._anchor_cache) == [(64, 64, 3)]
    assert model._anchor_cache[64, 64, 3] is anchors
    model.get_anchors((128, 64, 3))
    assert len(model.anchors) == 2 * len(pixels)
    model.get_anchors((64, 64, 3))
    assert model.anchors is pixels
    model.config.RPN_ANCHOR_SCALES = (8, 16, 24, 32, 48)
    model._anchor_cache = {}  # what scripts did to have them made anew
    assert not np.array_equal(model.get_anchors((64, 64, 3)), anchors)
    for side in range(1, 20):
        model.get_anchors((64 * side, 64, 3))
    assert len(model._anchor_cache) == 8


def test_trainable_layers():
    model = shapes_model()
    layers = {layer.name: layer for layer in model.get_trainable_layers()}
    assert {"conv1", "bn_conv1", "fpn_p2", "rpn_model", "mrcnn_class_bn1", "mrcnn_mask"} <= set(layers)
    assert not {"input_image", "ROI", "rpn_class", "fpn_p6", "mrcnn_bbox", "roi_align_mask"} & set(layers)
    assert all(layer.get_weights() for layer in layers.values())
    assert sum(len(layer.get_weights()) for layer in layers.values()) == len(model.keras_model.weights)
    training_layers = MaskRCNN("training", ShapesConfig(), "logs").get_trainable_layers()
    assert {layer.name for layer in training_layers} == set(layers)
    conv = layers["conv1"]
    assert model.find_trainable_layer(conv) is conv
    assert model.find_trainable_layer(keras.layers.TimeDistributed(keras.layers.TimeDistributed(conv))) is conv
