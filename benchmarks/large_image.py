"""A large image whose truth is known, tile by tile: seconds, memory, and how many of its objects are found.

    python -m benchmarks.large_image [--side 10000] [--tiles 1024:0.2 512:0.2] [--files png tif] [--output FILE.json]

The image is a mosaic of the demo's held-out half frames, mirrored at random, with dark lines between them; the network
is the demo's, exported for OpenVINO, in float32. Each run is a process of its own, which imports no Keras. What it
finds is compared with the annotation, mask by mask, and with what the network finds in the half frames one by one: so
what tiles cost is told apart from what the network does not see.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import machine
from benchmarks.measures import DISTURBED
from benchmarks.quiet import busy_seconds
from benchmarks.worker import peak_memory
from mrcnn.data.rle import decode_crop
from mrcnn.inference import Detector

# Pixels between half frames: wider than a nucleus.
GAP = 40

# A mask is a nucleus found from this IoU on.
FOUND = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=10_000, help="pixels")
    parser.add_argument("--tiles", nargs="+", default=["1024:0.2", "512:0.2"], help="side:overlap")
    parser.add_argument("--files", nargs="+", default=["png", "tif"], help="what the image is read from: png, tif")
    parser.add_argument("--confidence", type=float, default=0.5)
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)  # model, image, side:overlap, results
    arguments = parser.parse_args(argv)
    if arguments.one:
        return run_one(*arguments.one)
    from mrcnn.nuclei import HelaNuclei, fetch_hela

    parts = half_frames(HelaNuclei(fetch_hela(), "right"))
    image, labels, used = mosaic(parts, arguments.side, np.random.default_rng(0))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        model = export(Path(temporary) / "model", arguments.confidence)
        rows.append(one_by_one(model, parts, used))
        print(in_words(rows[-1]), flush=True)
        for suffix in arguments.files:
            path = Path(temporary) / f"mosaic.{suffix}"
            Image.fromarray(image).save(path)
            for tiles in arguments.tiles:
                command = [sys.executable, "-m", "benchmarks.large_image", "--one"]
                results = Path(temporary) / "results.json"
                subprocess.run([*command, str(model), str(path), tiles, str(results)], check=True)
                told = json.loads(results.read_text(encoding="utf-8"))
                figures = compared(labels, told.pop("scores"), [decode_crop(rle) for rle in told.pop("masks")])
                rows.append({"file": suffix, "tiles": tiles, **told, **figures})
                print(in_words(rows[-1]), flush=True)
    if arguments.output is not None:
        about = {"machine": machine(), "side": arguments.side, "confidence": arguments.confidence}
        arguments.output.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    return 0


def half_frames(dataset: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images [h, w, 3] of a dataset and their label images [h, w], instances from 1 on."""
    parts = []
    for image_id in dataset.image_ids:
        masks, _ = dataset.load_mask(image_id)
        parts.append((dataset.load_image(image_id), (masks * np.arange(1, masks.shape[2] + 1)).max(axis=2)))
    return parts


def mosaic(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], side: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, bool, bool]]]:
    """A square image [side, side, 3] of whole parts of one size, its labels [side, side] int32, and which parts it is
    of: their numbers, and whether they are mirrored top to bottom and left to right."""
    image, labels = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.int32)
    height, width = parts[0][1].shape
    used, count = [], 0
    for top in range(0, side - height + 1, height + GAP):
        for left in range(0, side - width + 1, width + GAP):
            number, rows, columns = int(rng.integers(len(parts))), bool(rng.integers(2)), bool(rng.integers(2))
            picture, instances = (mirrored(part, rows, columns) for part in parts[number])
            area = slice(top, top + height), slice(left, left + width)
            image[area] = picture
            labels[area] = np.where(instances > 0, instances + count, 0)
            count += int(instances.max())
            used.append((number, rows, columns))
    return image, labels, used


def mirrored(array: np.ndarray, rows: bool, columns: bool) -> np.ndarray:
    return array[:: -1 if rows else 1, :: -1 if columns else 1]


def export(folder: Path, confidence: float) -> Path:
    """The demo's network, able to find what a tile of 1024 pixels holds: 230 nuclei."""
    from mrcnn.cli.configuration import load_network
    from mrcnn.export import export_model

    limits = {"DETECTION_MAX_INSTANCES": 600, "POST_NMS_ROIS_INFERENCE": 2000, "PRE_NMS_LIMIT": 6000}
    network = load_network("nuclei", list(limits.items()), None, confidence)
    export_model(network.model.keras_model, network.model.config, folder, class_names=network.class_names)
    return folder


def one_by_one(model: Path, parts: Sequence[Any], used: Sequence[tuple[int, bool, bool]]) -> dict[str, Any]:
    """What the network finds in the parts of the mosaic, each an image of its own."""
    detector = Detector(str(model), engine="openvino", precision="float32")
    counts = {}
    for number, rows, columns in set(used):
        picture, labels = (mirrored(part, rows, columns) for part in parts[number])
        (result,) = detector.detect([np.ascontiguousarray(picture)], masks="rle")
        counts[number, rows, columns] = compared(
            labels, result["scores"], [decode_crop(rle) for rle in result["masks"]]
        )
    names = ("objects", "detections", "found")
    totals = {name: sum(counts[part][name] for part in used) for name in names}
    mean_iou = sum(counts[part]["mean_iou"] * counts[part]["found"] for part in used) / max(1, totals["found"])
    return {"file": None, "tiles": "one by one", **totals, "mean_iou": mean_iou}


def run_one(model: str, image: str, tiles: str, results: str) -> int:
    """Detect in an image and write what was found, and what it took."""
    side, _, overlap = tiles.partition(":")
    detector = Detector(model, engine="openvino", precision="float32")
    detector.detect([np.zeros((int(side), int(side), 3), np.uint8)])
    before, start, own, busy = peak_memory(), time.perf_counter(), time.process_time(), busy_seconds()
    (result,) = detector.detect([image], masks="rle", tile=int(side), overlap=float(overlap or 0.2))
    seconds, own = time.perf_counter() - start, time.process_time() - own
    told = {
        "seconds": seconds,
        "cpu_seconds": own,
        "foreign_cores": None if busy is None else (busy_seconds() - busy - own) / seconds,
        "peak_bytes": peak_memory(),
        "peak_bytes_before": before,
        "scores": result["scores"].tolist(),
        "masks": result["masks"],
    }
    Path(results).write_text(json.dumps(told), encoding="utf-8")
    return 0


def compared(
    labels: np.ndarray, scores: Sequence[float], crops: Sequence[tuple[np.ndarray, int, int]]
) -> dict[str, Any]:
    """How many of the objects of a label image [H, W] are among masks, each for one of them, the best score first."""
    areas = np.bincount(labels.ravel())
    taken: dict[int, float] = {}
    for index in np.argsort(-np.asarray(scores), kind="stable"):
        crop, top, left = crops[index]
        counts = np.bincount(labels[top : top + crop.shape[0], left : left + crop.shape[1]][crop], minlength=2)
        counts[0] = 0
        label = int(counts.argmax())
        iou = counts[label] / (np.count_nonzero(crop) + areas[label] - counts[label])
        if counts[label] and iou >= FOUND and label not in taken:
            taken[label] = float(iou)
    return {
        "objects": int(np.count_nonzero(areas[1:])),
        "detections": len(crops),
        "found": len(taken),
        "mean_iou": float(np.mean(list(taken.values()))) if taken else 0.0,
    }


def in_words(row: dict[str, Any]) -> str:
    recall, precision = row["found"] / max(1, row["objects"]), row["found"] / max(1, row["detections"])
    told = (
        f"{row['tiles']:11} {row['file'] or '':4} {row['objects']} objects, {row['detections']} detections, "
        f"{row['found']} right: recall {recall:.4f}, precision {precision:.4f}, mean IoU {row['mean_iou']:.4f}"
    )
    if "seconds" in row:
        peak, before = row["peak_bytes"] / 1e9, row["peak_bytes_before"] / 1e9
        told += (
            f"; {row['seconds']:.1f} s ({row['cpu_seconds']:.1f} of a core's), peak {peak:.2f} GB ({before:.2f} before)"
        )
        if (row["foreign_cores"] or 0) > DISTURBED:
            told += f"; others kept {row['foreign_cores']:.1f} cores busy"
    return told


if __name__ == "__main__":
    sys.exit(main())
