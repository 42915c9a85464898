"""Which framework is taken, and what is said when there is none."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from mrcnn import backend


@pytest.fixture
def machine(monkeypatch):
    """A machine on which only the given frameworks are installed, and nothing is chosen or imported yet."""

    def install(*names):
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        monkeypatch.delitem(sys.modules, "keras", raising=False)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in names else None)

    return install


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        (("tensorflow", "jax", "torch"), "tensorflow"),
        (("torch", "jax"), "jax"),
        (("torch",), "torch"),
    ],
)
def test_the_first_installed_is_taken(machine, installed, expected):
    machine(*installed)
    assert backend.choose_backend() == expected
    assert backend.os.environ["KERAS_BACKEND"] == expected


def test_what_the_user_chose_is_kept(machine, monkeypatch):
    machine("tensorflow")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert backend.require_backend() == "torch"


def test_with_none_installed_one_line_says_what_to_install(machine):
    machine()
    assert backend.choose_backend() is None
    with pytest.raises(
        ImportError, match=r"none of tensorflow, jax, torch is installed.*keras-mask-rcnn\[tensorflow\]"
    ) as e:
        backend.require_backend()
    assert "\n" not in str(e.value)
