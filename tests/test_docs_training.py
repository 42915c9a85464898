"""docs/training.md: its commands are such as the command line takes, and agree; its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mrcnn.cli import _parser
from mrcnn.config import Config

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "training.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?ms)^```[a-z]*\n(.*?)^```", PAGE)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.startswith("mrcnn ")]


def parsed(command):
    return _parser().parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.split()[:3]))
def test_every_command_is_one(command):
    args = parsed(command)
    Config.from_dict({"NUM_CLASSES": 2, **dict(getattr(args, "config", ()))})
    for word in shlex.split(command):
        assert "..." not in word and "<" not in word  # it is to be pasted


def test_the_walk_uses_what_it_found():
    walk = PAGE.partition("## Knowing how it goes")[0]
    commands = [parsed(line) for line in COMMANDS if line in walk.replace("\\\n", " ")]
    assert [args.module.rpartition(".")[2] for args in commands] == ["check", "anchors", "training", "evaluating",
                                                                     "detecting"]  # fmt: skip
    train = commands[2]
    proposed = re.search(r"(?m)^proposed +([\d, ]+?)  ", walk)[1].replace(" ", "")
    assert f"--config RPN_ANCHOR_SCALES={proposed}\n" in walk
    assert dict(train.config)["RPN_ANCHOR_SCALES"] == tuple(int(scale) for scale in proposed.split(","))
    assert dict(train.config).items() >= dict(commands[1].config).items()  # sizes that anchors were fitted for
    assert (train.train, train.images) == (commands[1].dataset, commands[1].images)
    assert train.val == commands[3].annotations
    assert {commands[3].weights, commands[4].weights} == {f"logs/{train.name}*/best.h5"}
    table = [line.split() for line in walk.splitlines() if re.match(r" +\d+/\d+ ", line)]
    assert [row[0] for row in table] == [f"{number}/{train.epochs}" for number in range(1, train.epochs + 1)]


def test_links_lead_to_headings():
    links = re.findall(r"\]\(([\w./]*)#([\w-]+)\)", PAGE)
    assert len(links) >= 4
    for file, anchor in links:
        text = (DOCS / (file or "training.md")).read_text(encoding="utf-8")
        headings = re.findall(r"(?m)^#+ (.+)$", text)
        assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, anchor
