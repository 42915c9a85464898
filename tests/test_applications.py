"""Names of backbones of keras.applications in a configuration, and the range of values that goes with each."""

from __future__ import annotations

import json
import pickle
import re

import numpy as np
import pytest

from mrcnn.applications import APPLICATIONS, application_of, pixel_fields, suggestions
from mrcnn.config import Config, ConfigError


def of(base=Config, **values):
    return type("MyConfig", (base,), values)()


def test_names():
    assert application_of("keras:ResNet50V2") == "ResNet50V2"
    assert application_of("resnet50") is application_of(None) is application_of(len) is None
    assert {"ResNet50", "EfficientNetB7", "EfficientNetV2B3", "ConvNeXtXLarge"} <= set(APPLICATIONS)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("keras:MobileNetV2", [127.5], [127.5]),
        ("keras:EfficientNetV2S", [128], [128]),
        ("keras:ConvNeXtTiny", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        ("keras:ResNet50", [123.68, 116.779, 103.939], [1]),
    ],
)
@pytest.mark.parametrize("base", [Config, Config.modern(), Config.detectron2()])
def test_means_and_deviations_are_the_backbones(name, mean, std, base):
    config = of(base, BACKBONE=name)
    np.testing.assert_array_equal(config.MEAN_PIXEL, mean)
    np.testing.assert_array_equal(config.STD_PIXEL, std)
    for again in (Config.from_dict(json.loads(json.dumps(config.to_dict()))), pickle.loads(pickle.dumps(config))):
        assert again.to_dict() == config.to_dict()


def test_means_that_somebody_has_set_stay():
    class Gray(Config):
        MEAN_PIXEL = np.array([100.0, 100.0, 100.0])

    assert of(Gray, BACKBONE="keras:MobileNetV2").MEAN_PIXEL.tolist() == [100, 100, 100]
    assert of(Gray, BACKBONE="keras:MobileNetV2").STD_PIXEL.tolist() == [127.5]
    stored = Config.from_dict({"BACKBONE": "keras:DenseNet121", "STD_PIXEL": [2.0]})
    assert stored.STD_PIXEL.tolist() == [2.0] and stored.MEAN_PIXEL[0] == 123.675
    assert of(BACKBONE="resnet50").MEAN_PIXEL.tolist() == Config.MEAN_PIXEL.tolist()
    assert Config.MEAN_PIXEL.tolist() == [123.7, 116.8, 103.9]


def test_other_channels_have_one_mean():
    fields = pixel_fields("DenseNet121", 1)
    assert fields["MEAN_PIXEL"].tolist() == [pytest.approx((123.675 + 116.28 + 103.53) / 3)]
    config = of(BACKBONE="keras:MobileNetV2", IMAGE_CHANNEL_COUNT=5)
    assert config.MEAN_PIXEL.tolist() == config.STD_PIXEL.tolist() == [127.5]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("keras:EfficientNetV2-B0", "Did you mean 'keras:EfficientNetV2B0'"),
        ("keras:mobilenetv2", "Did you mean 'keras:MobileNetV2'"),
        ("EfficientNetV2B0", "Did you mean 'keras:EfficientNetV2B0'"),
        ("keras:resnet50", "Did you mean 'keras:ResNet50'"),
        ("resnet5O", "Did you mean 'resnet50'"),
        ("Keras:ResNet50V2", "Did you mean 'keras:ResNet50V2'"),
        ("keras:", r"Received: 'keras:'\.$"),
        ("keras:Nothing", r"Received: 'keras:Nothing'\.$"),
    ],
)
def test_unknown_names_are_told_with_what_is_near(name, hint):
    with pytest.raises(ConfigError, match=rf"BACKBONE must be one of resnet50, .*Received: '{name}'.*") as error:
        of(BACKBONE=name)
    assert re.search(hint, str(error.value)), str(error.value)


def test_suggestions_are_near():
    assert suggestions("keras:resnet50", ("resnet50", "resnet101"))[0] == "keras:ResNet50"
    assert suggestions("ResNet50", ("resnet50", "resnet101"))[0] == "resnet50"
    assert "keras:ConvNeXtTiny" in suggestions("convnext_tiny")
    assert suggestions("zzz") == []
