"""What is left to look at when training ends, also when it ends badly."""

from __future__ import annotations

import pytest

from mrcnn.console import ConsoleTable
from mrcnn.watching import Watch
from tests.shapes import Shapes
from tests.test_training import QuickConfig


def watch(folder, **options):
    dataset = Shapes(2, size=64)
    metadata = {"class_names": dataset.class_names}
    return Watch(QuickConfig(), dataset, dataset, folder, metadata, initial_epoch=0, last_epoch=1, **options)


def test_there_is_a_report_however_training_ends(tmp_path):
    watch(tmp_path).close()  # before an epoch was over
    assert not list(tmp_path.iterdir())
    (tmp_path / "history.csv").write_text("epoch,loss\n1,2.5\n")
    watch(tmp_path).close()
    assert "Training of" in (tmp_path / "report.html").read_text()


def test_a_report_that_fails_is_told_and_loses_nothing(tmp_path):
    (tmp_path / "history.csv").write_text("not,what,training\nwrites,at,all\n")
    with pytest.warns(UserWarning, match="No report of .*`mrcnn report` tries again"):
        watch(tmp_path).close()


def test_the_table_takes_the_place_of_what_keras_prints(tmp_path):
    def tables(verbose):
        return [callback for callback in watch(tmp_path, verbose=verbose).telling if isinstance(callback, ConsoleTable)]

    assert watch(tmp_path, verbose="table").keras_verbose == 0
    assert len(tables("table")) == 1
    for verbose in (0, 1, 2, "auto"):
        assert watch(tmp_path, verbose=verbose).keras_verbose == verbose
        assert tables(verbose) == []
