"""`mrcnn data anchors`: anchors that fit the objects."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from mrcnn.cli import CommandError, note
from mrcnn.cli.data.common import paste, surveyed, write_json
from mrcnn.config import Config
from mrcnn.data import summary as figures
from mrcnn.data.anchor_fit import GOOD_IOU, AnchorFit, fit_anchors


def run(args: argparse.Namespace) -> int:
    """Look at the dataset, and propose."""
    _, config, seen = surveyed(args)
    if not len(seen.boxes):
        raise CommandError(f"{args.dataset} has no objects that anchors could be fitted to.")
    count = args.ratios if args.ratios != 0 else len(config.RPN_ANCHOR_RATIOS)
    fit = fit_anchors(seen.boxes, seen.molded[seen.owners], config, count)
    told = figures.figures(seen, config)
    side = told["object_sides_molded"]
    print(
        f"{len(seen.boxes)} objects of {side['least']:.0f} to {side['most']:.0f} pixels (root of the box's area), half "
        f"of them {side['quarter']:.0f} to {side['three_quarters']:.0f}; images {figures.size_in_words(told)}."
    )
    print("\n".join(_table(fit, config)))
    if not fit.better:
        print("The configured anchors fit as well: there is nothing to change.")
    fields: dict[str, Any] = {"RPN_ANCHOR_SCALES": fit.scales}
    if args.ratios is not None:
        fields["RPN_ANCHOR_RATIOS"] = list(fit.ratios)
    if fit.better:
        if fit.unused:
            levels = ", ".join(f"P{level + 2}" for level in fit.unused)
            print(f"No object needs the anchors of {levels}; their scales go on from their neighbors'.")
        paste(fields)
    if count is not None and count != len(config.RPN_ANCHOR_RATIOS):
        note(
            f"weights made with {len(config.RPN_ANCHOR_RATIOS)} ratios do not fit a network of {count}: exclude "
            "rpn_class_raw and rpn_bbox_pred when loading them."
        )
    told = {
        "objects": len(seen.boxes),
        **{name: list(value) for name, value in fields.items()},
        "before": dataclasses.asdict(fit.before),
        "after": dataclasses.asdict(fit.after),
        "better": fit.better,
    }
    write_json(args.json, told)
    return 0


def _table(fit: AnchorFit, config: Config) -> list[str]:
    rows = [("", f"scales of P2 to P{1 + len(fit.scales)}", "ratios", "IoU >= 0.5", "IoU >= 0.7", "mean IoU*")]
    for name, scales, ratios, reached in (
        ("configured", config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS, fit.before),
        ("proposed", fit.scales, fit.ratios, fit.after),
    ):
        texts = (", ".join(f"{value:g}" for value in values) for values in (scales, ratios))
        rows.append((name, *texts, f"{reached.fair:.1%}", f"{reached.good:.1%}", f"{reached.mean_iou:.3f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    told = (
        f"* those above {GOOD_IOU} counted as that: such an anchor is a positive example, and a better one is no more"
    )
    return ["Share of the objects that an anchor overlaps (recall):", *lines, told]
