"""Tables of figures: HTML in a notebook, plain text elsewhere."""

from __future__ import annotations

import html
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def display_table(table: Sequence[Sequence[Any]]) -> str:
    """Show rows as a table: HTML in a notebook, else printed.

    Returns:
        The table as plain text.
    """
    rows = [[str(cell) for cell in row] for row in table]
    columns = max((len(row) for row in rows), default=0)
    rows = [row + [""] * (columns - len(row)) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(columns)]
    text = "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and hasattr(shell, "kernel"):
        from IPython.display import HTML, display

        cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
        display(HTML("<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"))
    else:
        print(text)
    return text


def display_weight_stats(model: Any) -> list[list[str]]:
    """Show shape, range and spread of every weight, with a word where it looks wrong: not finite, very large,
    or a kernel whose values are all one.

    Args:
        model: a `MaskRCNN`, or any Keras model.

    Returns:
        The table's rows, the first of which holds the titles.
    """
    table = [["weight", "shape", "min", "max", "std", ""]]
    for layer in _weighted_layers(getattr(model, "keras_model", model)):
        for weight, values in zip(layer.weights, layer.get_weights(), strict=True):
            values = np.asarray(values, np.float64)
            remark = ""
            if not np.isfinite(values).all():
                remark = "not finite"
            elif values.size and np.abs(values).max() > 1000:
                remark = "very large"
            elif values.ndim > 1 and values.size > 1 and values.min() == values.max():
                remark = "all one value"
            figures = [f"{f(values):+.4f}" if values.size else "-" for f in (np.min, np.max, np.std)]
            name = weight.name if "/" in weight.name else f"{layer.name}/{weight.name}"
            table.append([name, str(tuple(values.shape)), *figures, remark])
    display_table(table)
    return table


def _weighted_layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _weighted_layers(layer)
        elif layer.weights:
            yield layer
