"""What the options of `mrcnn train` about knowing how it goes mean; `mrcnn report` itself is in test_report.py."""

from __future__ import annotations

from argparse import Namespace

import pytest

from mrcnn.cli import CommandError, main
from mrcnn.cli.reporting import monitoring_values


def values(val_images, stored=None, config=(), **options):
    args = Namespace(**{"evaluate_every": None, "early_stopping": None, "config": list(config), **options})
    return monitoring_values(args, val_images, stored or {})


def test_with_a_validation_set_precision_is_measured_after_each_epoch(capsys):
    assert values(40) == {"EVALUATE_EVERY": 1, "EVALUATE_IMAGES": 0, "EARLY_STOPPING": 0}
    assert values(40, evaluate_every=5, early_stopping=20) == {
        "EVALUATE_EVERY": 5, "EVALUATE_IMAGES": 0, "EARLY_STOPPING": 20,
    }  # fmt: skip
    assert capsys.readouterr().err == ""


def test_of_a_large_validation_set_a_part_is_taken_and_told(capsys):
    assert values(5000)["EVALUATE_IMAGES"] == 500
    assert "500 of the 5,000 validation images" in capsys.readouterr().err
    assert values(5000, config=[("EVALUATE_IMAGES", 0)])["EVALUATE_IMAGES"] == 0
    assert values(5000, config=[("EVALUATE_EVERY", 0)])["EVALUATE_IMAGES"] == 0
    assert capsys.readouterr().err == ""


def test_a_run_that_goes_on_keeps_what_it_had(capsys):
    stored = {"EVALUATE_EVERY": 3, "EVALUATE_IMAGES": 50, "EARLY_STOPPING": 7}
    assert values(5000, stored) == stored
    assert values(5000, stored, evaluate_every=1)["EVALUATE_EVERY"] == 1
    assert values(5000, {**stored, "EVALUATE_EVERY": 0})["EVALUATE_EVERY"] == 0
    assert capsys.readouterr().err == ""


def test_without_a_validation_set_nothing_is_measured():
    assert values(None, {"EVALUATE_EVERY": 3, "EARLY_STOPPING": 7}) == {"EVALUATE_EVERY": 0, "EARLY_STOPPING": 0}
    with pytest.raises(CommandError, match="--evaluate-every and --early-stopping need --val"):
        values(None, evaluate_every=1, early_stopping=2)
    with pytest.raises(CommandError, match="--early-stopping needs --val"):
        values(None, early_stopping=2)


def test_help_tells_of_the_options(capsys):
    for command, words in (
        ("train", ("--evaluate-every", "--early-stopping", "--progress")),
        ("report", ("RUN_FOLDER",)),
    ):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        told = capsys.readouterr().out
        assert all(word in told for word in words)
