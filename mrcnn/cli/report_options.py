"""The options of `mrcnn report`, and those of `mrcnn train` that are about knowing how it goes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def add_report(commands: Any) -> argparse.ArgumentParser:
    """Add the command `report`; its parser."""
    command = commands.add_parser(
        "report",
        help="write a training run's report again",
        description="Write the report of a training run: one HTML page with its curves, the average precision of each "
        "class, what is taken for what, the best and the worst images and the data. Training writes it at its end.",
    )
    command.add_argument("run", metavar="RUN_FOLDER", help="folder of the run, such as logs/mrcnn20260131T1200")
    command.add_argument(
        "--output", "--out", metavar="FILE", help="where to write (default: report.html in the folder)"
    )
    command.set_defaults(module="mrcnn.cli.reporting")
    return command


def add_monitoring(command: argparse.ArgumentParser, count: Callable[[str], int]) -> None:
    """Add options to `mrcnn train`.

    Args:
        command: its parser.
        count: turns text into a whole number of at least 1.
    """
    command.add_argument(
        "--evaluate-every", metavar="N", type=count,
        help="measure the average precision on --val every N epochs and keep the best weights in best.h5 (default: 1; "
        "--config EVALUATE_EVERY=0 turns it off, EVALUATE_IMAGES=N takes N images)",
    )  # fmt: skip
    command.add_argument(
        "--early-stopping", metavar="N", type=count, help="end after N epochs without a better result (default: never)"
    )
    command.add_argument(
        "--progress", choices=("table", "bar", "lines", "none"), default="table",
        help="what training shows: a table with a line for each epoch (default), Keras's progress bar, its lines",
    )  # fmt: skip
