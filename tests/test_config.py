"""Config: the fields of the original, what is refused, and what is kept."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from mrcnn import config_habits, habits
from mrcnn.config import Config, ConfigError, nearest_sizes
from mrcnn.ops.anchors import pyramid_anchors

# Name and default of every field that existing projects override.
ORIGINAL = {
    "NAME": None, "GPU_COUNT": 1, "IMAGES_PER_GPU": 2,
    "STEPS_PER_EPOCH": 1000, "VALIDATION_STEPS": 50,
    "BACKBONE": "resnet101", "COMPUTE_BACKBONE_SHAPE": None, "BACKBONE_STRIDES": [4, 8, 16, 32, 64],
    "FPN_CLASSIF_FC_LAYERS_SIZE": 1024, "TOP_DOWN_PYRAMID_SIZE": 256, "NUM_CLASSES": 1,
    "RPN_ANCHOR_SCALES": (32, 64, 128, 256, 512), "RPN_ANCHOR_RATIOS": [0.5, 1, 2], "RPN_ANCHOR_STRIDE": 1,
    "RPN_NMS_THRESHOLD": 0.7, "RPN_TRAIN_ANCHORS_PER_IMAGE": 256, "PRE_NMS_LIMIT": 6000,
    "POST_NMS_ROIS_TRAINING": 2000, "POST_NMS_ROIS_INFERENCE": 1000, "USE_MINI_MASK": True,
    "MINI_MASK_SHAPE": (56, 56), "IMAGE_RESIZE_MODE": "square", "IMAGE_MIN_DIM": 800, "IMAGE_MAX_DIM": 1024,
    "IMAGE_MIN_SCALE": 0, "IMAGE_CHANNEL_COUNT": 3, "MEAN_PIXEL": [123.7, 116.8, 103.9],
    "TRAIN_ROIS_PER_IMAGE": 200, "ROI_POSITIVE_RATIO": 0.33, "POOL_SIZE": 7, "MASK_POOL_SIZE": 14,
    "MASK_SHAPE": [28, 28], "MAX_GT_INSTANCES": 100, "RPN_BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2],
    "BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2], "DETECTION_MAX_INSTANCES": 100, "DETECTION_MIN_CONFIDENCE": 0.7,
    "DETECTION_NMS_THRESHOLD": 0.3, "LEARNING_RATE": 0.001, "LEARNING_MOMENTUM": 0.9, "WEIGHT_DECAY": 0.0001,
    "LOSS_WEIGHTS": {"rpn_class_loss": 1.0, "rpn_bbox_loss": 1.0, "mrcnn_class_loss": 1.0, "mrcnn_bbox_loss": 1.0,
                     "mrcnn_mask_loss": 1.0},
    "USE_RPN_ROIS": True, "TRAIN_BN": False, "GRADIENT_CLIP_NORM": 5.0,
}  # fmt: skip


def of(**values):
    return type("MyConfig", (Config,), values)()


@pytest.mark.parametrize("name", ORIGINAL)
def test_defaults_are_the_originals(name):
    value = getattr(Config(), name)
    assert (value.tolist() if isinstance(value, np.ndarray) else value) == ORIGINAL[name]
    assert name in Config.fields()


def test_the_originals_fields_are_known_as_such():
    assert set(ORIGINAL) == config_habits.ORIGINAL


def test_the_other_fields_are_listed_where_projects_look():
    page = (Path(__file__).parents[1] / "docs" / "migrating.md").read_text(encoding="utf-8")
    _, _, section = page.partition("## Fields that the original did not have\n")
    assert re.findall(r"`(\w+)`", section.partition("\n## ")[0]) == sorted(set(Config.fields()) - set(ORIGINAL))


def test_derived_fields():
    config = of(IMAGES_PER_GPU=3, GPU_COUNT=2, NUM_CLASSES=5)
    assert (config.BATCH_SIZE, config.IMAGE_META_SIZE) == (6, 17)
    assert config.IMAGE_SHAPE.tolist() == [1024, 1024, 3]
    crop = of(IMAGE_RESIZE_MODE="crop", IMAGE_MIN_DIM=256, IMAGE_CHANNEL_COUNT=1, MEAN_PIXEL=np.array([9.0]))
    assert crop.IMAGE_SHAPE.tolist() == [256, 256, 1]


def test_a_rectangle_takes_the_place_of_the_square():
    config = of(IMAGE_RECTANGLE=(192, 320), IMAGE_MAX_DIM=1000)  # which nothing asks for then
    assert config.IMAGE_SHAPE.tolist() == [192, 320, 3]
    assert of(IMAGE_RESIZE_MODE="crop", IMAGE_MIN_DIM=100, IMAGE_RECTANGLE=[64, 128]).IMAGE_SHAPE.tolist() == [
        64,
        128,
        3,
    ]
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.IMAGE_SHAPE.tolist() == [192, 320, 3]
    with pytest.raises(ConfigError, match="IMAGE_MIN_DIM must be a multiple of 64"):
        of(IMAGE_RESIZE_MODE="pad64", IMAGE_MIN_DIM=100, IMAGE_RECTANGLE=(64, 128))  # which inference asks for


@pytest.mark.parametrize("shape", [(192, 320), [192, 320, 3], np.array([192, 320, 3])])
def test_an_image_shape_of_unequal_sides_is_a_rectangle(shape):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = of(IMAGE_SHAPE=shape)
    assert config.IMAGE_RECTANGLE == (192, 320) and config.IMAGE_SHAPE.tolist() == [192, 320, 3]
    assert config.to_dict()["IMAGE_RECTANGLE"] == [192, 320]
    with pytest.raises(ConfigError, match=r"IMAGE_RECTANGLE must be None, or \(height, width\), each a multiple of 64"):
        of(IMAGE_SHAPE=(200, 320))


@pytest.mark.parametrize("shape", [(512, 512, 3), (192, 320, 1), "wide", (None, None, 3)])
def test_any_other_image_shape_is_ignored_as_it_always_was(shape):
    with pytest.warns(UserWarning, match="IMAGE_SHAPE is ignored"):
        config = of(IMAGE_SHAPE=shape)
    assert config.IMAGE_RECTANGLE is None and config.IMAGE_SHAPE.tolist() == [1024, 1024, 3]


def test_a_derived_field_that_is_set_is_told_to_be_ignored():
    with pytest.warns(UserWarning, match="MyConfig.BATCH_SIZE is ignored"):
        config = of(BATCH_SIZE=7)
    assert config.BATCH_SIZE == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"IMAGE_MAX_DIM": 1000}, r"IMAGE_MAX_DIM must be a multiple of 64\. Received: 1000\. Nearest: 960, 1024\."),
        ({"IMAGE_RESIZE_MODE": "crop", "IMAGE_MIN_DIM": 800}, r"IMAGE_MIN_DIM must be a multiple of 64.*768, 832"),
        (
            {"IMAGE_RESIZE_MODE": "fill"},
            r"IMAGE_RESIZE_MODE must be one of none, square, pad64, crop, shortest. Received: 'fill'",
        ),
        ({"NUM_CLASSES": 0}, "NUM_CLASSES must be a whole number of at least 1. Received: 0"),
        ({"NUM_CLASSES": "two"}, "NUM_CLASSES must be a whole number of at least 1. Received: 'two'"),
        ({"NUM_CLASSES": 2.0}, "NUM_CLASSES must be a whole number"),
        ({"IMAGES_PER_GPU": True}, "IMAGES_PER_GPU must be a whole number"),
        (
            {"BACKBONE": "resnet19"},
            "BACKBONE must be one of resnet50, resnet101, .*resnet14; or 'keras:'.*; or a callable.*'resnet19'",
        ),
        ({"RPN_ANCHOR_SCALES": ()}, "RPN_ANCHOR_SCALES must be a scale for each of the levels P2, P3"),
        ({"RPN_ANCHOR_SCALES": (8, 16, 32, 64, 128, 256)}, r"each of the levels P2, .*P6, or of the first ones.*\(8, "),
        (
            {"DETECTION_MIN_CONFIDENCE": 70},
            "DETECTION_MIN_CONFIDENCE must be a number from 0 to 1, or None. Received: 70",
        ),
        ({"IMAGE_CHANNEL_COUNT": 1}, "MEAN_PIXEL must be a number for each of the IMAGE_CHANNEL_COUNT = 1 channels"),
        ({"BACKBONE_STRIDES": [4, 8, 16, 32, 64, 128]}, "BACKBONE_STRIDES must be a stride for each of the levels P2"),
        ({"BACKBONE_STRIDES": [4, 8]}, r"SCALES must have no more numbers than .*\(32, 64, 128, 256, 512\).*\[4, 8\]"),
        ({"RPN_NMS_THRESHOLD": None}, "RPN_NMS_THRESHOLD must be a number from 0 to 1. Received: None"),
        ({"TRAIN_ROIS_PER_IMAGE": 2}, "TRAIN_ROIS_PER_IMAGE x ROI_POSITIVE_RATIO must be at least 1.*2 x 0.33"),
        ({"MASK_SHAPE": [56, 56]}, "MASK_SHAPE must be twice MASK_POOL_SIZE"),
        ({"TRAIN_BN": "yes"}, "TRAIN_BN must be None, True or False"),
        ({"LEARNING_RATE": "fast"}, "LEARNING_RATE must be a number above 0. Received: 'fast'"),
        ({"LOSS_WEIGHTS": {"mask_loss": 1}}, "LOSS_WEIGHTS must be weights for rpn_class_loss"),
        ({"IMAGE_RECTANGLE": (192,)}, r"IMAGE_RECTANGLE must be None, or \(height, width\).*Received: \(192,\)"),
        ({"IMAGE_RECTANGLE": 512}, "IMAGE_RECTANGLE must be None.*Received: 512"),
        ({"CLASS_WEIGHTS": [1, 2], "NUM_CLASSES": 3}, "CLASS_WEIGHTS must be .*for each of the NUM_CLASSES classes"),
        ({"CLASS_WEIGHTS": [1, -2, 1], "NUM_CLASSES": 3}, "CLASS_WEIGHTS must be None, or a number of at least 0"),
        ({"CLASS_WEIGHTS": [0, 0, 0], "NUM_CLASSES": 3}, "CLASS_WEIGHTS must be .*not all of them 0"),
        ({"CLASS_WEIGHTS": {"cat": 2}, "NUM_CLASSES": 2}, "CLASS_WEIGHTS must be None"),
        ({"FOCAL_GAMMA": -1}, "FOCAL_GAMMA must be a number of at least 0. Received: -1"),
        ({"FOCAL_GAMMA": None}, "FOCAL_GAMMA must be a number of at least 0. Received: None"),
        ({"RGB_CHANNELS": (0, 1, 3)}, "RGB_CHANNELS must be None, or three different numbers of channels, from 0 to"),
        ({"RGB_CHANNELS": (0, 1, 1)}, "RGB_CHANNELS must be None, or three different"),
        ({"IMAGE_MAX_DIMM": 512}, r"IMAGE_MAX_DIMM is no field of Config. Did you mean IMAGE_MAX_DIM\?"),
        ({"NUM_CLASS": 2}, r"Did you mean NUM_CLASSES\?"),
        ({"STEPS_PER_EPOCH": 0.0}, "STEPS_PER_EPOCH must be a whole number of at least 1. Received: 0"),
        ({"STEPS_PER_EPOCH": np.inf}, "STEPS_PER_EPOCH must be a whole number of at least 1. Received: inf"),
        ({"VALIDATION_STEPS": np.nan}, "VALIDATION_STEPS must be a whole number of at least 0. Received: nan"),
        ({"LOSS_WEIGHTS": {"mrcnn_bbox_los": 1}}, "LOSS_WEIGHTS must be weights for rpn_class_loss"),
        ({"LOSS_WEIGHTS": None}, "LOSS_WEIGHTS must be weights for rpn_class_loss"),
        ({"SEED": None}, r"SEED must be .*None\. \(SEED is a field of this package: an attribute of your own needs an"),
    ],
)
def test_what_cannot_work_is_refused_with_what_would(values, message):
    with pytest.raises(ConfigError, match=message):
        of(**values)


def test_what_is_the_users_own_is_kept():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = {"NAMES": ["a"], "DATA_ROOT": "/data", "augment": True, "LEARNING_RATE_2": 0.1, "CPU_COUNT": 4, "seed": 1,
               "DETECTION_MASK_THRESHOLD": 0.5, "MAX_INSTANCES": 3, "DETECTION_MIN_CONFIDENCE_2": 0.1}  # fmt: skip
        config = of(**own)
    assert {name: getattr(config, name) for name in own} == own


@pytest.fixture
def nothing_told(monkeypatch):
    monkeypatch.setattr(habits, "_told", set())


@pytest.mark.usefixtures("nothing_told")
@pytest.mark.parametrize(
    "own",
    [
        {"batch_size": 4},
        {"image_max_dim": 512},
        {"PRECISIONS": [0.5]},  # near a field that the original does not have
        {"MIN_GT_INSTANCES": 1},  # told apart on purpose
        {"NUM_CLASS": 1, "NUM_CLASSES": 2},  # not meant for the field: that is there as well
        {"LEARNING_RATES": [0.01, 0.001]},  # no value of the field's
    ],
    ids=str,
)
def test_names_like_a_fields_that_are_a_projects_own_are_kept_and_told_once(own):
    name = next(iter(own))
    told = [] if name.startswith("MIN") else [f"MyConfig.{name}: is taken for an attribute of your own; the field is "]
    for expected in (told, []):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            config = of(**own)
        assert [str(one.message)[: len(told[0])] for one in caught] == expected
        assert all(one.filename == __file__ for one in caught)
        assert {name: getattr(config, name) for name in own} == own


def test_methods_and_properties_of_a_projects_own_are_not_looked_at():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = of(num_classes=property(lambda self: 7), batch_size=lambda self: 8)
    assert (config.num_classes, config.batch_size()) == (7, 8)


@pytest.mark.usefixtures("nothing_told")
def test_a_field_by_the_name_that_it_had_in_the_beginning():
    with pytest.warns(UserWarning, match="Config.VALIDATION_STPES: is VALIDATION_STEPS"):
        config = of(VALIDATION_STPES=7)
    assert (config.VALIDATION_STEPS, config.VALIDATION_STPES) == (7, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told already
        assert of(VALIDATION_STPES=7, VALIDATION_STEPS=8).VALIDATION_STEPS == 8

        class Earlier(Config):
            def __init__(self):
                self.VALIDATION_STPES = 9
                super().__init__()

        assert Earlier().VALIDATION_STEPS == 9


def test_numbers_of_steps_that_are_no_whole_ones_are_rounded_up():
    config = of(STEPS_PER_EPOCH=109.5, VALIDATION_STEPS=np.ceil(10 / 4))
    assert (config.STEPS_PER_EPOCH, config.VALIDATION_STEPS) == (110, 3)
    assert type(config.STEPS_PER_EPOCH) is type(config.VALIDATION_STEPS) is int
    config.STEPS_PER_EPOCH = np.float32(4.0)
    config.validate()
    assert type(config.STEPS_PER_EPOCH) is int and config.STEPS_PER_EPOCH == 4


@pytest.mark.usefixtures("nothing_told")
def test_weights_of_losses_that_are_not_there_are_told():
    with pytest.warns(
        UserWarning, match=r"LOSS_WEIGHTS\['edge_loss'\]: has no effect: the losses are rpn_class_loss, "
    ):
        config = of(LOSS_WEIGHTS={"mrcnn_mask_loss": 2.0, "edge_loss": 1.0})
    assert config.LOSS_WEIGHTS == {"mrcnn_mask_loss": 2.0, "edge_loss": 1.0}


@pytest.mark.usefixtures("nothing_told")
def test_anchors_of_the_first_levels_alone():
    with pytest.warns(UserWarning, match="SCALES of 4 levels: anchors lie on P2, P3, P4, P5 alone") as told:
        config = of(RPN_ANCHOR_SCALES=(8, 16, 32, 64))
    assert told[0].filename == __file__
    assert len(config.backbone_shapes((64, 64))) == 5  # as the original counts levels
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told already
        fewer = of(RPN_ANCHOR_SCALES=(8, 16, 32, 64), BACKBONE_STRIDES=[4, 8, 16, 32])
    np.testing.assert_array_equal(pyramid_anchors(config, (64, 64)), pyramid_anchors(fewer, (64, 64)))
    assert len(pyramid_anchors(config, (64, 64))) == 3 * (16**2 + 8**2 + 4**2 + 2**2)


def test_what_is_told_of_the_packages_own_fields_is_for_attributes_of_a_project():
    with pytest.raises(ConfigError, match=r"Received: None\.$"):
        Config.from_dict({"SEED": None})
    with pytest.raises(ConfigError, match=r"Received: 0\.$"):
        of(NUM_CLASSES=0)


def test_a_minimum_above_the_maximum_works_as_people_know_it():
    assert of(IMAGE_MAX_DIM=512).IMAGE_MIN_DIM == 800


def test_display_prints_every_attribute(capsys):
    of(NAME="mine", MY_OWN=3).display()
    printed = capsys.readouterr().out
    assert printed.startswith("\nConfigurations:\n")
    assert f"{'NAME':30} mine\n" in printed
    assert f"{'MY_OWN':30} 3\n" in printed
    assert f"{'BATCH_SIZE':30} 2\n" in printed
    assert "validate" not in printed


def test_a_configuration_survives_json():
    config = of(NAME="mine", NUM_CLASSES=4, MEAN_PIXEL=np.array([1.0, 2.0, 3.0]), MY_OWN=3)
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.to_dict() == config.to_dict()
    assert isinstance(again.MEAN_PIXEL, np.ndarray)
    with pytest.raises(ConfigError, match="No such field of Config: NUM_CLASSE. Near: NUM_CLASSES"):
        Config.from_dict({"NUM_CLASSE": 4})


def test_backbone_shapes_of_a_callable_backbone():
    def backbone(image, stage5, train_bn):
        return image

    config = of(BACKBONE=backbone, COMPUTE_BACKBONE_SHAPE=lambda shape: [[1, 2]])
    assert config.BACKBONE is backbone  # and no method of the configuration
    assert config.backbone_shapes((64, 64, 3)).tolist() == [[1, 2]]
    assert Config().backbone_shapes((100, 130, 3)).tolist() == [[25, 33], [13, 17], [7, 9], [4, 5], [2, 3]]


def test_one_number_for_an_array_field_is_an_array():
    config = Config.from_dict({"IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": 110})  # as the command line gives it
    assert config.MEAN_PIXEL.tolist() == [110.0]


def test_class_weights_and_channels_survive_json():
    values = {"NUM_CLASSES": 3, "CLASS_WEIGHTS": (1, 2, 0), "FOCAL_GAMMA": 1.5, "RGB_CHANNELS": (2, 1, 0)}
    stored = json.loads(json.dumps(of(**values).to_dict()))
    assert Config.from_dict(stored).to_dict() == stored
    assert (stored["CLASS_WEIGHTS"], stored["RGB_CHANNELS"]) == ([1, 2, 0], [2, 1, 0])


def test_nearest_sizes():
    assert nearest_sizes(1000) == " Nearest: 960, 1024."
    assert nearest_sizes(10) == " Nearest: 64."
    assert nearest_sizes(None) == ""
