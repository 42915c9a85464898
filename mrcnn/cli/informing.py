"""`mrcnn info`: what a weights file holds. Needs no framework."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from mrcnn.cli.configuration import find_weights
from mrcnn.weights.info import WeightsInfo, inspect_weights

# Of the stored metadata, what the table of `WeightsInfo` shows already.
_SHOWN = ("config", "class_names", "epoch")


def run(args: argparse.Namespace) -> int:
    """Print what the file holds."""
    info = inspect_weights(find_weights(args.weights))
    if args.json:
        print(json.dumps({**dataclasses.asdict(info), "path": str(info.path)}, indent=2))
        return 0
    print(info)
    for name, value in [("image size", image_size(info)), *sorted(info.metadata.items())]:
        if name not in _SHOWN:
            print(f"{name.replace('_', ' ') + ':':17}{_text(value)}")
    return 0


def image_size(info: WeightsInfo) -> str:
    """The size of images that the network was trained on, in words."""
    config = info.config
    if config is None:
        return "not stored"
    mode, least, most = (config.get(f"IMAGE_{name}") for name in ("RESIZE_MODE", "MIN_DIM", "MAX_DIM"))
    sizes = {
        "square": f"{most} x {most} (square)",
        "crop": f"{least} x {least} (crops)",
        "pad64": f"as they come, padded; least side {least}, greatest {most}",
        "none": "as they come",
    }
    return sizes.get(mode, "not stored")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
