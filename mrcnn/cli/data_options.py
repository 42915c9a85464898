"""The options of `mrcnn data ...`, and that of training about its data. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

ANNOTATIONS = "annotation file or folder: COCO, VIA, labelme, YOLO, Pascal VOC, CVAT or masks, see docs/data.md"
IMAGES = "folder of its images (default: where the format has them)"
DEFAULT_AUGMENTATION = "flip"

_WRITTEN = ("coco", "yolo", "labelme")


def add_format(command: argparse.ArgumentParser, split: bool = True) -> None:
    """Add the options that tell how annotations are to be read, for `mrcnn.cli.configuration.annotated_images`.

    Args:
        command: whose options they are.
        split: whether --split is among them.
    """
    command.add_argument(
        "--data-format", "--from", metavar="F", choices=("coco", "via", "labelme", "yolo", "voc", "masks", "cvat"),
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


def add_augmentation(command: argparse.ArgumentParser) -> None:
    """Add --augment; without it, `augmentation` is None, which stands for `DEFAULT_AUGMENTATION`."""
    command.add_argument(
        "--augment", "--augmentation", dest="augmentation", choices=("none", "flip", "standard", "strong"),
        help="random changes of training images. flip (default): mirror half of them left-right; standard: that, "
        "colors, and a scale of 0.8 to 1.25; strong: a scale of 0.1 to 2 instead, and objects of other images pasted, "
        "for long training",
    )  # fmt: skip


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
        path = command.add_argument("dataset", metavar="PATH", action=_Once, help=ANNOTATIONS)
        command.add_argument("--dataset", metavar="PATH", action=_Once, instead_of=path, help="the same as PATH")
        command.add_argument("--images", metavar="DIR", help=IMAGES)
        add_format(command)
        _add_weights(command)
        command.add_argument(
            "--seconds", metavar="S", type=positive, default=60.0,
            help="look no longer than this at the annotations (default: 60)",
        )  # fmt: skip
        command.add_argument("--json", metavar="FILE", help="write the figures to a file")
        add_config(command)
        command.set_defaults(module=f"mrcnn.cli.data.{name}")
    check = _add_check(own, count, positive)
    preview = _add_preview(own, count)
    for command in (check, preview):
        add_config(command)
    return [data, summary, anchors, check, _add_convert(own), _add_split(own), preview]


class _Once(argparse.Action):
    """A positional argument, or an option that stands for it, so that it is not needed then. (One of nargs="?" is not
    found after options before Python 3.12.)"""

    def __init__(self, *args: Any, instead_of: argparse.Action | None = None, **options: Any) -> None:
        super().__init__(*args, **{**options, "default": argparse.SUPPRESS})
        self._instead_of = instead_of

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        if getattr(namespace, self.dest, None) is not None:
            parser.error("the dataset is given twice: as PATH or after --dataset, not both")
        setattr(namespace, self.dest, values)
        if self._instead_of is not None:
            self._instead_of.required = False


def _add_check(commands: Any, count: Callable[[str], int], positive: Callable[[str], float]) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "check",
        help="find what is wrong with a dataset",
        description="Read the annotations, decode every image, look at every object, and list what is wrong, with "
        "classes and sizes of objects. The exit code is 0 where nothing is wrong, 1 where there are errors; warnings "
        "alone do not count without --strict.",
    )
    _add_path(command)
    _add_weights(command)
    command.add_argument(
        "--seconds", metavar="S", type=positive,
        help="decode images no longer than this, chosen by chance (default: until all are)",
    )  # fmt: skip
    command.add_argument("--strict", action="store_true", help="warnings count as errors")
    command.add_argument("--json", metavar="FILE", help="write all that was found to a file")
    command.add_argument(
        "--picture", metavar="FILE",
        help="draw images with their annotations into one picture (PNG or JPEG), first those that something is wrong "
        "with",
    )  # fmt: skip
    command.add_argument(
        "--count", metavar="N", type=count, default=24, help="images in the picture, at most (default: 24)"
    )
    command.set_defaults(module="mrcnn.cli.data.check")
    return command


def _add_convert(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "convert",
        help="write a dataset in another format",
        description="Read a dataset of any format that is known, and write it as COCO, YOLO or labelme have it. What "
        "the format cannot say, and what could not be read, is told.",
    )
    _add_path(command)
    command.add_argument("output", metavar="OUT", help="folder to write to, which must be new or empty")
    command.add_argument("--to", metavar="F", required=True, choices=_WRITTEN, help="coco, yolo or labelme")
    _add_handling(command)
    command.set_defaults(module="mrcnn.cli.data.convert")
    return command


def _add_split(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "split",
        help="split a dataset for training and validation",
        description="Split a dataset into parts, such that each has its share of the images and of every class, and "
        "write an annotation file for each. The images stay where they are. The same images and the same seed "
        "give the same parts, whatever their order, and a few more images leave most of the others where they were.",
    )
    _add_path(command)
    command.add_argument("output", metavar="OUT", help="folder to write to, which must be new or empty")
    command.add_argument(
        "--parts", metavar="NAME=SHARE", nargs="+", required=True, help="such as train=0.8 val=0.2, or train=80 val=20"
    )
    command.add_argument(
        "--group", metavar="G",
        help="keep images together that share their folder (folder), a field of their entries (its name, such as "
        "patient_id) or a part of their name (a regular expression, such as '^([^_]+)_')",
    )  # fmt: skip
    command.add_argument("--seed", metavar="N", type=int, default=0, help="another one splits otherwise (default: 0)")
    command.add_argument("--to", metavar="F", default="coco", choices=_WRITTEN, help="coco (default), yolo or labelme")
    _add_handling(command)
    command.set_defaults(module="mrcnn.cli.data.split")
    return command


def _add_preview(commands: Any, count: Callable[[str], int]) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "preview",
        help="draw what training will see",
        description="Draw images as training will see them: augmented, resized or cropped, with the masks as coarse as "
        "it takes them.",
    )
    _add_path(command)
    _add_weights(command)
    command.add_argument("--out", metavar="FILE", default="preview.png", help="picture to write (default: preview.png)")
    add_augmentation(command)
    command.add_argument("--count", metavar="N", type=count, default=16, help="images, drawn by chance (default: 16)")
    command.add_argument("--draws", metavar="N", type=count, default=1, help="samples of each image (default: 1)")
    command.add_argument("--seed", metavar="N", type=int, default=0, help="of chance (default: 0)")
    command.set_defaults(module="mrcnn.cli.data.preview")
    return command


def _add_path(command: argparse.ArgumentParser) -> None:
    command.add_argument("path", metavar="PATH", help=ANNOTATIONS)
    command.add_argument("--images", metavar="DIR", help=IMAGES)
    add_format(command)


def _add_handling(command: argparse.ArgumentParser) -> None:
    images = command.add_mutually_exclusive_group()
    images.add_argument("--copy-images", action="store_true", help="copy the images beside the annotations")
    images.add_argument(
        "--link-images", action="store_true", help="symbolic links instead (default: the images stay where they are)"
    )


def _add_weights(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--weights", metavar="W",
        help="take the configuration that these weights store (default: the default configuration)",
    )  # fmt: skip


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
