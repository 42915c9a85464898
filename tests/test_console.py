"""Training as a table on the console."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mrcnn.config import LOSS_NAMES
from mrcnn.console import ConsoleTable
from mrcnn.model import MaskRCNN
from tests.shapes import Shapes
from tests.test_training import QuickConfig, untraced  # noqa: F401


def printed(width, terminal=False, **options):
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, color_system=None, highlight=False)
    table = ConsoleTable(12, 3, console=console, best_epoch=lambda: 2, **options)
    table.on_train_begin()
    for epoch in range(1, 4):
        table.on_epoch_begin(epoch - 1)
        for batch in range(3):
            table.on_train_batch_end(batch, {"loss": 9.0})
        logs = {name: 0.1 * n for n, name in enumerate(LOSS_NAMES, start=1)} | {"loss": 1.5, "val_loss": 2 / epoch}
        table.on_epoch_end(epoch - 1, logs | ({"val_mask_ap": 0.25, "val_box_ap": 0.5} if epoch > 1 else {}))
    table.on_train_end()
    return stream.getvalue()


def test_a_line_an_epoch():
    lines = [line.split() for line in printed(60, validates=True, evaluates=False).splitlines()]
    assert lines[0] == ["epoch", "loss", "val", "loss", "seconds"]
    assert [line[:3] for line in lines[1:]] == [["1/12", "1.500", "2.000"], ["2/12", "1.500", "1.000"],
                                                ["3/12", "1.500", "0.667"]]  # fmt: skip
    assert [line[4:] for line in lines[1:]] == [[], ["best"], []]


def test_columns_line_up_and_what_was_not_measured_is_left_empty():
    text = printed(160, validates=False, evaluates=True)
    lines = text.splitlines()
    head = lines[0]
    for title in ("rpn class", "mask", "mask AP", "box AP"):
        assert title in head and "val loss" not in head
    end = head.index("box AP") + len("box AP")
    assert lines[2][:end].endswith("  0.500") and lines[1][:end].endswith(" " * 7)


@pytest.mark.parametrize(
    ("width", "seen", "unseen"), [(60, "mask AP", "AP50"), (80, "box AP", "AP75"), (90, "AP75", "rpn")]
)
def test_a_narrow_console_gets_the_columns_that_matter_most(width, seen, unseen):
    lines = printed(width, validates=True, evaluates=True).splitlines()
    assert len(lines) == 4 and max(map(len, lines)) <= width
    assert seen in lines[0] and unseen not in lines[0] and "val loss" in lines[0]


def test_a_terminal_sees_how_far_an_epoch_is():
    text = printed(100, terminal=True, validates=True, evaluates=False)
    assert "epoch 3 of 12" in text and "3/3" in text
    assert "2/12" in text and "best" in text


@pytest.mark.usefixtures("untraced")
def test_training_prints_the_table_in_place_of_keras_lines(tmp_path, capsys):
    config = QuickConfig.from_dict({"STEPS_PER_EPOCH": 1, "VALIDATION_STEPS": 1})
    model = MaskRCNN("training", config, tmp_path)
    model.train(Shapes(2, size=64), Shapes(2, size=64), 0.001, 1, "heads", verbose="table")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["epoch", "loss", "val", "loss", "seconds"] in lines
    row = lines[lines.index(["epoch", "loss", "val", "loss", "seconds"]) + 1]
    assert row[0] == "1/1" and float(row[1]) > 0 and float(row[2]) > 0
    assert not any("Epoch" in line or "step" in " ".join(line[1:2]) for line in lines[lines.index(row) :])
