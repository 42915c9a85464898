"""The options of the commands that find objects: tiles, least scores, suppression and mirror images. Nothing heavy is
imported here."""

from __future__ import annotations

import argparse
from collections.abc import Callable

# As of `Detector.detect`.
OVERLAP = 0.2


def add_choices(command: argparse.ArgumentParser, count: Callable[[str], int]) -> None:
    """Add options to `mrcnn detect` and `mrcnn evaluate`.

    Args:
        command: its parser.
        count: turns text into a whole number of at least 1.
    """
    command.add_argument(
        "--tile", metavar="N", type=count,
        help="cut images into tiles of N x N pixels, look at each as at an image, and make one of what is found: for "
        "images that are large, or whose objects are small beside them",
    )  # fmt: skip
    command.add_argument(
        "--overlap", metavar="X", type=_overlap,
        help=f"share of a tile's side that its neighbors see too, 0 to 0.9 (default: {OVERLAP}); best more than the "
        "objects measure, for larger ones are put together from pieces",
    )  # fmt: skip
    command.add_argument(
        "--class-agnostic-nms", action="store_true",
        help="of overlapping detections keep the best, of whatever classes (default: of each class)",
    )  # fmt: skip
    command.add_argument(
        "--flips", metavar="F", type=_flips, default=(),
        help="look at mirror images too, and average: horizontal, vertical, both (in both directions), or several, "
        "separated by commas; each takes as long as the image",
    )  # fmt: skip


def add_confidence(command: argparse.ArgumentParser, number: Callable[[str], float], default: str) -> None:
    """Add --min-confidence.

    Args:
        command: the parser.
        number: turns text into a number from 0 to 1.
        default: what holds without it, in words.
    """

    def confidence(text: str) -> float | dict[str, float]:
        if "=" not in text:
            return number(text)
        by_class = {}
        for part in text.split(","):
            name, equals, value = part.rpartition("=")
            if not equals or not name.strip() or name.strip() in by_class:
                raise argparse.ArgumentTypeError(f"{text!r} is not CLASS=X,CLASS=X,... with each class once")
            by_class[name.strip()] = number(value)
        return by_class

    command.add_argument(
        "--min-confidence", metavar="X", type=confidence,
        help=f"least score of a detection, 0 to 1 (default: {default}); or of some classes, such as cat=0.3,dog=0.8",
    )  # fmt: skip


def _overlap(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0 <= value <= 0.9:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 0.9")
    return value


def _flips(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if len(set(names)) < len(names) or not set(names) <= {"horizontal", "vertical", "both"}:
        raise argparse.ArgumentTypeError(f"{text!r} is not of horizontal, vertical and both, each once")
    return names
