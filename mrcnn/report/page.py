"""The page itself: what a run tells, in the order in which people ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from mrcnn.config import LOSS_NAMES
from mrcnn.files import atomic_path
from mrcnn.report.charts import NARROW, WIDE, Series, bar_chart, legend, line_chart, number_text
from mrcnn.report.classes import class_table, confusion_table
from mrcnn.report.reading import Run, read_run
from mrcnn.report.style import STYLE
from mrcnn.run_record import BEST_NAME, REPORT_NAME

_LOSS_TITLES = {
    "rpn_class_loss": "RPN: object or not",
    "rpn_bbox_loss": "RPN: boxes",
    "mrcnn_class_loss": "Heads: class",
    "mrcnn_bbox_loss": "Heads: boxes",
    "mrcnn_mask_loss": "Heads: masks",
}
_AP_TITLES = {
    "val_mask_ap": "mask AP",
    "val_mask_ap50": "mask AP50",
    "val_mask_ap75": "mask AP75",
    "val_box_ap": "box AP",
}
# Nothing of a page can ask the network for anything: browsers are told to refuse it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_MARK_EDGES = [n / 10 for n in range(11)]


def write_report(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the report of a training run.

    Args:
        folder: of the run.
        output: the file; None: `report.html` in the folder.

    Returns:
        The path written.

    Raises:
        ReportError: the folder is not a training run's.
        FileNotFoundError: the folder of `output` does not exist.
    """
    run = read_run(folder)
    path = Path(output) if output is not None else run.folder / REPORT_NAME
    with atomic_path(path) as temporary:
        temporary.write_text(page(run), encoding="utf-8")
    return path


def page(run: Run) -> str:
    """The report of a run as HTML."""
    title = f"Training of {run.folder.resolve().name}"
    body = "".join(part for part in _sections(run) if part)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{STYLE}</style></head><body>'
        f"<header><h1>{escape(title)}</h1>{_subtitle(run)}</header><main>{body}</main>"
        "<footer><p>AP is COCO's average precision: the mean over IoU 0.5 to 0.95 and over classes, from 0 to 1. "
        "Made by keras-mask-rcnn from the files in the folder of the run.</p></footer></body></html>\n"
    )


def _sections(run: Run) -> Iterator[str]:
    best = run.record["best"]
    yield _tiles(run)
    yield _loss_section(run)
    yield _ap_section(run)
    if best is None:
        yield _section(
            "no-evaluation", "No average precision yet",
            "<p>Set <code>EVALUATE_EVERY</code> in the configuration (for <code>mrcnn train</code>: "
            "<code>--evaluate-every 1</code>) and give a validation set: then average precision is measured during "
            "training, the best weights are kept, and this page shows where the model is right and where it is wrong."
            "</p>",
        )  # fmt: skip
    else:
        yield _section("classes", "Classes", class_table(best["result"]))
        yield _section("confusion", "What is taken for what", confusion_table(best))
        yield _image_section(best)
    yield _data_section(run)
    yield _config_section(run)


def _subtitle(run: Run) -> str:
    told = [f"{run.epochs[-1]} epochs"]
    if run.best_epoch is not None:
        told.append(f"best: epoch {run.best_epoch}, its weights are in <code>{BEST_NAME}</code>")
    if run.last_checkpoint is not None:
        told.append(f"last checkpoint: <code>{escape(run.last_checkpoint)}</code>")
    return f'<p class="soft">{" · ".join(told)}</p>'


def _tiles(run: Run) -> str:
    tiles = []
    best = run.record["best"]
    if best is not None:
        for kind in ("mask", "box"):
            figures = best["result"].get(kind) or {}
            for key, name in (("ap", "AP"), ("ap50", "AP50"), ("ap75", "AP75")):
                if kind == "mask" or key != "ap75":
                    tiles.append((_share(figures.get(key)), f"{kind} {name}"))
        tiles.append((number_text(best["result"]["image_count"]), "validation images"))
    for name, title in (("loss", "training loss"), ("val_loss", "validation loss")):
        value = next((v for v in reversed(run.curves.get(name, [])) if v is not None), None)
        if value is not None:
            tiles.append((f"{value:.3f}", f"{title} at the end"))
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><b>{value}</b><span>{escape(name)}</span></div>' for value, name in tiles
    ) + "</div>"  # fmt: skip


def _loss_section(run: Run) -> str:
    names = ["training", "validation"] if any(name.startswith("val_") for name in run.curves) else ["training"]

    def chart(title: str, name: str, width: int = NARROW) -> str:
        series: list[Series] = [
            (told, run.epochs, run.curves[key])
            for told, key in (("training", name), ("validation", f"val_{name}"))
            if key in run.curves
        ]
        return _figure(line_chart(f"{title}, by epoch", series, marked=run.best_epoch, width=width), title)

    whole = chart("Loss: the weighted sum of the five and the penalty of the weights", "loss", WIDE)
    parts = "".join(chart(_LOSS_TITLES[name], name) for name in LOSS_NAMES)
    others = "".join(
        chart(name.replace("_", " "), name)
        for name in run.curves
        if name not in ("loss", *LOSS_NAMES) and not name.startswith("val_")
    )
    return _section(
        "losses", "Losses",
        f'{legend(names)}{whole}<div class="grid2">{parts}{others}</div>{_curve_table(run)}',
    )  # fmt: skip


def _ap_section(run: Run) -> str:
    series: list[Series] = [
        (title, run.epochs, run.curves[name])
        for name, title in _AP_TITLES.items()
        if any(v is not None for v in run.curves.get(name, []))
    ]
    if not series:
        return ""
    chart = line_chart("Average precision on the validation set, by epoch", series, marked=run.best_epoch, width=WIDE)
    return _section(
        "precision", "Average precision",
        f"{legend([name for name, _, _ in series])}{_figure(chart, 'On the validation set, by epoch')}",
    )  # fmt: skip


def _image_section(best: dict[str, Any]) -> str:
    qualities = best["qualities"]
    counts = [0] * 10
    for quality in qualities:
        counts[min(int(quality * 10), 9)] += 1
    labels = [f"{low:.1f}-{high:.1f}" for low, high in pairwise(_MARK_EDGES)]
    marks = bar_chart("Images by their mark", labels, [("images", range(10), counts)], x_label="mark", width=WIDE)
    parts = [
        "<p>A mark from 0 to 1 for each validation image: its panoptic quality, the sum of the IoUs of what was found "
        "/ (found + half of what was missed + half of what was wrong). On the left of each picture is what is there, "
        "on the right what was predicted. <b>Blue</b>: found, and right; <b>orange</b>: missed, or wrong. Predictions "
        f"with a score of {best['min_score']:g} or more count.</p>",
        _figure(marks, "Images by their mark"),
    ]
    for kind, title in (("worst", "The worst images"), ("best", "The best images")):
        if best[kind]:
            pictures = "".join(_picture(mark) for mark in best[kind])
            parts.append(f'<h3>{title}</h3><div class="grid2" id="{kind}-images">{pictures}</div>')
    return _section("images", "Images", "".join(parts))


def _picture(mark: dict[str, Any]) -> str:
    told = f"{mark['found']} found, {mark['missed']} missed, {mark['wrong']} wrong; mark {mark['quality']:.2f}"
    name = escape(mark["name"], quote=True)
    return (
        f'<figure><img src="data:image/jpeg;base64,{mark["picture"]}" alt="{name}: annotation on the left, predictions '
        f'on the right. {told}."><figcaption>{name}: {told}</figcaption></figure>'
    )


def _data_section(run: Run) -> str:
    data = {name: told for name, told in run.record["data"].items() if told.get("read")}
    if not data:
        return ""
    rows = {
        "images": lambda d: number_text(d["images"]),
        "of these read for this table": lambda d: number_text(d["read"]),
        "instances": lambda d: number_text(d["instances"]),
        "instances an image": lambda d: f"{d['instances'] / max(d['read'], 1):.1f}",
        "most in an image": lambda d: number_text(d["most_instances"]),
        "images without instances": lambda d: number_text(d["without_instances"]),
        "crowd regions": lambda d: number_text(d["crowds"]),
        "most frequent size (height x width)": lambda d: " x ".join(map(str, [*d["image_sizes"], "-"][0][:2])),
    }  # fmt: skip
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in data)
    body = "".join(
        f'<tr><th scope="row">{escape(title)}</th>{"".join(f"<td>{told(d)}</td>" for d in data.values())}</tr>'
        for title, told in rows.items()
    )
    names = list(dict.fromkeys(name for d in data.values() for name in d["per_class"]))
    classes = bar_chart(
        "Instances of each class", names,
        [(name, range(len(names)), [d["per_class"].get(n, 0) for n in names]) for name, d in data.items()],
        x_label="class",
    )  # fmt: skip
    edges = next(iter(data.values()))["side_edges"]
    labels = [f"{low}-{high}" for low, high in pairwise(edges)] + [f"{edges[-1]}+"]
    sides = bar_chart(
        "Instances by size", labels, [(name, range(len(labels)), d["sides"]) for name, d in data.items()],
        x_label="root of the box's area, in pixels as the network sees it",
    )  # fmt: skip
    return _section(
        "data", "Data",
        f'<div class="scroll"><table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f'<h3>Instances</h3>{legend(list(data))}<div class="grid2">{_figure(classes, "By class")}'
        f"{_figure(sides, 'By size')}</div>",
    )  # fmt: skip


def _config_section(run: Run) -> str:
    if not run.config:
        return ""
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td><code>{escape(json.dumps(value))}</code></td></tr>'
        for name, value in run.config.items()
    )
    return _section(
        "configuration", "Configuration",
        "<details><summary>All fields of the configuration</summary>"
        f'<div class="scroll"><table><tbody>{rows}</tbody></table></div></details>',
    )  # fmt: skip


def _curve_table(run: Run) -> str:
    """The curves as numbers, for those who do not see them."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("epoch", *run.curves))
    columns = [["" if value is None else number_text(value) for value in column] for column in run.curves.values()]
    rows = "".join(
        f'<tr><th scope="row">{epoch}</th>{"".join(f"<td>{column[i]}</td>" for column in columns)}</tr>'
        for i, epoch in enumerate(run.epochs)
    )
    return (
        '<details><summary>All numbers</summary><div class="scroll"><table id="numbers"><thead><tr>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _section(name: str, title: str, body: str) -> str:
    return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{body}</section>'


def _figure(chart: str, caption: str) -> str:
    return f"<figure>{chart}<figcaption>{escape(caption)}</figcaption></figure>" if chart else ""


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
