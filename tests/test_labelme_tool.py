"""What judges in other tests is fetched before them, or they say what to run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests import labelme_examples, labelme_tool

MAKEFILE = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")


def test_a_test_installs_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(labelme_tool, "FOLDER", tmp_path / "none")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something was run", pytrace=False))
    with pytest.raises(pytest.fail.Exception, match="run `make setup-labelme`"):
        labelme_tool.read(tmp_path, tmp_path / "a.json")
    for target in ("test", "test-plain", "test-all"):
        assert "setup-labelme" in re.search(rf"^{target}:(.*)$", MAKEFILE, re.MULTILINE)[1].split(), target


@pytest.mark.parametrize("error", [
    FileNotFoundError("apt-get"), subprocess.CalledProcessError(100, "apt-get"), subprocess.TimeoutExpired("apt-get", 1)
])  # fmt: skip
def test_without_apt_examples_are_gone_without(tmp_path, monkeypatch, error):
    def run(*_, **__):
        raise error

    monkeypatch.setattr(labelme_examples, "EXAMPLES", tmp_path / "labelme" / "examples")
    monkeypatch.setattr(subprocess, "run", run)
    assert type(error).__name__ in labelme_examples.fetch()
    assert list((tmp_path / "labelme").iterdir()) == []
