"""The benchmark's driver, with candidates that are quick, or that go wrong."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pytest

from benchmarks.candidates import Candidate
from benchmarks.driver import Measurement


@pytest.fixture
def measure(tmp_path):
    """Measures fakes: name -> options. Gives the results by name, and the log of what happened."""
    photo = tmp_path / "photo.npy"
    np.save(photo, np.zeros((8, 6, 3), np.uint8))
    log = tmp_path / "log"
    log.touch()

    def run(fakes, environment=None, **options):
        candidates = [
            Candidate(
                name,
                "tests.benchmarks.fakes:Fake",
                {"name": name, "log": str(log), **how},
                "fakes",
                peer=False,
                environment=(environment or {}).get(name, {}),
            )
            for name, how in fakes.items()
        ]
        settings = {"rounds": 2, "runs": 1, "timeout": 30, "start_timeout": 60, "report": lambda line: None, **options}
        measurement = Measurement(candidates, cache=tmp_path, photo=photo, **settings)
        results = {result["name"]: result for result in measurement.measure()}
        return results, [tuple(json.loads(line)) for line in log.read_text().splitlines()]

    return run


def test_candidates_take_turns_and_only_one_is_there_at_a_time(measure):
    results, events = measure({"a": {}, "b": {}}, rounds=2, runs=2)
    # Of four detections the first tells the time to the first result, the second warms up, and two count.
    turn = [("a", "start"), *[("a", "detect")] * 4, ("b", "start"), *[("b", "detect")] * 4]
    assert events == [("a", "prepare"), ("b", "prepare"), *turn, *turn]
    for result in results.values():
        assert result["runs"] == 4
        assert result["detections"] == [3]
        assert result["lowest_seconds"] <= result["median_seconds"] <= result["highest_seconds"]
        assert 0 < result["median_seconds"] < result["first_result_seconds"]
        assert result["median_seconds"] < result["later_first_result_seconds"]
        assert result["peak_bytes_start"] > 1e6
        assert result["facts"] == {"versions": {}}


def test_a_candidate_has_its_own_environment(measure):
    _, events = measure({"a": {}, "b": {}}, environment={"b": {"FAKE_EVENT": "tuned"}}, rounds=1)
    assert {event for event in events if event[1] in ("detect", "tuned")} == {("a", "detect"), ("b", "tuned")}


def test_what_is_kept_between_starts_is_each_one_s_own_and_new(measure):
    """So that the first start is that of a machine which has never run this network."""
    _, events = measure({"a": {"keeps": True}, "b": {"keeps": True}}, rounds=2)
    kept = [event for event in events if event[1].startswith("kept")]
    assert kept == [("a", "kept 0"), ("b", "kept 0"), ("a", "kept 1"), ("b", "kept 1")]


@pytest.mark.parametrize(
    ("wrong", "at", "error"),
    [
        ("prepare", 0, "OSError: nothing to prepare it with"),
        ("raise", 0, "RuntimeError: out of luck"),
        ("raise", 2, "RuntimeError: out of luck"),
        ("exit", 1, "ended with exit status 3. Its last words: ...libraries print what they like"),
        ("nan", 0, "ValueError: Boxes or scores are not finite."),
        ("shape", 0, "ValueError: Masks should be bool (8, 6). They are bool (7, 6)."),
    ],
)
def test_one_that_fails_is_told_of_and_the_others_go_on(measure, wrong, at, error):
    results, events = measure({"bad": {"wrong": wrong, "at": at}, "good": {}})
    assert results["bad"]["error"].startswith(error)
    assert "median_seconds" not in results["bad"]
    assert results["good"]["runs"] == 2
    assert events.count(("bad", "start")) <= 1  # it gets no second turn


def test_last_words_end_with_the_last(measure):
    results, _ = measure({"bad": {"wrong": "exit"}})
    assert results["bad"]["error"].endswith("the library's last words")


def test_one_that_hangs_is_ended(measure):
    start = time.monotonic()
    results, _ = measure({"bad": {"wrong": "hang", "at": 1}, "good": {}}, timeout=1.5)
    assert results["bad"]["error"].startswith("no answer in 1.5 seconds")
    assert "error" not in results["good"]
    assert time.monotonic() - start < 60


def test_an_interpreter_that_is_not_there_is_told_of(tmp_path):
    candidate = Candidate("a", "tests.benchmarks.fakes:Fake", {}, "fakes", peer=True)
    photo = tmp_path / "photo.npy"
    measurement = Measurement(
        [candidate], lambda _: "no-such-python", cache=tmp_path, photo=photo, report=lambda line: None
    )
    (result,) = measurement.measure()
    assert "no-such-python" in result["error"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_the_peak_of_detections_is_told_apart_from_that_of_the_start(measure):
    results, _ = measure({"a": {"needs": 100_000_000}}, rounds=1)
    start, detection = (results["a"][f"peak_bytes_{when}"] for when in ("start", "detection"))
    assert 0 < detection < start - 90_000_000
