"""Medians, ratios, names of candidates, and the share of the machine that others take."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import inference, quiet
from benchmarks.candidates import CANDIDATES, DEFAULT, MALLOC, PUBLISHED, find
from benchmarks.measures import Run, Start, ratios, summary


def result(name, family, seconds):
    runs = [Run(s, 100, 10**9, 0.0) for s in seconds]
    return {"name": name, "family": family, **summary([Start(2.0, 2 * 10**9, {})], runs)}


def test_summary():
    starts = [Start(2.0, 100, {"threads": 2}), Start(9.0, 300, {}), Start(3.0, 200, {})]
    runs = [Run(1.0, 100, 50, 0.0), Run(9.0, 100, 70, 0.9), Run(2.0, 99, 60, 0.05), Run(3.0, 100, None, 0.0)]
    assert summary(starts, runs) == {
        "median_seconds": 2.0,  # of the three that nobody disturbed
        "lowest_seconds": 1.0,
        "highest_seconds": 3.0,
        "seconds": [1.0, 2.0, 3.0],
        "runs": 4,
        "disturbed_runs": 1,
        "detections": [99, 100],
        "first_result_seconds": 2.0,
        "later_first_result_seconds": 6.0,  # the median of the others
        "peak_bytes_start": 300,
        "peak_bytes_detection": 70,
        "facts": {"threads": 2},
    }


def test_where_all_runs_were_disturbed_they_count():
    told = summary([Start(2.0, 100, {})], [Run(1.0, 100, None, 1.5), Run(3.0, 100, None, 0.5)])
    assert (told["median_seconds"], told["runs"], told["disturbed_runs"]) == (2.0, 2, 2)
    assert told["peak_bytes_detection"] is None
    assert told["later_first_result_seconds"] is None  # there was one start


def test_ratios_are_between_the_fastest_of_each_family():
    results = [
        result("ours-a", "ours bfloat16", [2.0]),
        result("ours-b", "ours bfloat16", [1.0]),
        result("peer", "peer float32", [8.0]),
        result("peer+malloc", "peer float32", [4.0]),
        {"name": "gone", "family": "gone", "error": "no such package"},
    ]
    assert ratios(results) == {"ours bfloat16": {"peer float32": 4.0}}


def test_tables_name_everyone():
    results = [
        result("slow", "ours float32", [2.0]),
        result("quick", "peer float32", [1.0]),
        {"name": "gone", "family": "gone", "error": "no such package"},
    ]
    lines = inference.table(results).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["quick", "slow", "gone"]
    assert lines[2].split() == ["slow", "2.000", "2.000", "2.000", "2.0", "1.00", "100"]
    assert lines[3].endswith("unavailable: no such package")
    assert inference.ratio_table(ratios(results)).split() == [
        "ours",
        "float32",
        "is",
        "faster",
        "than",
        "peer",
        "float32",
        "0.50",
        "x",
    ]


def test_candidates_are_found_by_name():
    assert [candidate.name for candidate in find(DEFAULT)] == list(DEFAULT)
    assert {candidate.name for candidate in CANDIDATES} <= set(DEFAULT)
    plain, tuned = find(["torchvision-f32", "torchvision-f32+malloc"])
    assert plain.environment == {}
    assert tuned.environment == MALLOC
    assert plain.family == tuned.family
    with pytest.raises(ValueError, match="No candidate is called 'torchvison-f32'. There are: ours-keras-f32"):
        find(["torchvison-f32"])
    with pytest.raises(ValueError, match="Named twice: torchvision-f32"):
        find(["torchvision-f32", "torchvision-f32"])


def test_an_unknown_candidate_ends_the_program(capsys):
    assert inference.main(["--candidates", "nobody"]) == 2
    assert "'nobody'" in capsys.readouterr().err


@pytest.fixture
def stat(tmp_path, monkeypatch):
    path = tmp_path / "stat"
    monkeypatch.setattr(quiet, "_STAT", path)
    monkeypatch.setattr(quiet.os, "sysconf", lambda name: {"SC_CLK_TCK": 100}[name])
    return path


def test_busy_seconds(stat):
    assert quiet.busy_seconds() is None
    assert not quiet.wait_until_quiet(60)
    # user, nice, system, idle, waiting for disks, interrupts, soft interrupts, stolen, guests' (in user already)
    stat.write_text("cpu  100 20 30 9999 8888 4 5 6 77 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    assert quiet.busy_seconds() == pytest.approx(1.65)
    assert quiet.wait_until_quiet(60, window=0.01)


def test_a_busy_machine_is_waited_for_as_long_as_said(stat, monkeypatch):
    moments = iter(range(1000))
    monkeypatch.setattr(quiet, "busy_seconds", lambda: float(next(moments)))
    assert not quiet.wait_until_quiet(0.05, window=0.01)


def test_published_figures_have_sources():
    lines = inference.published().splitlines()
    assert len(lines) == 1 + len(PUBLISHED)
    assert all(figure["source"] in line for figure, line in zip(PUBLISHED, lines[1:], strict=True))


@pytest.mark.parametrize("name", ["torchvision-f32", "ours-onnxruntime-f32"])
def test_stages_are_measured_of_our_engines_that_can_tell(name, monkeypatch):
    monkeypatch.setattr(inference.subprocess, "run", lambda *_, **__: pytest.fail("started"))
    assert inference.stages_of(*find([name]), inference._parser().parse_args([])) is None


def test_stages_are_measured_in_a_process_of_their_own(tmp_path, monkeypatch):
    def run(command, env, **_):
        options = dict(zip(command[3::2], command[4::2], strict=True))
        Path(options["--output"]).write_text(json.dumps(options), encoding="utf-8")
        assert env["KERAS_BACKEND"] == "tensorflow"
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(inference.subprocess, "run", run)
    arguments = inference._parser().parse_args(["--cache", str(tmp_path), "--side", "512", "--stages", "4"])
    told = inference.stages_of(*find(["ours-keras-bf16"]), arguments)
    expected = {"--engine": "keras", "--precision": "bfloat16", "--rounds": "4", "--side": "512"}
    assert expected.items() <= told.items()
    assert told["--cache"] == str(tmp_path)
