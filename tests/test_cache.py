"""Where files are kept, with platformdirs and without."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mrcnn.cache import CACHE_VARIABLE, cache_folder, known_cache_folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
@pytest.mark.parametrize("inside", [".cache", "elsewhere"])
def test_a_machine_without_platformdirs_has_the_same_folder(home, monkeypatch, inside):
    if inside != ".cache":
        monkeypatch.setenv("XDG_CACHE_HOME", str(home / inside))
    with_it = cache_folder()
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert cache_folder() == known_cache_folder() == with_it == home / inside / "mrcnn"


def test_one_without_a_home_has_none(home, monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setitem(sys.modules, "platformdirs", None)
    monkeypatch.setattr(Path, "home", nowhere)
    assert known_cache_folder() is None
