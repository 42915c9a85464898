"""`mrcnn report`, and what the options of `mrcnn train` about knowing how it goes mean. Needs no framework."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from mrcnn.cli import CommandError, note
from mrcnn.report import write_report

# Images that average precision is measured on after an epoch, where nothing else is said.
_MOST_IMAGES = 500
PROGRESS = {"table": "table", "bar": 1, "lines": 2, "none": 0}


def run(args: argparse.Namespace) -> int:
    """Write the report, and say where it is."""
    print(f"Report: {write_report(args.run, args.output)}")
    return 0


def monitoring_values(args: argparse.Namespace, val_images: int | None, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the configuration that the options speak for.

    Args:
        args: of `mrcnn train`.
        val_images: how many images there are to validate on; None: no validation set.
        stored: the configuration of a run that goes on; of a new one nothing.

    Raises:
        CommandError: an option that needs a validation set, and there is none.
    """
    if val_images is None:
        asked = [f"--{name.replace('_', '-')}" for name in ("evaluate_every", "early_stopping") if getattr(args, name)]
        if asked:
            raise CommandError(f"{' and '.join(asked)} {'need' if len(asked) > 1 else 'needs'} --val.")
        return {"EVALUATE_EVERY": 0, "EARLY_STOPPING": 0}
    every = args.evaluate_every or stored.get("EVALUATE_EVERY", 1)
    values = {
        "EVALUATE_EVERY": every,
        "EVALUATE_IMAGES": stored.get("EVALUATE_IMAGES", 0),
        "EARLY_STOPPING": args.early_stopping or stored.get("EARLY_STOPPING", 0),
    }
    settings = {"EVALUATE_EVERY": every, **dict(args.config)}
    if settings["EVALUATE_EVERY"] and not stored and val_images > _MOST_IMAGES and "EVALUATE_IMAGES" not in settings:
        values["EVALUATE_IMAGES"] = _MOST_IMAGES
        note(
            f"average precision is measured on {_MOST_IMAGES} of the {val_images:,} validation images after each epoch "
            "that it is measured after; --config EVALUATE_IMAGES=0 takes all."
        )
    return values
