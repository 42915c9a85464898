"""The settings of the benchmark of recipes: what differs, and nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.recipes import __main__ as recipes
from benchmarks.recipes.settings import (
    LEGACY,
    LEGACY_ALL_SCORES,
    MODERN,
    RUNS,
    SWITCHES,
    TRAINED,
    WEIGHTS_OF,
    config,
    numbers_of,
)
from mrcnn.config import Config
from mrcnn.presets import PRESETS


def differences(one, other):
    return {
        name for name in Config.fields() if not np.array_equal(getattr(one, name), getattr(other, name))
    }  # fmt: skip


def test_a_run_takes_back_what_its_name_says_and_nothing_else():
    modern, legacy = config(MODERN, "training"), config(LEGACY, "training")
    for name, fields in SWITCHES.items():
        run = config(name, "training")
        assert differences(run, modern) == set(fields)
        assert not differences(run, legacy) & set(fields)


def test_all_choices_together_are_the_whole_difference():
    found = differences(config(MODERN, "training"), config(LEGACY, "training"))
    assert found == {field for fields in SWITCHES.values() for field in fields}
    legacy = config(LEGACY, "inference")
    assert differences(config(LEGACY_ALL_SCORES, "inference"), legacy) == {"DETECTION_MIN_CONFIDENCE"}
    assert differences(config(MODERN, "inference"), legacy) == found
    for field in found:
        np.testing.assert_array_equal(getattr(legacy, field), getattr(Config, field))
        np.testing.assert_array_equal(getattr(config(MODERN, "training"), field), PRESETS["modern"][field])


@pytest.mark.parametrize("name", RUNS)
def test_every_run_has_a_network_of_one_size(name):
    for mode in ("training", "inference"):
        one = config(name, mode)
        assert (one.BACKBONE, one.RPN_CONV_SIZE, one.TOP_DOWN_PYRAMID_SIZE) == ("resnet14", 64, 64)


def test_what_training_does_not_know_of_is_not_trained():
    training = {"DETECTION_ALL_CLASSES", "DETECTION_MIN_CONFIDENCE", "DETECTION_NMS_THRESHOLD"}
    for name, trained in WEIGHTS_OF.items():
        assert trained in TRAINED and name not in TRAINED
        assert differences(config(name, "inference"), config(trained, "inference")) <= training
    assert sorted(number for name in TRAINED for number in numbers_of(name)) == list(range(len(RUNS)))
    assert set(SWITCHES) <= set(RUNS) and numbers_of(LEGACY) == [RUNS.index(LEGACY), RUNS.index(LEGACY_ALL_SCORES)]


def test_a_file_of_another_setting_is_not_added_to(tmp_path):
    path = tmp_path / "recipes.json"
    setting = {"machine": {"cores": 2}, "minutes": 5, "seed": 0}
    assert recipes.known_results(path, setting) == {}
    path.write_text(json.dumps({**setting, "results": {"legacy": {"steps": 9}}}))
    assert recipes.known_results(path, setting) == {"legacy": {"steps": 9}}
    with pytest.raises(SystemExit, match="another setting"):
        recipes.known_results(path, {**setting, "minutes": 20})
