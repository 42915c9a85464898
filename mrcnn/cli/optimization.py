"""Options of `mrcnn train` that are about the plan of a run: its stages, how weights are moved, going on with it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mrcnn.stages import parse_stages

_PRECISIONS = {
    "float32": "float32", "mixed_bfloat16": "mixed_bfloat16", "mixed_float16": "mixed_float16",
    "f32": "float32", "bf16": "mixed_bfloat16", "f16": "mixed_float16",
}  # fmt: skip
# Options by the fields that they are.
_FIELDS = {
    "optimizer": "OPTIMIZER",
    "schedule": "LEARNING_RATE_SCHEDULE",
    "warmup": "WARMUP_STEPS",
    "accumulate": "GRADIENT_ACCUMULATION",
    "ema": "EMA_DECAY",
    "precision": "PRECISION",
    "save_every": "SAVE_EVERY",
}


def add_optimization(command: argparse.ArgumentParser, count: Callable[[str], int]) -> None:
    """Add the options to `mrcnn train`.

    Args:
        command: its parser.
        count: turns text into a whole number of at least 1.
    """
    command.add_argument(
        "--stages", metavar="LIST", type=_stages,
        help="stages one after the other, LAYERS:LAST_EPOCH[:LEARNING_RATE], such as heads:10:1e-3,all:20:1e-4, in "
        "place of --layers",
    )  # fmt: skip
    command.add_argument(
        "--resume", metavar="RUN", nargs="?", const="",
        help="go on with a run where it was stopped: its folder or a checkpoint in it (default: the newest run below "
        "--logs, or a new one where there is none); with its settings and stages, but for those given here",
    )  # fmt: skip
    command.add_argument(
        "--optimizer", choices=("SGD", "AdamW"), help="SGD (default), or AdamW, best with --config WEIGHT_DECAY=0.05"
    )
    command.add_argument(
        "--schedule", choices=("constant", "step", "cosine"),
        help="of the learning rate over each stage (default: constant)",
    )  # fmt: skip
    command.add_argument(
        "--warmup", metavar="STEPS", type=count, help="steps in which the learning rate grows, at the start of a stage"
    )
    command.add_argument(
        "--accumulate", metavar="N", type=count, help="apply the gradients of N steps together, as of one larger batch"
    )
    command.add_argument(
        "--ema", metavar="DECAY", type=_decay, help="keep a moving average of the weights, such as 0.999, and save that"
    )
    command.add_argument(
        "--precision", choices=tuple(_PRECISIONS), metavar="P",
        help="what training computes in: float32 (default), mixed_bfloat16 or mixed_float16 (also f32, bf16, f16)",
    )  # fmt: skip
    command.add_argument("--save-every", metavar="STEPS", type=count, help="save within epochs too, every STEPS steps")


def optimization_settings(args: argparse.Namespace) -> list[tuple[str, Any]]:
    """What was asked for with these options, as fields of the configuration."""
    given = {name: getattr(args, name) for name in _FIELDS if getattr(args, name) is not None}
    if "precision" in given:
        given["precision"] = _PRECISIONS[given["precision"]]
    return [(_FIELDS[name], value) for name, value in given.items()]


def resume_command(arguments: Sequence[str], run: str | Path) -> str:
    """The command line that goes on with a run.

    Args:
        arguments: that it was started with, without the program's name.
        run: its folder.
    """
    kept: list[str] = []
    skips = False
    for argument in arguments:
        if argument == "--resume" or argument.startswith("--resume="):
            skips = argument == "--resume"
        elif not skips or argument.startswith("-"):
            kept.append(argument)
            skips = False
        else:
            skips = False
    return shlex.join(["mrcnn", *kept, "--resume", str(run)])


def _stages(text: str) -> list[tuple[str, int, float | None]]:
    try:
        return parse_stages(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _decay(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 up to, not including, 1")
    return value
