"""Training: golden steps of SGD, stages, checkpoints, resuming, and what stops it."""

from __future__ import annotations

import csv
import os
import re
import threading
import time
import warnings
from pathlib import Path

import keras
import keras.layers as KL
import numpy as np
import pytest
from keras import ops

from mrcnn import model as modellib
from mrcnn import training
from mrcnn.callbacks import TrainingError
from mrcnn.config import LOSS_NAMES, ConfigError
from mrcnn.data.augmentation import Brightness, Flip
from mrcnn.data.batches import BatchError, BatchLoader
from mrcnn.evaluation import evaluate
from mrcnn.model import MaskRCNN, data_generator
from mrcnn.network import build_network
from tests import golden
from tests.backbones import five_convolutions
from tests.shapes import Shapes, ShapesConfig

# Minutes on JAX and PyTorch on a CPU: there in `make test-all` only. (Marking twice for all backends says nothing new.)
SLOW_BUT_ON_TENSORFLOW = pytest.mark.backends if keras.backend.backend() == "tensorflow" else pytest.mark.slow
SLOW_ON_JAX = pytest.mark.slow if keras.backend.backend() == "jax" else pytest.mark.backends


class QuickConfig(ShapesConfig):
    """For what happens around the steps: a network that is soon traced."""

    BACKBONE = staticmethod(five_convolutions)
    TOP_DOWN_PYRAMID_SIZE = RPN_CONV_SIZE = MASK_CONV_SIZE = 16
    FPN_CLASSIF_FC_LAYERS_SIZE = 32
    IMAGES_PER_GPU = 2
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (8, 16, 24, 32, 48)
    STEPS_PER_EPOCH = 2


class Untraced(training.TrainingModel):
    """Runs its steps one operation after another: for a few of them, tracing would take most of the time."""

    def compile(self, **arguments):
        super().compile(**{**arguments, "run_eagerly": True, "jit_compile": False})


@pytest.fixture
def untraced(monkeypatch):
    monkeypatch.setattr(training, "TrainingModel", Untraced)


@pytest.mark.backends
@pytest.mark.parametrize(
    "stage",
    [
        # Over a minute on JAX.
        pytest.param("all", marks=[pytest.mark.slow] if keras.backend.backend() == "jax" else []),
        pytest.param("heads", marks=SLOW_BUT_ON_TENSORFLOW),
        pytest.param("4+", marks=pytest.mark.slow),
    ],
)
def test_three_steps_of_sgd_golden(stage):
    data, inputs = golden.load("train_r50_sgd"), golden.load("train_r50_identity")
    config = golden.config_of(inputs)
    network = build_network(config, "training", training.TrainingModel)
    golden.fill(network)
    network.get_layer("proposal_targets").shuffle = False
    training.set_trainable(network, training.stage_pattern(stage))
    names = sorted("/".join(w.path.split("/")[-2:]) for w in network.trainable_weights)
    assert names == sorted(data[f"{stage}.trainable"].tolist())

    before = {"/".join(w.path.split("/")[-2:]): ops.convert_to_numpy(w) for w in network.weights}
    training.compile_model(network, config, float(data["lr"]), float(data["momentum"]))
    batch = tuple(inputs[f"in.{t.name}"].astype(t.dtype) for t in network.inputs)
    for step, expected in enumerate(data[f"{stage}.history_f64"]):
        network.reset_metrics()
        logs = network.train_on_batch(batch, return_dict=True)
        found = [float(logs[name]) for name in data[f"{stage}.metrics_names"]]
        golden.check(f"sgd {stage} losses of step {step}", found, expected, atol=2e-3 if step else 1e-4)

    after = {"/".join(w.path.split("/")[-2:]): ops.convert_to_numpy(w) for w in network.weights}
    for key in [key[len(stage) + 4 :] for key in data if key.startswith(f"{stage}.w3.")]:
        golden.check(f"sgd {stage} {key}", after[key], data[f"{stage}.w3.{key}"], atol=1e-4)
    names = data[f"{stage}.delta_names"].tolist()
    moved = np.array([np.linalg.norm((after[n].astype(np.float64) - before[n]).ravel()) for n in names])
    golden.check(f"sgd {stage} how far weights moved", moved, data[f"{stage}.delta_norms_f64"], atol=1e-4, rtol=2e-2)


@pytest.mark.backends
def test_l2_rule_golden():
    data = golden.load("train_r50_identity")
    network = build_network(golden.config_of(data), "training", training.TrainingModel)
    golden.fill(network)
    network.configure({}, golden.config_of(data).WEIGHT_DECAY)
    penalty = float(ops.convert_to_numpy(network.l2_penalty()))
    golden.check("L2 penalty", penalty, data["out.reg_loss_exact_f64"], atol=1e-7)


@pytest.mark.backends
@SLOW_BUT_ON_TENSORFLOW
def test_overfits_eight_images(tmp_path):
    dataset = Shapes(8)
    model = MaskRCNN("training", ShapesConfig(), tmp_path)
    model.train(dataset, None, learning_rate=0.02, epochs=5, layers="all", verbose=0)
    detecting = MaskRCNN("inference", ShapesConfig(), tmp_path)
    detecting.load_weights("last")
    result = evaluate(detecting, dataset, progress=False)
    print(f"overfit: mask AP@0.5 {result.mask_ap50:.3f}, mask AP@[.5:.95] {result.mask_ap:.3f}")
    assert result.mask_ap50 > 0.9


def loader_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mrcnn-loader")]


@pytest.mark.backends
@SLOW_ON_JAX
@pytest.mark.usefixtures("untraced")
def test_fit_generator_of_a_data_generator(tmp_path):
    """As scripts trained that did without `train`."""
    model = MaskRCNN("training", QuickConfig(), tmp_path)
    network = model.keras_model
    before = {weight.path: ops.convert_to_numpy(weight) for weight in network.weights}
    model.set_trainable(r"(mrcnn\_.*)", verbose=0)
    model.compile(0.01, 0.9)
    batches = [data_generator(Shapes(3, size=64), model.config, shuffle=True, batch_size=2) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # which is told once
        history = network.fit_generator(
            batches[0], initial_epoch=1, epochs=2, steps_per_epoch=2, validation_data=batches[1], validation_steps=1,
            callbacks=[], max_queue_size=100, workers=0, use_multiprocessing=True, verbose=0,
        )  # fmt: skip
    assert history.epoch == [1]
    assert set(history.history) == {f"{part}{name}" for part in ("", "val_") for name in ("loss", *LOSS_NAMES)}
    assert all(np.isfinite(values[0]) for values in history.history.values())
    assert all(history.history[name][0] > 0 for name in ("val_loss", "rpn_class_loss", "mrcnn_class_loss"))
    moved = {
        weight.path.split("/")[-2]
        for weight in network.weights
        if not np.array_equal(ops.convert_to_numpy(weight), before[weight.path])
    }
    assert "mrcnn_class_logits" in moved and all(name.startswith("mrcnn_") for name in moved)


class OfParts(MaskRCNN):
    """Builds its network of the original's parts, as the original did, and gives a plain Keras model."""

    def build(self, mode, config):
        size = tuple(config.IMAGE_SHAPE[:2])
        image = KL.Input([None, None, config.IMAGE_SHAPE[2]], name="input_image")
        image_meta = KL.Input([config.IMAGE_META_SIZE], name="input_image_meta")
        rpn_match = KL.Input([None, 1], name="input_rpn_match", dtype="int32")
        target_rpn_bbox = KL.Input([None, 4], name="input_rpn_bbox")
        gt_class_ids = KL.Input([None], name="input_gt_class_ids", dtype="int32")
        gt_boxes = KL.Input([None, 4], name="input_gt_boxes")
        gt_masks = KL.Input([*config.MINI_MASK_SHAPE, None], name="input_gt_masks", dtype=bool)
        inputs = [image, image_meta, rpn_match, target_rpn_bbox, gt_class_ids, gt_boxes, gt_masks]

        _, c2, c3, c4, c5 = config.BACKBONE(image, stage5=True, train_bn=config.TRAIN_BN)
        width = config.TOP_DOWN_PYRAMID_SIZE
        p5 = KL.Conv2D(width, (1, 1), name="fpn_c5p5")(c5)
        p4 = KL.Add()([KL.UpSampling2D(size=(2, 2))(p5), KL.Conv2D(width, (1, 1), name="fpn_c4p4")(c4)])
        p3 = KL.Add()([KL.UpSampling2D(size=(2, 2))(p4), KL.Conv2D(width, (1, 1), name="fpn_c3p3")(c3)])
        p2 = KL.Add()([KL.UpSampling2D(size=(2, 2))(p3), KL.Conv2D(width, (1, 1), name="fpn_c2p2")(c2)])
        maps = [
            KL.Conv2D(width, (3, 3), padding="SAME", name=f"fpn_p{level}")(x)
            for level, x in zip((2, 3, 4, 5), (p2, p3, p4, p5), strict=True)
        ]
        p6 = KL.MaxPooling2D(pool_size=(1, 1), strides=2, name="fpn_p6")(maps[-1])

        boxes = self.get_anchors(config.IMAGE_SHAPE)
        boxes = np.broadcast_to(boxes, (config.BATCH_SIZE, *boxes.shape))
        anchors = KL.Lambda(lambda x: ops.convert_to_tensor(boxes), name="anchors")(image)
        rpn = modellib.build_rpn_model(config.RPN_ANCHOR_STRIDE, len(config.RPN_ANCHOR_RATIOS), width)
        levels = zip(*[rpn([x]) for x in [*maps, p6]], strict=True)
        names = ["rpn_class_logits", "rpn_class", "rpn_bbox"]
        rpn_class_logits, rpn_class, rpn_bbox = (
            KL.Concatenate(axis=1, name=name)(list(level)) for level, name in zip(levels, names, strict=True)
        )
        rpn_rois = modellib.ProposalLayer(
            proposal_count=config.POST_NMS_ROIS_TRAINING, nms_threshold=config.RPN_NMS_THRESHOLD, name="ROI",
            config=config,
        )([rpn_class, rpn_bbox, anchors])  # fmt: skip
        active = KL.Lambda(lambda x: modellib.parse_image_meta_graph(x)["active_class_ids"])(image_meta)
        truth = [gt_class_ids, KL.Lambda(lambda x: modellib.norm_boxes_graph(x, size))(gt_boxes), gt_masks]
        rois, class_ids, target_bbox, target_mask = modellib.DetectionTargetLayer(config, name="proposal_targets")(
            [rpn_rois, *truth]
        )
        class_logits, mrcnn_class, mrcnn_bbox = modellib.fpn_classifier_graph(
            rois, maps, image_meta, config.POOL_SIZE, config.NUM_CLASSES, train_bn=config.TRAIN_BN,
            fc_layers_size=config.FPN_CLASSIF_FC_LAYERS_SIZE,
        )  # fmt: skip
        mrcnn_mask = modellib.build_fpn_mask_graph(
            rois, maps, image_meta, config.MASK_POOL_SIZE, config.NUM_CLASSES, train_bn=config.TRAIN_BN
        )
        output_rois = KL.Lambda(lambda x: x * 1, name="output_rois")(rois)
        losses = [
            KL.Lambda(lambda x: modellib.rpn_class_loss_graph(*x), name="rpn_class_loss")(
                [rpn_match, rpn_class_logits]
            ),
            KL.Lambda(lambda x: modellib.rpn_bbox_loss_graph(config, *x), name="rpn_bbox_loss")(
                [target_rpn_bbox, rpn_match, rpn_bbox]
            ),
            KL.Lambda(lambda x: modellib.mrcnn_class_loss_graph(*x), name="mrcnn_class_loss")(
                [class_ids, class_logits, active]
            ),
            KL.Lambda(lambda x: modellib.mrcnn_bbox_loss_graph(*x), name="mrcnn_bbox_loss")(
                [target_bbox, class_ids, mrcnn_bbox]
            ),
            KL.Lambda(lambda x: modellib.mrcnn_mask_loss_graph(*x), name="mrcnn_mask_loss")(
                [target_mask, class_ids, mrcnn_mask]
            ),
        ]
        outputs = [rpn_class_logits, rpn_class, rpn_bbox, class_logits, mrcnn_class, mrcnn_bbox, mrcnn_mask, rpn_rois]
        return keras.Model(inputs, [*outputs, output_rois, *losses], name="mask_rcnn")


@pytest.mark.usefixtures("untraced")
def test_a_network_of_the_originals_parts_trains(tmp_path):
    values = {"STEPS_PER_EPOCH": 1, "VALIDATION_STEPS": 0, "RPN_CONV_SIZE": 512, "MASK_CONV_SIZE": 256}
    model = OfParts("training", QuickConfig.from_dict(values), tmp_path)
    assert isinstance(model.keras_model, training.TrainingModel)
    kernel = model.keras_model.get_layer("rpn_model").get_layer("rpn_class_raw").kernel
    before = ops.convert_to_numpy(kernel).copy()
    history = model.train(Shapes(2, size=64), None, 0.01, 1, "all", verbose=0).history
    assert set(history) == {"loss", *LOSS_NAMES} and all(np.isfinite(values[0]) for values in history.values())
    assert (ops.convert_to_numpy(kernel) != before).any()
    assert MaskRCNN("inference", model.config, tmp_path).load_weights(model.find_last()).complete


@pytest.mark.usefixtures("untraced")
def test_an_epoch_leaves_a_checkpoint_and_curves(tmp_path):
    # Batches of an odd number of images: validation that went on in the list would see others each time.
    config = QuickConfig.from_dict({"VALIDATION_STEPS": 3})
    model = MaskRCNN("training", config, tmp_path)
    # So slow that weights stay as they are: what changes from epoch to epoch is the images.
    history = model.train(Shapes(4, size=64), Shapes(5, seed=1, size=64), 1e-12, 2, "heads", verbose=0)
    curves = {"loss", *LOSS_NAMES} | {f"val_{name}" for name in ("loss", *LOSS_NAMES)}
    assert set(history.history) == curves
    first, second = history.history["val_rpn_class_loss"]
    assert first == pytest.approx(second, rel=1e-5)  # each validation sees the same images
    deadline = time.monotonic() + 30  # each ends with the image that it is at
    while loader_threads() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not loader_threads()
    run = Path(model.log_dir)
    assert {"mask_rcnn_shapes_0001.h5", "mask_rcnn_shapes_0002.h5", "history.csv", "train", "validation"} <= set(
        os.listdir(run)
    )
    with (run / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert set(rows[0]) == {"epoch"} | curves


@pytest.mark.usefixtures("untraced")
def test_training_goes_on_where_it_stopped(tmp_path, capsys, monkeypatch):
    config, dataset = QuickConfig(), Shapes(4, size=64)
    first = MaskRCNN("training", config, tmp_path)
    first.train(dataset, None, 0.001, 1, "all", verbose=0)
    momentum = [ops.convert_to_numpy(v) for v in first.keras_model.optimizer.variables]

    again = MaskRCNN("training", config, tmp_path)
    again.load_weights(again.find_last(), by_name=True)
    assert (again.epoch, again.log_dir) == (1, first.log_dir)
    seen = {}

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen["state"] = [ops.convert_to_numpy(v) for v in self.model.optimizer.variables]

        def on_epoch_begin(self, epoch, logs=None):
            seen["epoch"] = epoch

    starts = []
    monkeypatch.setattr(
        training, "BatchLoader", lambda *a, start_step=0, **k: starts.append(start_step) or BatchLoader(*a, **k)
    )
    again.train(dataset, None, 0.001, 2, "all", custom_callbacks=[Look()], verbose=0)
    assert seen["epoch"] == 1  # counted from 0
    assert again.epoch == 2
    assert starts == [config.STEPS_PER_EPOCH]  # the second epoch's first batch
    assert len(seen["state"]) == len(momentum)
    for found, expected in zip(seen["state"], momentum, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert Path(again.checkpoint_path.format(epoch=2)).exists()
    with (Path(again.log_dir) / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    capsys.readouterr()
    assert again.train(dataset, None, 0.001, 2, "all", verbose=0) is None
    assert "Nothing to train: 2 epochs are done" in capsys.readouterr().out


def test_augmentation_is_the_configurations_unless_given(tmp_path, monkeypatch):
    asked, own = [], Brightness()

    def loader(*arguments, augmentation=None, **options):
        asked.append(augmentation)
        raise BatchError("enough", 0)

    monkeypatch.setattr(training, "BatchLoader", loader)
    for name, given in (("none", None), ("flip", None), ("flip", own)):
        model = MaskRCNN("training", QuickConfig.from_dict({"AUGMENTATION": name}), tmp_path)
        with pytest.raises(BatchError, match="enough"):
            model.train(Shapes(1, size=64), None, 0.001, 1, "heads", augmentation=given, verbose=0)
    assert asked[0] is None and isinstance(asked[1], Flip) and asked[2] is own


@pytest.mark.usefixtures("untraced")
def test_a_loss_that_is_not_finite_stops_training_and_names_the_images(tmp_path):
    config, dataset = QuickConfig(), Shapes(8, size=64)
    model = MaskRCNN("training", config, tmp_path)
    with pytest.raises(TrainingError, match=r"Not finite: .*loss.* at epoch 1, step \d.*learning rate") as error:
        model.train(dataset, None, 1e30, 1, "all", verbose=0)
    step = int(re.search(r"step (\d)", str(error.value))[1]) - 1
    with BatchLoader(dataset, config) as loader:
        expected = {f"shapes/{image_id}.png" for image_id in loader.image_ids(step)}
    assert set(re.findall(r"shapes/\d\.png", str(error.value))) == expected
    assert not list(tmp_path.glob("*/*.h5"))


@pytest.mark.usefixtures("untraced")
def test_training_stopped_early_counts_the_epochs_that_were_saved(tmp_path):
    config, dataset = QuickConfig.from_dict({"NAME": "cells v1.2", "STEPS_PER_EPOCH": 1}), Shapes(2, size=64)
    model = MaskRCNN("training", config, tmp_path)
    rates = []

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True
            rates.append(float(ops.convert_to_numpy(self.model.optimizer.learning_rate)))

    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.001, 0.0001])
    model.train(dataset, None, schedule, 5, "heads", custom_callbacks=[Stop()], verbose=0)
    assert model.epoch == 1
    model.train(dataset, None, schedule, 5, "all", custom_callbacks=[Stop()], verbose=0)
    assert model.epoch == 2
    assert rates == pytest.approx([0.001, 0.0001])  # the schedule counts from the first epoch, over stages
    assert [metric.name for metric in model.keras_model.metrics] == ["loss", *LOSS_NAMES]
    again = MaskRCNN("training", config, tmp_path)
    again.load_weights("last")  # a name with a space and a point
    assert again.epoch == 2


def test_an_image_that_cannot_be_loaded_is_named(tmp_path):
    class Broken(Shapes):
        def load_mask(self, image_id):
            if image_id == 2:
                raise OSError("disk on fire")
            return super().load_mask(image_id)

    model = MaskRCNN("training", QuickConfig(), tmp_path)
    with pytest.raises(BatchError, match=r"Image 2 .*shapes/2\.png.*disk on fire"):
        model.train(Broken(4, size=64), None, 0.001, 2, "all", verbose=0)


@pytest.mark.usefixtures("untraced")
def test_images_without_objects_train(tmp_path):
    class Empty(Shapes):
        def load_mask(self, image_id):
            masks, class_ids = super().load_mask(image_id)
            return masks[..., :0], class_ids[:0]

    model = MaskRCNN("training", QuickConfig(), tmp_path)
    history = model.train(Empty(2, size=64), None, 0.001, 1, "all", verbose=0)
    losses = {name: values[0] for name, values in history.history.items()}
    assert all(np.isfinite(value) for value in losses.values())
    assert losses["mrcnn_class_loss"] > 0  # negatives teach what background is
    assert losses["rpn_bbox_loss"] == losses["mrcnn_bbox_loss"] == losses["mrcnn_mask_loss"] == 0


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(
    "changes",
    [
        {"USE_RPN_ROIS": False, "RPN_ANCHOR_STRIDE": 2, "MAX_GT_INSTANCES": 1},
        {"USE_MINI_MASK": False, "IMAGE_RESIZE_MODE": "crop", "TRAIN_BN": None},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_variants_train(tmp_path, changes):
    model = MaskRCNN("training", QuickConfig.from_dict(changes), tmp_path)
    history = model.train(Shapes(2, size=80), None, 0.001, 1, "all", verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_images_of_another_size_are_told(tmp_path):
    config = QuickConfig.from_dict({"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 64})
    model = MaskRCNN("training", config, tmp_path)
    with pytest.raises(ConfigError, match="built for training images of 64 x 64.*come out as 128 x 128.*'square'"):
        model.train(Shapes(2, size=80), None, 0.001, 1, "all", verbose=0)


def test_stages_choose_layers():
    network = build_network(QuickConfig(), "training")
    chosen = {stage: set(training.set_trainable(network, training.stage_pattern(stage))) for stage in training.STAGES}
    assert chosen["heads"] < chosen["5+"] < chosen["4+"] < chosen["3+"] < chosen["all"]
    assert {"rpn_conv_shared", "fpn_p2", "mrcnn_mask"} <= chosen["heads"]
    assert "res5a_branch2a" in chosen["5+"] - chosen["heads"]
    assert chosen["all"] - chosen["3+"] >= {"conv1", "bn_conv1"}
    training.set_trainable(network, "mrcnn_mask")  # the whole name, not a part of it
    assert {w.path.split("/")[-2] for w in network.trainable_weights} == {"mrcnn_mask"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1.*Received: 0"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"learning_rate": -1}, "learning_rate must be a number above 0.*-1"),
        ({"layers": "head"}, "No layer matches layers='head'.*heads, 3\\+"),
        ({"layers": "(heads"}, "layers must be one of.*regular expression"),
    ],
)
def test_bad_arguments_are_refused_before_work(tmp_path, arguments, message):
    model = MaskRCNN("training", QuickConfig(), tmp_path)
    with pytest.raises(ValueError, match=message):
        model.train(Shapes(2, size=64), None, **{"learning_rate": 0.001, "epochs": 1, "layers": "all"} | arguments)
    assert not list(tmp_path.iterdir())
