"""`mrcnn data split`: a dataset split into parts, such as for training and for validation."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from rich.text import Text

from mrcnn.cli import CommandError, note
from mrcnn.cli.data.common import content_of, handling_of, progress
from mrcnn.cli.data.tables import new_console, new_table
from mrcnn.data.content import Content
from mrcnn.data.content_parts import Split, evenness, farthest, split_content
from mrcnn.data.writing.dataset import write_dataset

_MOST_ROWS = 40
# A share is told as being off from so much on.
_FAR = 0.02


def run(args: argparse.Namespace) -> int:
    """Split, tell how even it came out, and write."""
    shares = _shares(args.parts)
    content = content_of(args)
    content.require_sound()
    if not content.images:
        raise CommandError(f"{args.path} has no images to split.")
    split = split_content(content, shares, args.group, args.seed)
    _tell(split, shares)
    with progress("images", len(content.images)) as advance:
        written = write_dataset(split.parts, args.output, args.to, handling_of(args), advance)
    for line in written.notes():
        note(line)
    print(f"\nWrote {', '.join(shares)} to {args.output}.")
    if args.to == "coco":
        _tell_next(args, content, shares)
    return 0


def _tell_next(args: argparse.Namespace, content: Content, shares: dict[str, float]) -> None:
    """How to go on with it."""
    files = {name: Path(args.output) / "annotations" / f"{name}.json" for name in shares}
    if handling_of(args) == "none":
        print(f"The images stay where they are, in {content.folder}.")
    if "train" in files:
        val = f" --val {files['val']}" if "val" in files else ""
        images = f" --images {content.folder}" if handling_of(args) == "none" else ""
        print(f"    mrcnn train --train {files['train']}{val}{images}")


def _shares(texts: list[str]) -> dict[str, float]:
    """Shares by the names of the parts, of "train=0.8" or, in proportion, "train=80"; they sum to 1."""
    shares: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not re.fullmatch(r"[\w-]+", name) or not 0 < value < 1e9:
            raise CommandError(f"--parts takes NAME=SHARE, such as train=0.8 val=0.2. Received: {text}.")
        if name.casefold() in map(str.casefold, shares):  # they would be one file on some systems
            raise CommandError(f"--parts names {name} twice.")
        shares[name] = value
    total = sum(shares.values())
    if abs(total - 1) > 1e-6 and any(value < 1 for value in shares.values()):
        raise CommandError(f"--parts must sum to 1, or be whole numbers in proportion. Received: {total:g} in all.")
    return {name: value / total for name, value in shares.items()}


def _tell(split: Split, shares: dict[str, float]) -> None:
    rows = evenness(split.parts)
    if split.groups is not None:
        print(f"{split.groups:,} groups stay together; the largest has {split.largest:,} images.")
        if split.alone:
            note(f"{split.alone:,} images are in no group, and go by themselves.")
    console = new_console()
    columns = [("", "left")]
    for name, share in shares.items():
        columns += [(name, "right"), (f"{share:.3g}", "right")]
    table = new_table(*columns)
    for name, numbers in rows[:_MOST_ROWS]:
        cells = [Text(name)]
        for number in numbers:
            cells += [f"{number:,}", f"{number / max(sum(numbers), 1):.1%}"]
        table.add_row(*cells)
    console.print(table)
    if len(rows) > _MOST_ROWS:
        print(f"and {len(rows) - _MOST_ROWS} more classes")
    off = farthest(rows, list(shares.values()))
    if off is not None:
        name, share = list(shares.items())[off[1]]
        if abs(off[2] - share) > _FAR:
            print(f"Farthest from its share: {off[0]}, {off[2]:.1%} in {name} instead of {share:.1%}.")
    for name, part in split.parts.items():
        if not part.images:
            note(f"{name} got no image: there are too few{' groups' if split.groups is not None else ''}.")
    for name, numbers in rows:
        if not sum(numbers):
            note(f"{name} has no objects.")
