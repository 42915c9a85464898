"""What the commands of `mrcnn data` share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mrcnn.cli.configuration import annotated_images, find_weights, make_config, stored_values
from mrcnn.config import Config
from mrcnn.data import summary as figures
from mrcnn.data.content import Content
from mrcnn.data.dataset import Dataset
from mrcnn.data.formats import read_content
from mrcnn.data.survey import Survey, survey
from mrcnn.files import atomic_path


def surveyed(args: argparse.Namespace) -> tuple[Dataset, Config, Survey]:
    """The dataset of --dataset and --images, prepared, the configuration for it, and a look at it, which is told."""
    dataset = annotated_images(args.dataset, args.images, args)
    config = configured(args, dataset.num_classes)
    seen = survey(dataset, config, args.seconds)
    print(f"Looked at {seen.looked_at} (--seconds {args.seconds:g} at most).")
    return dataset, config, seen


def content_of(args: argparse.Namespace) -> Content:
    """The dataset of PATH as it was read, problems and all."""
    return read_content(args.path, args.images, args.data_format, args.split, args.class_attribute)


def handling_of(args: argparse.Namespace) -> str:
    """What becomes of the images, as `mrcnn.data.writing.dataset.write_dataset` takes it."""
    return "copy" if args.copy_images else "link" if args.link_images else "none"


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """What shows on a terminal how far a command is: to be called after each step, or with how many are done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda *done: None
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)

        def advance(done: int | None = None, total: int | None = None) -> None:
            bar.update(task, advance=1) if done is None else bar.update(task, completed=done, total=total)

        yield advance


def configured(args: argparse.Namespace, num_classes: int) -> Config:
    """The configuration of --weights and --config for data of so many classes, the background's among them."""
    info, values = None, {}
    if args.weights is not None:
        from mrcnn.weights.info import inspect_weights

        info = inspect_weights(find_weights(args.weights))
        values = stored_values(info)
    return make_config(info, {**values, "NUM_CLASSES": num_classes, "CLASS_WEIGHTS": None}, args.config)


def write_json(path: str | None, told: Any) -> None:
    """Write what was told to the file of --json, if one is wanted."""
    if path is not None:
        with atomic_path(Path(path)) as temporary:
            temporary.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def paste(fields: dict[str, Any]) -> None:
    """Print fields of the configuration, to be pasted into a Config or after --config."""
    if not fields:
        return
    print("\nFor the Config:")
    print("\n".join(f"    {line}" for line in figures.config_lines(fields)))
    print("or on the command line:")
    values = {name: ",".join(f"{v:g}" for v in value) if isinstance(value, list | tuple) else value
              for name, value in fields.items()}  # fmt: skip
    print(f"    --config {' '.join(f'{name}={value}' for name, value in values.items())}")
