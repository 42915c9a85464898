"""How fast training images come, against how fast training steps take them; and whether memory stays the same.

    python -m benchmarks.loader [--photos 480x640 ...] [--rounds 7] [--training FILE | --consumed RATE] [--json FILE]
    python -m benchmarks.loader --batches 10000 [--json FILE]

JPEG files with some 20 polygons each, annotated as COCO does it, become batches of two at 1024 x 1024, with mini-masks
and RPN targets, in the threads of `BatchLoader`. Settings take turns, and rounds that others disturbed are left out
where some were not. For each the median is told; the lowest of those with standard augmentation must be 5 times what
the 512 x 512 training step of ResNet-50 takes: the faster of both precisions in the result of `benchmarks.training
--json` (`--training`), or `--consumed` images a second, or measured first, which takes minutes.

With `--batches` no rate is measured: so many batches of tiny images, with copy-paste, and the memory in between.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.machine import machine
from benchmarks.measures import DISTURBED
from benchmarks.prepost import make_photo
from benchmarks.quiet import busy_seconds, wait_until_quiet
from mrcnn.config import AUGMENTATIONS, Config
from mrcnn.data.augmentation import recipe
from mrcnn.data.batches import BatchLoader
from mrcnn.data.coco import CocoDataset

TIMES = 5  # what is asked for
SIDE = 1024
OBJECTS = 20
JPEG_QUALITY = 90
_CATEGORIES = 80
_CORNERS = (10, 60)  # of a polygon
_SIZES = (0.02, 0.3)  # of an object, of the photo's shorter side
_AHEAD = 6  # batches before those that are timed, more than a loader has ready
# So many bytes a batch may be added while memory counts as the same: a list of steps would take more.
MOST_GROWTH = 100
_STATM = Path("/proc/self/statm")


class PhotoConfig(Config):
    NUM_CLASSES = 1 + _CATEGORIES
    IMAGES_PER_GPU = 2
    IMAGE_MAX_DIM = SIDE


class TinyConfig(Config):
    NUM_CLASSES = 1 + _CATEGORIES
    IMAGES_PER_GPU = 2
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    RPN_TRAIN_ANCHORS_PER_IMAGE = 16
    MAX_GT_INSTANCES = 10
    MINI_MASK_SHAPE = (14, 14)


def make_dataset(folder: Path, height: int, width: int, count: int, objects: int = OBJECTS) -> CocoDataset:
    """`count` photos as JPEG files in `folder`, with `objects` polygons on each in a COCO file.

    Corners of stars, of all sizes that are as likely on a logarithmic scale; some reach over the border.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng, photo = np.random.default_rng(0), make_photo(height, width)
    images, annotations = [], []
    for number in range(count):
        picture = np.roll(photo, int(rng.integers(width)), axis=1)
        for _ in range(objects):
            radius = min(height, width) * np.exp(rng.uniform(*np.log(_SIZES))) / 2
            corners = int(rng.integers(*_CORNERS))
            angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
            reach = radius * rng.uniform(0.6, 1, (corners, 1))
            points = rng.uniform(0, (width, height)) + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            points = np.clip(points, 0, (width, height)).round(2)
            cv2.fillPoly(picture, [points.astype(np.int32)], rng.integers(0, 256, 3).tolist())
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": int(rng.integers(_CATEGORIES)) + 1,
                 "segmentation": [points.ravel().tolist()], "iscrowd": 0}
            )  # fmt: skip
        cv2.imwrite(str(folder / f"{number}.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        images.append({"id": number, "file_name": f"{number}.jpg", "height": height, "width": width})
    categories = [{"id": number, "name": str(number)} for number in range(1, _CATEGORIES + 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    dataset = CocoDataset()
    dataset.load_coco(folder / "annotations.json", folder)
    dataset.prepare()
    return dataset


def measure(
    loaders: Sequence[Callable[[], BatchLoader]],
    *,
    batches: int,
    rounds: int,
    patience: float,
    report: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Let loaders make `batches` batches each, by turns, `rounds` times after one that does not count.

    Each round has a loader of its own, for they work ahead. It makes a few batches before those that are timed, so that
    none of these was ready.

    Returns:
        For each of `loaders`: `rate` in images a second and `cpu_seconds` an image, medians; `rates` of the rounds that
        count; how many were `disturbed`.
    """
    found: list[list[tuple[float, float, bool]]] = [[] for _ in loaders]
    for number in range(rounds + 1):
        for make, own in zip(loaders, found, strict=True):
            if patience:
                wait_until_quiet(patience)
            with make() as loader:
                for _ in range(_AHEAD):
                    next(loader)
                busy, wall, cpu = busy_seconds(), time.perf_counter(), time.process_time()
                for _ in range(batches):
                    next(loader)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                foreign = 0.0 if busy is None else (busy_seconds() - busy - cpu) / wall
            _await_threads()
            if number:
                images = batches * loader.batch_size
                own.append((images / wall, cpu / images, foreign > DISTURBED))
        report(f"round {number}: {' '.join(f'{own[-1][0]:6.1f}' for own in found if own)}")
    results = []
    for own in found:
        counted = [run for run in own if not run[2]] or own
        results.append(
            {
                "rate": statistics.median(rate for rate, _, _ in counted),
                "cpu_seconds": statistics.median(cpu for _, cpu, _ in counted),
                "rates": [rate for rate, _, _ in counted],
                "rounds": len(own),
                "disturbed": sum(disturbed for _, _, disturbed in own),
            }
        )
    return results


def _await_threads() -> None:
    """Until the threads of loaders that were closed are done with the images that they were at."""
    while any(thread.name.startswith("mrcnn-loader") for thread in threading.enumerate()):
        time.sleep(0.02)


def consumed(told: dict[str, Any]) -> dict[str, float]:
    """Images a second that our training step takes in each precision of a result of `benchmarks.training`.

    Raises:
        ValueError: no result of ours in it.
    """
    batch = told["setting"]["batch"]
    rates = {
        name: batch / result["median_seconds"]
        for name, results in told["results"].items()
        for result in results
        if result["name"] == f"ours-{name}"
    }
    if not rates:
        raise ValueError("The result of benchmarks.training has no training step of ours that was measured.")
    return rates


def measure_training(cache: Path) -> dict[str, float]:
    """The same, measured now: three steps of each precision."""
    from benchmarks import training

    results = {
        short: training.measure(
            training.candidates(short)[:1], lambda _: sys.executable, cache=cache,
            photo=training.saved_photo(cache, training.SIDE), steps=3, patience=5, repeats=1,
            report=lambda line: print(line, file=sys.stderr, flush=True),
        )
        for short in training.PRECISIONS
    }  # fmt: skip
    return consumed({"setting": {"batch": training.BATCH}, "results": results})


def resident() -> int:
    """The memory in bytes that this process has in use.

    Raises:
        RuntimeError: the system does not tell (it is Linux that does).
    """
    if not _STATM.exists():
        raise RuntimeError("Only Linux tells how much memory a process has in use, in /proc/self/statm.")
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def watch_memory(loader: BatchLoader, batches: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Memory in use after each twentieth of `batches`; `growth` is the bytes a batch by which it grew in the last three
    quarters: the slope of a line through its values."""
    seen, steps = [], []
    for part in range(1, 21):
        for _ in range(batches * part // 20 - (steps[-1] if steps else 0)):
            next(loader)
        steps.append(batches * part // 20)
        seen.append(resident())
        report(f"{steps[-1]:8} batches: {seen[-1] / 1e6:7.1f} MB")
    return {"batches": batches, "resident": seen, "growth": float(np.polyfit(steps[5:], seen[5:], 1)[0])}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    told: dict[str, Any] = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        fine = (_memory if arguments.batches else _rates)(arguments, Path(folder), told)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0 if fine else 1


def _memory(arguments: argparse.Namespace, folder: Path, told: dict[str, Any]) -> bool:
    dataset = make_dataset(folder, 48, 64, count=40, objects=4)
    with BatchLoader(dataset, TinyConfig(), augmentation=recipe("strong"), workers=arguments.workers) as loader:
        told["memory"] = watch_memory(loader, arguments.batches, lambda line: print(line, flush=True))
    growth = told["memory"]["growth"]
    print(f"{growth:.1f} bytes a batch; {MOST_GROWTH} at most count as none")
    return growth <= MOST_GROWTH


def _rates(arguments: argparse.Namespace, folder: Path, told: dict[str, Any]) -> bool:
    if arguments.training:
        taken = consumed(json.loads(arguments.training.read_text(encoding="utf-8")))
    elif arguments.consumed:
        taken = {"given": arguments.consumed}
    else:
        taken = measure_training(arguments.cache)
    sizes = [tuple(map(int, size.split("x"))) for size in arguments.photos]
    datasets = [make_dataset(folder / f"{height}x{width}", height, width, arguments.images) for height, width in sizes]
    settings = [(size, dataset, "standard") for size, dataset in zip(sizes, datasets, strict=True)]
    settings += [(sizes[0], datasets[0], name) for name in AUGMENTATIONS if name != "standard"]
    config = PhotoConfig()
    workers = config.LOADER_WORKERS if arguments.workers is None else arguments.workers
    loaders = [
        functools.partial(BatchLoader, dataset, config, augmentation=recipe(name), workers=workers)
        for _, dataset, name in settings
    ]
    results = measure(
        loaders, batches=arguments.images // config.BATCH_SIZE, rounds=arguments.rounds, patience=arguments.patience,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    lines = [
        {"photo": list(size), "augmentation": name, **result}
        for (size, _, name), result in zip(settings, results, strict=True)
    ]
    lowest = min(line["rate"] for line in lines if line["augmentation"] == "standard")
    ratio = lowest / max(taken.values())
    told |= {
        "setting": {"side": SIDE, "objects": OBJECTS, "workers": workers, "images": arguments.images},
        "consumed": taken, "results": lines, "ratio": ratio,
    }  # fmt: skip
    print(f"{'photo':>12} {'augmentation':14}{'images/s':>10}{'CPU an image':>15}")
    for line in lines:
        size = f"{line['photo'][1]} x {line['photo'][0]}"
        disturbed = f"  {line['disturbed']} of {line['rounds']} disturbed" * bool(line["disturbed"])
        print(
            f"{size:>12} {line['augmentation']:14}{line['rate']:10.1f}{line['cpu_seconds'] * 1e3:12.1f} ms{disturbed}"
        )
    steps = ", ".join(f"{rate:.2f} ({name})" for name, rate in taken.items())
    print(f"Training steps take {steps} images/s: the loader makes {ratio:.1f} times as many, {TIMES} are asked for.")
    return ratio >= TIMES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loader", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--photos", nargs="+", default=["480x640", "768x1024", "1536x2048"], help="HEIGHTxWIDTH of the files")
    add("--images", type=int, default=24, help="files of each size, and images of a round: %(default)s")
    add("--rounds", type=int, default=7, help="that count: %(default)s")
    add("--workers", type=int, help="threads of the loader (default: the configuration's)")
    add("--patience", type=float, default=5, help="seconds to wait for a quiet machine before each: %(default)s")
    add("--training", type=Path, metavar="FILE", help="the result of benchmarks.training")
    add("--consumed", type=float, metavar="RATE", help="images a second that training takes")
    add("--batches", type=int, help="measure memory instead, over so many batches")
    add("--cache", type=Path, default=Path(".cache/benchmarks"), help="what is made once: %(default)s")
    add("--json", type=Path, metavar="FILE", help="where the results go")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
