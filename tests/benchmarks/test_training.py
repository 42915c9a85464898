"""The benchmark of training steps, with trainers that are quick, and what the two sides are given."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scene, training
from benchmarks.candidates import Candidate
from benchmarks.driver import WorkerError
from benchmarks.measures import Run
from benchmarks.our_training import batch_of, config


@pytest.fixture
def measure(tmp_path):
    """Measures fakes: name -> options. Gives the results, and the names in the order of their steps."""
    photo, log = tmp_path / "photo.npy", tmp_path / "log"
    np.save(photo, np.zeros((8, 6, 3), np.uint8))
    log.touch()

    def run(fakes, steps=2):
        candidates = [
            Candidate(
                name, "tests.benchmarks.fakes:FakeTrainer", {"name": name, "log": str(log), **how}, name, peer=False
            )
            for name, how in fakes.items()
        ]
        results = training.measure(
            candidates, lambda candidate: sys.executable, cache=tmp_path, photo=photo, steps=steps, patience=0,
            repeats=0, report=lambda line: None,
        )  # fmt: skip
        return results, [json.loads(line)[0] for line in log.read_text().splitlines()]

    return run


def test_sides_step_by_turns(measure):
    results, steps = measure({"a": {}, "b": {}}, steps=3)
    # Each takes two steps to get ready, before the other is there; those that count alternate.
    assert steps == ["a", "a", "b", "b", *["a", "b"] * 3]
    assert [(result["name"], result["runs"]) for result in results] == [("a", 3), ("b", 3)]
    assert all(0 < result["lowest_seconds"] <= result["median_seconds"] for result in results)
    assert training.differences(results) == []


def test_quiet_steps_are_compared_with_quiet_ones(measure, monkeypatch):
    # "a" was never alone on the machine, so what counts of "b" is all that it did, and not its one quiet step.
    times = {"a": [(4.0, 1.0), (6.0, 1.0), (5.0, 1.0)], "b": [(9.0, 1.0), (1.0, 0.0), (8.0, 1.0)]}
    steps = {name: iter([(1.0, 0.0), *found]) for name, found in times.items()}

    def step(worker):
        seconds, foreign = next(steps[worker.candidate.name])
        return Run(seconds, 2, None, foreign)

    monkeypatch.setattr(training, "_step", step)
    results, _ = measure({"a": {}, "b": {}}, steps=3)
    assert [result["median_seconds"] for result in results] == [5.0, 8.0]
    assert [result["disturbed_runs"] for result in results] == [3, 3]


@pytest.mark.parametrize("loss", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 2])
def test_a_side_that_does_not_learn_is_no_measurement(measure, loss, at):
    with pytest.raises(WorkerError, match="Losses must be above 0, and finite"):
        measure({"a": {"later": loss, "at": at}})


def test_sides_that_do_other_work_are_told_of(measure):
    results, _ = measure({"a": {}, "b": {"rois": 9}})
    assert training.differences(results) == ["rois: 8 of a, 9 of b"]


def test_the_ratio_is_over_the_fastest_and_the_leanest():
    results = [
        {"median_seconds": seconds, "peak_bytes_detection": peak} for seconds, peak in ((3.0, 6), (5.0, 5), (4.0, 8))
    ]
    assert training.time_ratio(results) == 0.75
    assert training.memory_ratio(results) == 1.2
    assert training.memory_ratio([*results, {"median_seconds": 1.0, "peak_bytes_detection": None}]) is None


def test_the_command_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    result = {
        "median_seconds": 2.0, "lowest_seconds": 1.9, "highest_seconds": 2.2, "first_result_seconds": 9.0,
        "peak_bytes_detection": 3 * 10**9, "peak_bytes_start": 10**9, "disturbed_runs": 0, "runs": 4,
        "facts": {"rois": 400, "mask_rois": 132},
    }  # fmt: skip

    def measured(field, *args, **options):
        if field[0].name == "ours-bf16":
            raise WorkerError("no such instruction")
        return [{"name": one.name, **result, "median_seconds": 2.0 + number} for number, one in enumerate(field)]

    monkeypatch.setattr(training, "measure", measured)
    file = tmp_path / "told.json"
    assert training.main(["--json", str(file), "--cache", str(tmp_path)]) == 1  # one precision is missing
    told = json.loads(file.read_text())
    assert told["ratios"] == {"f32": pytest.approx(2 / 3)}
    assert told["failures"] == ["bf16: no such instruction"]
    assert training.main(["--json", str(file), "--cache", str(tmp_path), "--precisions", "f32"]) == 0
    assert "0.667 x the time of torchvision's fastest" in capsys.readouterr().out


def test_scenes_are_what_their_boxes_say():
    scenes = scene.scenes(np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8))
    assert len(scenes) == training.BATCH
    for one in scenes:
        assert len(one.boxes) == len(one.labels) == len(one.masks)
        for box, mask in zip(one.boxes, one.masks, strict=True):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            np.testing.assert_allclose(box, [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], atol=1.5)
    np.testing.assert_array_equal(scenes[1].image, scenes[0].image[:, ::-1])
    np.testing.assert_array_equal(scenes[1].masks, scenes[0].masks[..., ::-1])


def test_our_batch_has_the_scenes_objects_and_the_agreed_counts():
    photo = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    settings = config(128)
    batch = batch_of(scene.scenes(photo), settings)
    scenes = scene.scenes(photo)
    for row, one in enumerate(scenes):
        count = len(one.boxes)
        np.testing.assert_array_equal(batch["input_gt_class_ids"][row, :count], one.labels)
        np.testing.assert_allclose(batch["input_gt_boxes"][row, :count], one.boxes, atol=1.5)
        assert not batch["input_gt_class_ids"][row, count:].any()
    assert int(settings.TRAIN_ROIS_PER_IMAGE * settings.ROI_POSITIVE_RATIO) == scene.POSITIVES
    assert settings.RPN_CONV_SIZE == scene.RPN_WIDTH
    assert config(128, "bfloat16").PRECISION == "mixed_bfloat16"


def test_the_kept_run_is_faster_than_torchvision_and_needs_hardly_more_memory():
    path = Path(training.__file__).parent / "results" / "training-epyc-avx512-2-cores.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["failures"] == []
    assert {short: ratio <= 0.9 for short, ratio in kept["ratios"].items()} == {"f32": True, "bf16": True}
    for short, results in kept["results"].items():
        ours, as_it_comes = (
            next(one for one in results if one["name"] == name)["peak_bytes_detection"]
            for name in (f"ours-{short}", f"torchvision-{short}-frozen")
        )
        assert ours <= 1.1 * as_it_comes
