"""Which engine is fastest: measured once, remembered, told."""

from __future__ import annotations

import json
import logging

import pytest

from mrcnn.cache import CACHE_VARIABLE
from mrcnn.engines import choice, probe
from mrcnn.engines.base import EngineError
from mrcnn.engines.choice import PACKAGES, choose, installed_engines
from mrcnn.engines.probe import measure_rate


@pytest.fixture
def rates(tmp_path, monkeypatch):
    """Rates in GFLOP/s that are found instead of measured, and which were asked for."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "_failed", set())
    given = {
        ("openvino", "float32"): 100, ("openvino", "bfloat16"): 200, ("keras", "float32"): 90,
        ("keras", "bfloat16"): 150, ("onnxruntime", "float32"): 80,
    }  # fmt: skip
    asked = []

    def measure(engine, precision, threads):
        asked.append((engine, precision))
        rate = given[engine, precision]
        if rate is None:
            raise RuntimeError("not on this machine")
        return rate * 1e9

    monkeypatch.setattr(choice, "measure_rate", measure)
    return given, asked


ALL = ("keras", "openvino", "onnxruntime")


def test_the_fastest_is_chosen_and_the_reason_told(rates):
    chosen = choose(ALL, "auto")
    assert (chosen.engine, chosen.precision) == ("openvino", "bfloat16")
    assert chosen.reason == (
        "convolutions measured here, in GFLOP/s: openvino bfloat16 200, keras bfloat16 150, openvino float32 100, "
        "keras float32 90, onnxruntime float32 80"
    )


def test_a_precision_can_be_given(rates):
    assert choose(ALL, "float32").precision == "float32"
    rates[0]["keras", "float32"] = 130  # remembered is what was measured
    assert choose(ALL, "float32").engine == "openvino"


def test_of_those_that_are_nearly_as_fast_the_better_known_is_taken(rates):
    given, _ = rates
    given["keras", "bfloat16"] = 220
    assert choose(ALL, "auto").engine == "openvino"
    given["keras", "bfloat16"] = 300
    assert choose(ALL, "auto", threads=3).engine == "keras"


def test_a_precision_that_gains_nothing_is_not_taken(rates):
    given, _ = rates
    given["openvino", "bfloat16"], given["keras", "bfloat16"] = 110, 80
    assert choose(ALL, "auto").precision == "float32"


def test_it_is_measured_once(rates, tmp_path):
    _, asked = rates
    first = choose(ALL, "auto")
    assert len(asked) == 5
    assert choose(ALL, "auto") == first and len(asked) == 5
    choose(ALL, "auto", threads=1)  # another number of threads is another matter
    assert len(asked) == 10
    known = json.loads((tmp_path / "cache" / "engines.json").read_text())
    assert len(known) == 2 and all(len(own) == 5 for own in known.values())


def test_other_versions_are_measured_anew(rates, monkeypatch):
    _, asked = rates
    choose(ALL, "auto")
    monkeypatch.setattr(choice, "_processor", lambda: "another")
    choose(ALL, "auto")
    assert len(asked) == 10


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"x": 1}'])
def test_a_spoilt_memory_is_written_anew(rates, tmp_path, content):
    _, asked = rates
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "engines.json").write_text(content)
    choose(ALL, "auto")
    choose(ALL, "auto")
    assert len(asked) == 5


@pytest.mark.parametrize("spoil", ['"fast"', '{"openvino bfloat16": "very"}'])
def test_a_memory_of_the_wrong_kind_is_measured_anew(rates, tmp_path, spoil):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "engines.json").write_text(f"{{{json.dumps(choice._fingerprint(None))}: {spoil}}}")
    assert choose(ALL, "auto").engine == "openvino"


def test_a_cache_that_cannot_be_written_is_done_without(rates, tmp_path, monkeypatch):
    _, asked = rates
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    assert choose(ALL, "auto").engine == "openvino"
    choose(ALL, "auto")
    assert len(asked) == 10


def test_what_does_not_run_here_is_left_out(rates, caplog):
    given, asked = rates
    given["openvino", "bfloat16"] = given["keras", "bfloat16"] = None
    with caplog.at_level(logging.WARNING, "mrcnn"):
        assert choose(ALL, "auto").precision == "float32"
    assert "The engine openvino cannot run in bfloat16 here: not on this machine" in caplog.text
    choose(ALL, "auto")
    assert len(asked) == 5  # nor is it asked again
    choice._failed.clear()  # as in another process, which asks again what failed, and nothing else
    given["keras", "bfloat16"] = 150
    assert choose(ALL, "auto").engine == "keras"
    assert asked[5:] == [("keras", "bfloat16"), ("openvino", "bfloat16")]
    given.update(dict.fromkeys(given))
    with pytest.raises(EngineError, match=r"None of the engines openvino, keras runs here. Name one \(engine=...\)"):
        choose(("openvino", "keras"), "auto", threads=2)


def test_the_only_one_is_not_measured(rates):
    _, asked = rates
    assert choose(["onnxruntime"], "auto").reason == "nothing else would do"
    assert choose(["onnxruntime", "openvino"], "bfloat16").engine == "openvino"
    assert asked == []
    for engines, precision in ((["onnxruntime"], "bfloat16"), ([], "auto")):
        with pytest.raises(EngineError, match="No engine of .* computes in"):
            choose(engines, precision)


def test_installed_engines(monkeypatch):
    monkeypatch.setattr(choice, "installed", lambda package: package != "keras")
    assert installed_engines() == ["openvino", "onnxruntime"]
    assert set(PACKAGES) == set(ALL)


@pytest.mark.parametrize("engine", ALL)
def test_measuring_runs(engine):
    assert measure_rate(engine, "float32", None if engine == "keras" else 1) > 1e8


def test_what_is_measured_is_what_was_asked_for(monkeypatch):
    """Keras with so many threads; OpenVINO in bfloat16, where it would run float32 and say nothing."""
    from mrcnn.engines import keras_engine

    def refuse(threads):
        raise EngineError(f"not {threads}")

    monkeypatch.setattr(keras_engine, "set_threads", refuse)
    with pytest.raises(EngineError, match="not 3"):
        measure_rate("keras", "float32", 3)
    monkeypatch.setattr(probe, "capabilities_of", lambda core, device: ["FP32"])
    with pytest.raises(EngineError, match="does not compute in bfloat16"):
        measure_rate("openvino", "bfloat16")
