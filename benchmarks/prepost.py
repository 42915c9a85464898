"""What lies around the network: reading, resizing and molding a photo, un-molding and pasting what was found in it.

    python -m benchmarks.prepost [--sizes 1024x1024 480x640] [--instances 100] [--network 1.96] [--output FILE.json]

The stages run in turns in one process; for each the median is printed, of the time on the clock and of the processor's
(which other programs disturb less). The sum without reading, with boolean masks, must stay within 5% of the time that
a detection takes (`--network`, seconds), for photos that fill 1024 x 1024 pixels once they are molded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.machine import machine, today
from benchmarks.paste_masks import MOLDED, make_detections
from mrcnn.config import Config
from mrcnn.data.images import read_image
from mrcnn.data.molding import mold_one, place_boxes, place_masks

SHARE = 0.05
# These make up the sum.
COUNTED = ("resize and mold", "un-mold boxes", "paste masks")


class PhotoConfig(Config):
    NUM_CLASSES = 81
    IMAGE_MAX_DIM = MOLDED


def make_photo(height: int, width: int) -> np.ndarray:
    """[height, width, 3] uint8: blurred noise, and fine noise on it."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (height // 32 + 2, width // 32 + 2, 3)).astype(np.float32)
    photo = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 4, (height, width, 3))
    return np.clip(photo, 0, 255).astype(np.uint8)


def make_stages(height: int, width: int, instances: int, folder: Path) -> dict[str, Callable[[], Any]]:
    """Stage -> what it does, on the same photo and detections each time."""
    photo, config, shape = make_photo(height, width), PhotoConfig(), (height, width)
    path = folder / f"photo_{height}x{width}.jpg"
    cv2.imwrite(str(path), photo[..., ::-1])
    detections, masks, window = make_detections(instances, height, width)
    boxes, class_ids, _, kept = place_boxes(detections, shape, (MOLDED, MOLDED), window)
    masks = np.ascontiguousarray(masks[kept, :, :, class_ids])
    return {
        "read JPEG": lambda: read_image(path),
        "resize and mold": lambda: mold_one(photo, config),
        "un-mold boxes": lambda: place_boxes(detections, shape, (MOLDED, MOLDED), window),
        "paste masks": lambda: place_masks(masks, boxes, shape, "bool"),
        "or: as RLE": lambda: place_masks(masks, boxes, shape, "rle"),
        "or: as polygons": lambda: place_masks(masks, boxes, shape, "polygons"),
    }


def measure(stages: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """Stage -> medians of seconds on the clock and of the processor. The first round does not count."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in stages}
    for _ in range(rounds + 1):
        for name, stage in stages.items():
            wall, cpu = time.perf_counter(), time.process_time()
            result = stage()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
            del result
    return {
        name: (statistics.median(w for w, _ in times[1:]), statistics.median(c for _, c in times[1:]))
        for name, times in seconds.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["1024x1024", "768x1024", "480x640"], help="HEIGHTxWIDTH")
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--network", type=float, default=0.55, help="seconds that a detection takes: %(default)s")
    parser.add_argument("--output", type=Path, help="a JSON file for the medians")
    arguments = parser.parse_args(argv)
    within, told = True, []
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            height, width = map(int, size.split("x"))
            medians = measure(make_stages(height, width, arguments.instances, Path(folder)), arguments.rounds)
            print(f"\nphoto of {width} x {height}, {arguments.instances} instances, {arguments.rounds} rounds: medians")
            print(f"{'':18}{'clock':>10}{'processor':>13}")
            for name, (wall, cpu) in medians.items():
                print(f"{name:18}{wall * 1e3:7.2f} ms{cpu * 1e3:10.2f} ms")
            wall, cpu = (sum(medians[name][k] for name in COUNTED) for k in (0, 1))
            share = wall / arguments.network
            print(f"{'sum of the counted':18}{wall * 1e3:7.2f} ms{cpu * 1e3:10.2f} ms   {share:.1%} of the network")
            within = within and share <= SHARE
            seconds = {name: on_clock for name, (on_clock, _) in medians.items()}
            told.append({"photo": [height, width], "sum_seconds": wall, "seconds": seconds})
    if arguments.output:
        about = {"date": today(), "machine": machine(), "instances": arguments.instances, "rounds": arguments.rounds}
        arguments.output.write_text(json.dumps({**about, "photos": told}, indent=1) + "\n", encoding="utf-8")
    return 0 if within else 1


if __name__ == "__main__":
    raise SystemExit(main())
