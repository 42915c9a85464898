"""Options for the GPUs that Keras uses, and how it takes their memory: fields of the configuration by other names."""

from __future__ import annotations

import argparse
from typing import Any


def add_devices(command: argparse.ArgumentParser, default: str = "all") -> None:
    """Add the options --gpus, --memory-growth and --memory-share to a command."""
    command.add_argument(
        "--gpus",
        metavar="N,N",
        type=_gpus,
        help=f"the GPUs that Keras uses, by their numbers such as 0 or 0,1; none: the CPU alone (default: {default})",
    )
    memory = command.add_mutually_exclusive_group()
    memory.add_argument("--memory-growth", action="store_true", help="take GPU memory as it is needed")
    memory.add_argument(
        "--memory-share", metavar="X", type=_part, help="take this share of each GPU's memory, such as 0.5"
    )


def device_settings(args: argparse.Namespace) -> list[tuple[str, Any]]:
    """What was asked for with the options of `add_devices`, as fields of the configuration; none of other commands."""
    if "gpus" not in args:
        return []
    memory = "growth" if args.memory_growth else args.memory_share
    return [(name, value) for name, value in (("GPUS", args.gpus), ("GPU_MEMORY", memory)) if value is not None]


def _gpus(text: str) -> tuple[int, ...]:
    if text in ("none", "cpu"):
        return ()
    numbers = [number.strip() for number in text.split(",")]
    if not all(number.isdecimal() for number in numbers) or len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers of GPUs, such as 0,1; nor none")
    return tuple(int(number) for number in numbers)


def _part(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0, at most 1")
    return value
