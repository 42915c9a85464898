"""Detections as a file in COCO's format of results, written as they come."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.coco_results import coco_boxes
from mrcnn.data.rle import encode_masks
from mrcnn.files import atomic_path

Add = Callable[[Sequence[Mapping[str, Any]]], None]


@contextlib.contextmanager
def results_file(path: Path | None) -> Iterator[Add]:
    """A file of results, which appears whole when the body is left, or, after an error, not at all.

    Args:
        path: None: nothing is written.

    Yields:
        A function that is given entries; they are written and forgotten.
    """
    if path is None:
        yield lambda entries: None
        return
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        between = "["

        def add(entries: Sequence[Mapping[str, Any]]) -> None:
            nonlocal between
            for entry in entries:
                file.write(between + json.dumps(entry, allow_nan=False, separators=(",", ":")))
                between = ",\n"

        yield add
        file.write("[]\n" if between == "[" else "]\n")


def image_entries(image: Mapping[str, Any], result: Mapping[str, Any], class_names: Sequence[str]) -> list[dict]:
    """COCO results of an image. Category ids are the network's class numbers; names and file are told beside them.

    Args:
        image: what is told of the image in each entry, such as `image_id` and `file_name`.
        result: of `detect`, with masks [H, W, N] bool.
        class_names: [K], the background's first.
    """
    masks = result["masks"]
    # Nothing of a mask lies outside its box, so only the boxes are looked at.
    inside = np.clip(result["rois"], 0, np.tile(masks.shape[:2], 2))
    return [
        {
            **image,
            "category_id": class_id,
            "category_name": class_names[class_id],
            "bbox": box,
            "score": float(score),
            "segmentation": rle,
        }
        for class_id, box, score, rle in zip(
            result["class_ids"].tolist(),
            coco_boxes(result["rois"]),
            result["scores"],
            encode_masks(masks, inside),
            strict=True,
        )
    ]


def detected_name(stem: str, suffix: str, used: set[str]) -> str:
    """`<stem>_detected<suffix>`, or with a number where another file of this run has that name; added to `used`."""
    name, number = f"{stem}_detected{suffix}", 1
    while name.lower() in used:
        number += 1
        name = f"{stem}_{number}_detected{suffix}"
    used.add(name.lower())
    return name
