"""`mrcnn info`: what a weights file or an exported model holds. Needs no framework."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrcnn.bundle import Bundle, file_sizes, read_bundle
from mrcnn.cli.configuration import find_weights
from mrcnn.config import Config

# Of the stored metadata, what the table of `WeightsInfo` shows already.
_SHOWN = ("config", "class_names", "epoch")
# Names of classes beyond these are left to --json.
_MOST_NAMES = 12


def run(args: argparse.Namespace) -> int:
    """Print what is there."""
    path = find_weights(args.weights)
    if path.is_dir():
        _tell_bundle(read_bundle(path), args.json)
    else:
        _tell_weights(path, args.json)
    return 0


def _tell_weights(path: Path, as_json: bool) -> None:
    from mrcnn.weights.info import inspect_weights

    info = inspect_weights(path)
    if as_json:
        print(json.dumps({**dataclasses.asdict(info), "path": str(info.path)}, indent=2))
        return
    print(info)
    for name, value in [("image size", image_size(info.config)), *sorted(info.metadata.items())]:
        if name not in _SHOWN:
            print(f"{name.replace('_', ' ') + ':':17}{_text(value)}")


def _tell_bundle(bundle: Bundle, as_json: bool) -> None:
    files = file_sizes(bundle.folder)
    config = bundle.config.to_dict()
    if as_json:
        told = {
            "folder": str(bundle.folder),
            "format": bundle.format,
            "file": bundle.file,
            "precision": bundle.precision,
            "class_names": bundle.class_names,
            "size_bytes": sum(files.values()),
            "files": files,
            "checks": bundle.checks,
            "config": config,
        }
        print(json.dumps(told, indent=2))
        return
    names = bundle.class_names or ()
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    rows = {
        "exported model": bundle.folder,
        "format": f"{bundle.format} ({bundle.file})",
        "precision": bundle.precision,
        "size": f"{sum(files.values()) / 1e6:.1f} MB in {len(files)} files",
        "classes": f"{config['NUM_CLASSES']} (background included)",
        "class names": ", ".join(names[:_MOST_NAMES]) + more if names else "not stored",
        "image size": image_size(config),
        "least score": _least_score(bundle.config),
        **checks_in_words(bundle.checks),
    }
    for name, value in rows.items():
        print(f"{name + ':':17}{value}")


def _least_score(config: Config) -> str:
    by_class = config.DETECTION_CLASS_CONFIDENCE
    if by_class is None:
        return f"{config.DETECTION_MIN_CONFIDENCE or 0:g}"
    return f"{', '.join(f'{value:g}' for value in by_class[1:])}, of the classes in their order"


def checks_in_words(checks: Mapping[str, Any]) -> dict[str, str]:
    """What was measured when a model was exported, as rows of a table. What this does not know is told as it is."""
    left = dict(checks)
    rows = {}
    if {"expected", "found", "agreeing", "box", "score", "mask", "image", "ran_in"} <= left.keys():
        sides = " x ".join(str(side) for side in left.pop("molded_shape", ())[1:3])
        reduced = left.pop("bfloat16", None)
        count = max(left.pop("expected"), left.pop("found"))
        rows["checked with"] = f"{left.pop('image')}{f' ({sides})' if sides else ''}, run by {left.pop('ran_in')}"
        rows["beside Keras"] = (
            f"{left.pop('agreeing')} of {count} detections agree; largest differences: boxes {left.pop('box'):.2g} "
            f"pixels, scores {left.pop('score'):.2g}, masks {left.pop('mask'):.2g}"
        )
        if isinstance(reduced, Mapping):
            rows["in bfloat16"] = (
                f"{reduced['matched']} of {max(reduced['expected'], reduced['found'])} are found again, boxes up to "
                f"{reduced['box']:.2g} pixels away" + ("" if reduced["agrees"] else ": not chosen for detection")
            )
        if left.pop("background_ruled_out", False):
            rows["beside Keras"] += " (of a copy without background: the network itself found nothing there)"
        for name in ("matched", "border", "worst_box", "median_box"):
            left.pop(name, None)
    inputs = left.pop("inputs", None)
    if isinstance(inputs, Mapping):
        rows["inputs"] = ", ".join(f"{name} [{', '.join(map(str, shape))}]" for name, shape in inputs.items())
    return rows | {name.replace("_", " "): _text(value) for name, value in left.items()}


def image_size(config: Mapping[str, Any] | None) -> str:
    """The size of images that a stored configuration tells, in words."""
    if config is None:
        return "not stored"
    mode, least, most = (config.get(f"IMAGE_{name}") for name in ("RESIZE_MODE", "MIN_DIM", "MAX_DIM"))
    rectangle = config.get("IMAGE_RECTANGLE")
    if rectangle and mode in ("square", "crop"):
        return f"{rectangle[0]} x {rectangle[1]} ({'crops' if mode == 'crop' else 'height x width'})"
    sizes = {
        "square": f"{most} x {most} (square)",
        "crop": f"{least} x {least} (crops)",
        "pad64": f"as they come, padded; least side {least}, greatest {most}",
        "none": "as they come",
        "shortest": f"shorter side {least}, longer at most {most}",
    }
    return sizes.get(mode, "not stored")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
