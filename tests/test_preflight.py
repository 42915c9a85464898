"""What is told before the first step: the plan, and each of the warnings, where it is due and only there."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from mrcnn import preflight, training
from mrcnn.data.dataset import DatasetError
from mrcnn.model import MaskRCNN
from mrcnn.network import build_network
from tests.shapes import Shapes
from tests.test_training import QuickConfig, untraced  # noqa: F401


class CalmConfig(QuickConfig):
    """Nothing to warn of, with weights that are not new."""

    STEPS_PER_EPOCH = 5
    LEARNING_RATE = 0.002


def config_of(**values):
    return type("PreflightConfig", (CalmConfig,), values)()


@pytest.fixture(scope="module")
def network():
    model = build_network(CalmConfig(), "training", training.TrainingModel)
    model.get_layer("bn_conv1").moving_mean.assign(np.full(8, 0.5))
    for name in ("res2a_branch2a", "res3a_branch2a", "res4a_branch2a", "res5a_branch2a"):
        norm = model.get_layer(name.replace("res", "bn"))
        norm.gamma.assign(np.full(norm.gamma.shape, 1.1))
    return model


def check(network, train=None, val=None, stages=(("all", 2, 0.002),), layers="all", initial_epoch=0, **values):
    training.set_trainable(network, training.stage_pattern(layers))
    train = train or Shapes(8, size=64)
    return preflight.check(network, config_of(**values), train, val, list(stages), initial_epoch)


def only_warning(found):
    assert len(found.warnings) == 1, found.warnings
    return found.warnings[0]


def test_a_sound_plan_is_told_without_a_warning(network):
    val = Shapes(3, seed=1, size=64)
    for number, info in enumerate(val.image_info):
        info["path"] = f"other/{number}.png"
    found = check(network, val=val, stages=[("heads", 2, 0.002), ("all", 4, 0.001)], initial_epoch=1)
    assert found.warnings == () and found.steps == 15
    text = str(found)
    objects = sum(len(Shapes(8, size=64).load_mask(i)[1]) for i in range(8))
    for line in (
        "looked at      all 8 images, in ",
        "images         8 to train on: 64 x 64 pixels (height x width), molded to 64 x 64; 3 to validate on",
        f"objects        {objects}, ",
        "classes        3: ",
        "steps          15: epochs 2 to 4 of 5 steps of 2 images; an epoch goes 1.25 times through the images",
        "trains         heads until epoch 2 at learning rate 0.002; all until epoch 4 at learning rate 0.001",
    ):
        assert f"\n  {line}" in text
    assert re.search(r"weights        \d+\.\d of \d+\.\d million train at first", text)


@pytest.mark.parametrize(
    ("rate", "values", "message"),
    [
        (0.1, {}, r"learning rate 0.1 is 40 times what is usual for batches of 2 images, 0.0025"),
        (1e-6, {}, r"learning rate 1e-06 is 2500 times less"),
        (keras.optimizers.schedules.PiecewiseConstantDecay([4], [0.5, 0.001]), {}, r"learning rate 0.5 is 200 times"),
        (0.009, {}, None),
        (0.01, {"LEARNING_MOMENTUM": 0.99}, r"learning rate 0.01 is 40 times"),
    ],
)
def test_learning_rates(network, rate, values, message):
    found = check(network, stages=[("all", 2, rate)], **values)
    assert re.match(message, only_warning(found)) if message else found.warnings == ()


def test_a_stage_that_is_done_is_not_judged(network):
    assert check(network, stages=[("heads", 1, 0.5), ("all", 2, 0.002)], initial_epoch=1).warnings == ()


def test_objects_without_an_anchor(network):
    warning = only_warning(check(network, RPN_ANCHOR_SCALES=(128, 256, 256, 256, 256)))
    assert re.match(
        r"100% of the objects \((\d+) of \1\) overlap no anchor by an IoU of 0.5, most of them \d+ to", warning
    )
    assert "`mrcnn data anchors`" in warning and "(128, 256, 256, 256, 256)" in warning


def test_more_instances_than_there_is_room_for(network):
    crowded = sum(len(Shapes(8, size=64).load_mask(i)[1]) > 2 for i in range(8))
    assert 0 < crowded < 8
    warning = only_warning(check(network, MAX_GT_INSTANCES=2))
    assert warning.startswith(f"{crowded} images have more than MAX_GT_INSTANCES = 2 objects (3 at most)")
    assert check(network, MAX_GT_INSTANCES=3, DETECTION_MAX_INSTANCES=3).warnings == ()  # just enough
    assert "DETECTION_MAX_INSTANCES = 2 objects" in only_warning(check(network, DETECTION_MAX_INSTANCES=2))


def test_frozen_layers_that_were_never_loaded(network):
    assert check(network, layers="heads").warnings == ()
    fresh = build_network(CalmConfig(), "training", training.TrainingModel)
    assert check(fresh, layers="all").warnings == ()
    warning = only_warning(check(fresh, layers="heads"))
    assert warning.startswith(
        "5 frozen layers hold the random numbers that they were made with: bn_conv1, bn2a_branch2a,"
    )
    assert only_warning(check(fresh, layers="5+")).startswith("4 frozen layers")
    fresh.get_layer("bn3a_branch2a").beta.assign(np.ones(8))
    assert "bn3a_branch2a" not in only_warning(check(fresh, layers="heads"))


def test_untouched_layers_without_batch_normalization():
    image = keras.Input((8, 8, 3))
    layers = [keras.layers.Conv2D(4, 1, name=name) for name in ("one", "two")]
    model = keras.Model(image, layers[1](layers[0](image)))
    model.trainable = False
    for layer in layers:
        layer.trainable = False
    assert preflight.untouched_layers(model) == ["one", "two"]
    layers[0].bias.assign(np.ones(4))
    assert preflight.untouched_layers(model) == []  # loaded, and the other's biases may be 0 in the file


class Odd(Shapes):
    """Shapes of which some are left out: those of a kind, or all of most images; or some that cannot be read."""

    def __init__(self, without=(), empty=(), broken=()):
        super().__init__(8, size=64)
        self.without, self.empty, self.broken = without, empty, broken

    def load_mask(self, image_id):
        if image_id in self.broken:
            raise OSError("it is on the moon")
        masks, class_ids = super().load_mask(image_id)
        kept = ~np.isin(class_ids, self.without) & (image_id not in self.empty)
        return masks[:, :, kept], class_ids[kept]


def test_classes_without_instances(network):
    warning = only_warning(check(network, Odd(without=[2, 3])))
    assert warning == "classes with no objects: disk, triangle. They cannot be learned."
    assert "no objects in what was looked at" in only_warning(check(network, Odd(without=[1, 2, 3])))


def test_images_without_objects_and_unreadable_ones(network):
    kept = Odd(empty=range(1, 6))
    warnings = check(network, kept).warnings
    assert "62% of the images have no object: they teach the background alone." in warnings
    broken = check(network, Odd(broken=[3])).warnings
    assert (
        "1 training images cannot be read, and end training when met: shapes/3.png: OSError: it is on the moon"
        in broken
    )


def test_images_that_are_not_seen_or_seen_twice(network):
    assert only_warning(check(network, STEPS_PER_EPOCH=1)) == "4 of 8 images are seen: 2 steps of 2 images are planned."
    warning = only_warning(check(network, val=Shapes(2, size=64)))
    assert warning.startswith("2 images are to train on and to validate on (shapes/0.png)")


def test_batch_statistics_of_few_images(network):
    assert only_warning(check(network, TRAIN_BN=None)).startswith(
        "TRAIN_BN is None: batch normalization takes the stat"
    )


def test_images_that_come_out_in_another_size(network):
    warnings = check(network, Shapes(8, size=128), IMAGE_RESIZE_MODE="none").warnings
    assert warnings[-1].startswith("images come out as 128 x 128, and the network takes 64 x 64")


def test_a_dataset_that_does_not_fit_is_refused(network):
    with pytest.raises(DatasetError, match="NUM_CLASSES"):
        check(network, NUM_CLASSES=9)


@pytest.mark.usefixtures("untraced")
def test_train_tells_it_unless_it_is_to_be_silent(tmp_path, capsys, monkeypatch):
    config = config_of(STEPS_PER_EPOCH=3, VALIDATION_STEPS=0)
    model = MaskRCNN("training", config, tmp_path)
    model.train(Shapes(4, size=64), None, 0.2, 1, "heads", verbose=2)
    printed = capsys.readouterr().out
    assert "Before the first step:\n  looked at      all 4 images" in printed
    assert "WARNING: learning rate 0.2 is 80 times" in printed
    assert "WARNING: 5 frozen layers hold" in printed
    told = re.search(r"After 3 steps: \S+ s a step, so .* for all 3, until .* Memory at the peak: (\S+) GB", printed)
    assert 0.1 < float(told[1]) < 100
    assert printed.index("Before the first step") < printed.index("After 3 steps")
    monkeypatch.setattr(training, "fit", lambda *arguments, **options: calls.append(options["custom_callbacks"]))
    calls = []
    for options in ({"verbose": 0}, {"preflight_seconds": 0}, {"verbose": 2}):
        model.train(Shapes(4, size=64), None, 0.001, 2, "heads", **options)
        assert ("first step" in capsys.readouterr().out) == (options == {"verbose": 2})
    assert [len(callbacks) for callbacks in calls] == [0, 0, 1]
