"""Recipes: presets, and what their fields may hold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mrcnn.config import Config, ConfigError
from mrcnn.presets import PRESETS
from mrcnn.recipe import RULES, Recipe

NAMES = ("legacy", "torchvision_v1", "torchvision_v2", "detectron2", "modern")


def of(**values):
    return type("MyConfig", (Config,), values)()


def test_the_defaults_are_the_legacy_recipe():
    assert Config.legacy()().to_dict() == Config().to_dict()


@pytest.mark.parametrize("name", NAMES)
def test_presets_are_configurations_to_be_subclassed(name):
    base = getattr(Config, name)()
    assert issubclass(base, Config)
    config = type("Cells", (base,), {"NUM_CLASSES": 3, "NAME": "cells"})()
    assert (config.NUM_CLASSES, config.NAME) == (3, "cells")
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.to_dict() == config.to_dict()
    for field, value in PRESETS[name].items():
        assert field in Config.fields()
        np.testing.assert_array_equal(getattr(config, field), value)


def test_a_preset_of_a_subclass_keeps_what_that_says():
    class Cells(Config):
        NUM_CLASSES = 4
        LEARNING_RATE = 0.02

    config = Cells.torchvision_v1()()
    assert (config.NUM_CLASSES, config.LEARNING_RATE, config.RPN_OBJECTNESS) == (4, 0.02, "sigmoid")
    assert Cells().RPN_OBJECTNESS == "softmax"


def test_large_scale_jitter_networks_of_detectron2():
    small, large = Config.detectron2()(), Config.detectron2(lsj=True)()
    assert (small.RPN_CONV_DEPTH, small.BOX_HEAD_CONVS) == (1, 0)
    assert (large.RPN_CONV_DEPTH, large.BOX_HEAD_CONVS) == (2, 4)
    assert small.ROI_ALIGN == large.ROI_ALIGN == "aligned"


def test_every_field_of_a_recipe_has_a_rule():
    fields = {name for name in vars(Recipe) if name.isupper()}
    assert fields == {*RULES, "STD_PIXEL"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"NORM": "layer"}, "NORM must be one of batch, frozen, group. Received: 'layer'"),
        ({"NORM_PARTS": "backbone"}, r"NORM_PARTS must be some of backbone, pyramid.*Received: 'backbone'"),
        ({"NORM_PARTS": ("head",)}, "NORM_PARTS must be some of"),
        ({"NORM_EPSILON": -1}, "NORM_EPSILON must be a number from 0 up to"),
        ({"RPN_OBJECTNESS": True}, "RPN_OBJECTNESS must be one of softmax, sigmoid. Received: True"),
        ({"RPN_MIN_SIZE": -1}, "RPN_MIN_SIZE must be None, or a number of pixels"),
        ({"BOX_HEAD_FCS": 3}, "BOX_HEAD_FCS must be 1 or 2. Received: 3"),
        ({"ROI_SAMPLING_RATIO": 1.5}, "ROI_SAMPLING_RATIO must be a whole number"),
        ({"IMAGE_SIZE_MULTIPLE": 16}, "IMAGE_SIZE_MULTIPLE must be 32 or 64. Received: 16"),
        ({"CONV_BIAS": "no"}, "CONV_BIAS must be True or False. Received: 'no'"),
        ({"BBOX_LOG_LIMIT": 0}, "BBOX_LOG_LIMIT must be a number above 0"),
        ({"STD_PIXEL": np.array([1.0, 0.0, 1.0])}, "STD_PIXEL must be one number above 0, or one for each"),
        (
            {"IMAGE_CHANNEL_ORDER": "bgr", "IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": np.array([9.0])},
            "IMAGE_CHANNEL_ORDER 'bgr' is for images of three channels. Received: IMAGE_CHANNEL_COUNT 1",
        ),
        ({"STD_PIXEL": np.array([1.0, 2.0])}, "STD_PIXEL must be one number above 0, or one for each"),
        ({"ROI_ALIGN": "aligned"}, "ROI_ALIGN 'legacy' goes with BOX_GRID 'legacy'.*Received: ROI_ALIGN 'aligned'"),
        ({"BOX_GRID": "image"}, "ROI_ALIGN 'legacy' goes with BOX_GRID 'legacy'"),
        ({"MASK_TARGETS": "soft"}, "MASK_TARGETS 'soft' needs BOX_GRID 'image'"),
        ({"MASK_PASTE": "aligned"}, "MASK_PASTE 'legacy' goes with BOX_GRID 'legacy'.*Received: MASK_PASTE 'aligned'"),
        ({"BOX_GRID": "image", "ROI_ALIGN": "aligned"}, "MASK_PASTE 'legacy' goes with BOX_GRID 'legacy'"),
        ({"IMAGE_RESIZE_MODE": "shortest", "IMAGE_MAX_DIM": None}, "IMAGE_MAX_DIM must be a whole number of pixels"),
    ],
)
def test_what_cannot_work_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        of(**values)


def test_a_misspelled_field_is_told():
    with pytest.warns(UserWarning, match="MyConfig.RPN_CONV_DEPT: .* the field is RPN_CONV_DEPTH"):
        of(RPN_CONV_DEPT=2)


def test_training_images_of_the_shortest_side_lie_in_a_square():
    config = Config.modern()()
    assert config.IMAGE_SHAPE.tolist() == [1344, 1344, 3]
    wide = type("Wide", (Config.modern(),), {"IMAGE_RECTANGLE": (832, 1344)})()
    assert wide.IMAGE_SHAPE.tolist() == [832, 1344, 3]
    with pytest.raises(ConfigError, match="each a multiple of 32"):
        type("Odd", (Config.modern(),), {"IMAGE_RECTANGLE": (800, 1333)})()
