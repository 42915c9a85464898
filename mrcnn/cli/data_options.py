"""The options of `mrcnn data ...`, and that of training about its data. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

ANNOTATIONS = "annotation file or folder: COCO, VIA, labelme, YOLO, Pascal VOC, CVAT or masks, see docs/data.md"
IMAGES = "folder of its images (default: where the format has them)"


def add_format(command: argparse.ArgumentParser, split: bool = True) -> None:
    """Add the options that tell how annotations are to be read, for `mrcnn.cli.configuration.annotated_images`.

    Args:
        command: whose options they are.
        split: whether --split is among them.
    """
    command.add_argument(
        "--data-format", metavar="F", choices=("coco", "via", "labelme", "yolo", "voc", "masks", "cvat"),
        help="format of the annotations: coco, via, labelme, yolo, voc, masks or cvat (default: recognized)",
    )  # fmt: skip
    command.add_argument(
        "--class-attribute",
        metavar="NAME",
        help="of VIA: the region attribute that names the class, if there are several",
    )
    if split:
        command.add_argument("--split", metavar="NAME", help="part of the set, such as val, if the path holds several")
    else:
        command.set_defaults(split=None)


def add_data(
    commands: Any,
    add_config: Callable[[argparse.ArgumentParser], None],
    count: Callable[[str], int],
    positive: Callable[[str], float],
) -> list[argparse.ArgumentParser]:
    """Add the command `data` with its own commands; all their parsers.

    Args:
        commands: what `add_subparsers` gave.
        add_config: adds --config.
        count, positive: turn text into a whole number of at least 1, and into a number above 0.
    """
    data = commands.add_parser(
        "data",
        help="look at annotated images before training on them",
        description="Look at a dataset before training on it.",
    )
    own = data.add_subparsers(title="commands", metavar="COMMAND", required=True)
    summary = own.add_parser(
        "summary",
        help="images, objects and classes in figures",
        description="Tell what a dataset holds: sizes of images, objects of each class, how large they are and how "
        "many in an image; and fields of the configuration that this speaks for.",
    )
    anchors = own.add_parser(
        "anchors",
        help="propose anchors that fit the objects",
        description="Propose anchor scales, and with --ratios ratios, that overlap the objects best, and tell how many "
        "objects they reach, before and after. What is printed can be pasted into a Config or after --config.",
    )
    anchors.add_argument(
        "--ratios", metavar="N", nargs="?", type=count, const=0,
        help="propose the ratios too, N of them (default: as many as configured; weights fit only as many as they were "
        "trained with)",
    )  # fmt: skip
    for command, name in ((summary, "summary"), (anchors, "anchors")):
        command.add_argument("--dataset", metavar="PATH", required=True, help=ANNOTATIONS)
        command.add_argument("--images", metavar="DIR", help=IMAGES)
        add_format(command)
        command.add_argument(
            "--weights", metavar="W",
            help="take the configuration that these weights store (default: the default configuration)",
        )  # fmt: skip
        command.add_argument(
            "--seconds", metavar="S", type=positive, default=60.0,
            help="look no longer than this at the annotations (default: 60)",
        )  # fmt: skip
        command.add_argument("--json", metavar="FILE", help="write the figures to a file")
        add_config(command)
        command.set_defaults(module="mrcnn.cli.data", data_command=name)
    return [data, summary, anchors]


def add_preflight(command: argparse.ArgumentParser) -> None:
    """Add --preflight to `mrcnn train`."""
    command.add_argument(
        "--preflight", metavar="SECONDS", type=_seconds, default=5.0,
        help="look at the data no longer than this before the first step, to tell what will be trained and what may "
        "ruin it; 0: not at all (default: 5)",
    )  # fmt: skip


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value
