"""Tables of classes: average precision of each, and what is taken for what.

Letters: K classes (0 is background).
"""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

# Classes of a confusion matrix that a page has room for.
_MOST_CLASSES = 24


def class_table(result: dict[str, Any]) -> str:
    """Average precision by class as an HTML table, the worst first, with bars.

    Args:
        result: of `mrcnn.evaluation.EvaluationResult.to_dict`.
    """
    mask, box = (result.get(kind) or {"per_class": {}, "per_class50": {}} for kind in ("mask", "box"))
    columns = (mask["per_class"], mask["per_class50"], box["per_class"], box["per_class50"])
    names = sorted(result["annotations_per_class"], key=lambda n: (v := mask["per_class"].get(n)) is None or v)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{result["annotations_per_class"][name]:,}</td>'
        f'<td class="bar"><i style="--v:{100 * (mask["per_class"].get(name) or 0):.1f}"></i></td>'
        + "".join(f"<td>{_share(column.get(name))}</td>" for column in columns)
        + "</tr>"
        for name in names
    )
    titles = ("class", "instances", "", "mask AP", "mask AP50", "box AP", "box AP50")
    head = "".join(f'<th scope="col">{title}</th>' if title else "<td></td>" for title in titles)
    return (
        '<div class="scroll"><table id="per-class"><caption>On the validation set, the worst class first; - where the '
        f"class has no instances there.</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def confusion_table(best: dict[str, Any]) -> str:
    """The confusion matrix as an HTML table; of many classes those with the most errors, the rest as "others".

    Args:
        best: dict of `confusion` [K, K] counts by (class that is there, class that was predicted), `class_names` [K]
            and `min_score`.
    """
    matrix, names = np.asarray(best["confusion"]), list(best["class_names"])
    if len(names) > _MOST_CLASSES + 1:
        errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)
        kept = sorted(1 + np.argsort(-errors[1:], kind="stable")[:_MOST_CLASSES])
        groups = np.full(len(names), len(kept) + 1)
        groups[0], groups[kept] = 0, np.arange(1, len(kept) + 1)
        folded = np.zeros((len(kept) + 2,) * 2, int)
        np.add.at(folded, (groups[:, None], groups[None, :]), matrix)
        matrix, names = folded, [names[0], *(names[k] for k in kept), "others"]
    shown = [*range(1, len(names)), 0]  # the background last
    head = "".join(f'<th scope="col">{escape(names[k]) if k else "missed"}</th>' for k in shown)
    rows = []
    for truth in shown:
        total = int(matrix[truth].sum())
        cells = []
        for predicted in shown:
            count = int(matrix[truth, predicted])
            if truth == predicted == 0:
                cells.append("<td></td>")
                continue
            kind = "" if truth == predicted else ' class="off"'
            cells.append(f'<td{kind} style="--v:{100 * count / total if total else 0:.0f}">{count:,}</td>')
        name = escape(names[truth]) if truth else "nothing there"
        rows.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>')
    return (
        '<div class="scroll"><table class="confusion" id="confusion-matrix"><caption>Rows: what is there. Columns: '
        f"what was predicted, with a score of {best['min_score']:g} or more, in that place (an IoU of the masks of 0.5 "
        "or more). Shades are shares of a row.</caption>"
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
