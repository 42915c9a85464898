"""Tables and bars of letters on the terminal."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_BAR = 30
_WIDTH = 160


def new_console() -> Console:
    """The standard output. What goes into a file is not cut at a terminal's width."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _WIDTH)


def new_table(*columns: tuple[str, Any]) -> Table:
    """A table without lines, of columns with a title and "left" or "right"."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for title, justify in columns:
        table.add_column(Text(title), justify=justify, no_wrap=True)
    return table


def bar(share: float) -> Text:
    """A bar as long as a share of 0 to 1, in eighths of a letter; of what is there at least one."""
    eighths = max(round(share * _BAR * 8), 1) if share > 0 else 0
    whole, rest = divmod(eighths, 8)
    return Text("█" * whole + " ▏▎▍▌▋▊▉"[rest].strip(), style="cyan")


def count_of(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: "1 image", "2 images"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
