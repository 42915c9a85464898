"""What `mrcnn data check` prints, and writes as JSON."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console
from rich.text import Text

from mrcnn.cli.data.tables import bar, count_of, new_console, new_table
from mrcnn.config import Config
from mrcnn.data import summary as figures
from mrcnn.data.checking import Check
from mrcnn.data.content import Content
from mrcnn.data.findings import KINDS, Finding, Level

_STYLES = {Level.ERROR: "bold red", Level.WARNING: "bold yellow", Level.NOTE: "bold"}
_TITLES = {Level.ERROR: "Errors", Level.WARNING: "Warnings", Level.NOTE: "Good to know"}
# Findings of one kind that are printed, and names where there is no more to say than these.
_SHOWN, _NAMED = 3, 5
_MOST_CLASSES = 30


def print_report(content: Content, config: Config, found: Check) -> None:
    """All that was found, for people."""
    console = new_console()
    seen, findings = found.survey, found.findings
    objects = count_of(len(seen.boxes), "object") + (f" and {count_of(seen.crowds, 'crowd')}" if seen.crowds else "")
    total = len(content.images)
    decoded = "all decoded" if found.decoded == total else f"{found.decoded:,} of them decoded"
    console.print(
        f"{content.path} ({content.format}): {count_of(total, 'image')}, {decoded}; {objects} of "
        f"{count_of(len(content.categories), 'class', 'classes')}; {seen.seconds:.1f} s",
        markup=False,
    )
    for level in Level:
        if not findings.count(level):
            continue
        console.print(f"\n{_TITLES[level]}", style=_STYLES[level], markup=False)
        for kind, count, kept in findings.of_level(level):
            _print_kind(console, kind, count, kept, str(content.path))
    if total:
        _print_classes(console, found)
        _print_sizes(console, config, found)
    console.print(f"\n{_verdict(found)}", style="bold", markup=False)


def told(content: Content, config: Config, found: Check) -> dict[str, Any]:
    """All that was found, for programs."""
    findings = found.findings
    return {
        "path": str(content.path),
        "format": content.format,
        "decoded": found.decoded,
        "seconds": round(found.survey.seconds, 3),
        **{f"{level}s": findings.count(level) for level in Level},
        "findings": [
            {
                "kind": kind,
                "level": str(level),
                "title": KINDS[kind][1],
                "count": count,
                "examples": [{"file": f.file, "entry": f.entry, "message": f.message} for f in kept],
            }
            for level in Level
            for kind, count, kept in findings.of_level(level)
        ],
        "figures": figures.figures(found.survey, config),
        "sizes": figures.size_histogram(found.survey, config),
    }


def _print_kind(console: Console, kind: str, count: int, kept: list[Finding], path: str) -> None:
    title = f"  {KINDS[kind][1]}: {count:,}"
    # What is read is known: its file is named where it is a folder's.
    texts = [str(finding).removeprefix(f"{path}: ").removeprefix(f"{path}{os.sep}") for finding in kept]
    if not any(finding.message for finding in kept):  # names say all
        names = [text for text in texts if text]
        rest = f" and {count - _NAMED:,} more" if count > _NAMED else ""
        listed = f" ({', '.join(names[:_NAMED])}{rest})" if names else ""
        console.print(f"{title}{listed}", markup=False)
        return
    console.print(title, markup=False)
    for text in texts[:_SHOWN]:
        console.print(f"      {text}", style="dim", markup=False)
    if count > _SHOWN:
        console.print(f"      and {count - _SHOWN:,} more", style="dim", markup=False)


def _print_classes(console: Console, found: Check) -> None:
    seen = found.survey
    rows = sorted(zip(seen.class_names, seen.per_class, seen.images_per_class, strict=True), key=lambda row: -row[1])
    rows = [(str(name), int(objects), int(images)) for name, objects, images in rows if objects]
    if not rows:
        return
    most = rows[0][1]
    table = new_table(("class", "left"), ("objects", "right"), ("images", "right"), ("", "left"))
    for name, objects, images in rows[:_MOST_CLASSES]:
        table.add_row(Text(name), f"{objects:,}", f"{images:,}", bar(objects / most))
    console.print()
    console.print(table)
    if len(rows) > _MOST_CLASSES:
        console.print(f"and {len(rows) - _MOST_CLASSES:,} more classes (--json has all)")


def _print_sizes(console: Console, config: Config, found: Check) -> None:
    rows = figures.size_histogram(found.survey, config)
    if not rows:
        return
    most = max(row["objects"] for row in rows)
    table = new_table(
        ("size, resized", "left"), ("objects", "right"), ("with an anchor", "right"), ("scales", "left"), ("", "left")
    )
    for row in rows:
        share = f"{row['with_anchor'] / row['objects']:.0%}" if row["objects"] else ""
        scales = ", ".join(f"{scale:g}" for scale in row["anchor_scales"])
        size = f"{row['from']:4} to {row['to']:4}"
        table.add_row(size, f"{row['objects']:,}", share, scales, bar(row["objects"] / most))
    console.print()
    console.print(table)


def _verdict(found: Check) -> str:
    errors, warnings = (found.findings.count(level) for level in (Level.ERROR, Level.WARNING))
    if not errors and not warnings:
        return "Nothing is wrong."
    return f"{count_of(errors, 'error')}, {count_of(warnings, 'warning')}."
