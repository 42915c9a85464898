"""`mrcnn data summary` and `mrcnn data anchors`: a dataset looked at before training on it. Needs no framework."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from mrcnn.cli import CommandError, note
from mrcnn.cli.configuration import annotated_images, find_weights, make_config, stored_values
from mrcnn.config import Config
from mrcnn.data import summary as figures
from mrcnn.data.anchor_fit import AnchorFit, fit_anchors
from mrcnn.data.dataset import Dataset
from mrcnn.data.survey import Survey, sample_images, survey
from mrcnn.files import atomic_path

# Seconds that reading images for their mean takes at most.
_SECONDS_OF_MEAN = 10.0


def run(args: argparse.Namespace) -> int:
    """Look at the dataset, and tell."""
    dataset = annotated_images(args.dataset, args.images, args)
    config = _config(args, dataset)
    seen = survey(dataset, config, args.seconds)
    print(f"Looked at {seen.looked_at} (--seconds {args.seconds:g} at most).")
    told = {"summary": _summary, "anchors": _anchors}[args.data_command](args, dataset, config, seen)
    if args.json is not None:
        with atomic_path(Path(args.json)) as temporary:
            temporary.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return 0


def _config(args: argparse.Namespace, dataset: Dataset) -> Config:
    info, values = None, {}
    if args.weights is not None:
        from mrcnn.weights.info import inspect_weights

        info = inspect_weights(find_weights(args.weights))
        values = stored_values(info)
    return make_config(info, {**values, "NUM_CLASSES": dataset.num_classes, "CLASS_WEIGHTS": None}, args.config)


def _summary(args: argparse.Namespace, dataset: Dataset, config: Config, seen: Survey) -> dict[str, Any]:
    told = figures.figures(seen, config)
    print("\n".join(figures.lines(told)))
    try:
        images = sample_images(dataset, seen.image_ids, _SECONDS_OF_MEAN)
        means = figures.channel_means(images, config)
    except ValueError as error:  # images of other channels than the configuration's
        note(str(error))
        means = None
    fields = figures.proposals(seen, config, means)
    _paste(fields)
    return {**told, "proposals": fields}


def _anchors(args: argparse.Namespace, dataset: Dataset, config: Config, seen: Survey) -> dict[str, Any]:
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
        _paste(fields)
    if count is not None and count != len(config.RPN_ANCHOR_RATIOS):
        note(
            f"weights made with {len(config.RPN_ANCHOR_RATIOS)} ratios do not fit a network of {count}: exclude "
            "rpn_class_raw and rpn_bbox_pred when loading them."
        )
    return {"objects": len(seen.boxes), **{name: list(value) for name, value in fields.items()},
            "before": dataclasses.asdict(fit.before), "after": dataclasses.asdict(fit.after),
            "better": fit.better}  # fmt: skip


def _table(fit: AnchorFit, config: Config) -> list[str]:
    rows = [("", "scales of P2 to P6", "ratios", "IoU >= 0.5", "IoU >= 0.7", "mean IoU")]
    for name, scales, ratios, reached in (
        ("configured", config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS, fit.before),
        ("proposed", fit.scales, fit.ratios, fit.after),
    ):
        texts = (", ".join(f"{value:g}" for value in values) for values in (scales, ratios))
        rows.append((name, *texts, f"{reached.fair:.1%}", f"{reached.good:.1%}", f"{reached.mean_iou:.3f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return ["Share of the objects that an anchor overlaps (recall):", *lines]


def _paste(fields: dict[str, Any]) -> None:
    if not fields:
        return
    print("\nFor the Config:")
    print("\n".join(f"    {line}" for line in figures.config_lines(fields)))
    print("or on the command line:")
    values = {name: ",".join(f"{v:g}" for v in value) if isinstance(value, list | tuple) else value
              for name, value in fields.items()}  # fmt: skip
    print(f"    --config {' '.join(f'{name}={value}' for name, value in values.items())}")
