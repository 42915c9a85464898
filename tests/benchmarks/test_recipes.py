"""The settings of the benchmark of recipes: what differs, and nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.driver import ROOT
from benchmarks.recipes import __main__ as recipes
from benchmarks.recipes import tables
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
from benchmarks.tables import read_results
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


def result(mask, box, seconds=1.0):
    scores = {"mask": {"ap": mask, "ap50": 0.9}, "box": {"ap": box, "ap50": 0.8}}
    return {"steps": 1234, "processor_seconds_of_a_step": seconds, **scores}


def test_tables():
    results = {name: result(0.6, 0.5) for name in RUNS}
    results |= {MODERN: result(0.7, 0.6), f"{MODERN}, seed 1": result(0.71, 0.57), LEGACY: result(0.4, 0.3, 1.25)}
    results |= {f"levels rounded, seed {seed}": result(0.1, 0.1) for seed in (1, 2)}
    assert tables.same_time({"results": results})[1] == (LEGACY, "1,234", "0.400", "0.900", "0.300", "0.800")
    assert tables.spread({"results": results}, "box") == pytest.approx(0.03)
    head, modern, *rows = tables.ablation({"results": results})
    assert {len(row) for row in (head, modern, *rows)} == {5} and len(rows) == 3 + len(SWITCHES)
    assert modern[2:] == ("0.700", "0.600", "1.00 s of a core")
    assert rows[0] == ("seed 1", "", "+0.010", "-0.030", "+0%")
    assert rows[1] == ("all: legacy", "", "-0.300", "-0.300", "+25%")
    (suppression,) = (row for row in rows if row[0].startswith("suppression"))
    assert suppression[1:] == ("`DETECTION_NMS_THRESHOLD`", "-0.100", "-0.100", "the same weights")


def test_the_pages_tell_what_was_measured():
    page, readme = (" ".join((ROOT / name).read_text("utf-8").split()) for name in ("docs/recipes.md", "README.md"))
    ablation, twenty = (read_results()[name] for name in ("ablation", "recipes"))
    assert len(tables.seeds(ablation)) == 3
    mask, box = (tables.spread(ablation, kind) for kind in ("mask", "box"))
    assert f"lie {mask:.3f} mask AP and {box:.3f} box AP apart" in page
    modern, legacy = (twenty["results"][name]["mask"]["ap"] for name in (MODERN, LEGACY))
    assert f"mask AP of {modern:.3f} with the modern recipe and {legacy:.3f} with the original's" in readme
    assert f"after {ablation['steps']} steps each" in page and f"for {twenty['minutes']:g} minutes of two cores" in page
