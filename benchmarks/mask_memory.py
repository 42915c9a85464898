"""What a large dataset takes in memory: 10,000 images of 1024 x 1024 with 100 instances each.

    python -m benchmarks.mask_memory [--images 10000] [--instances 100] [--size 1024] [--kinds polygons runs via ...]
                                     [--json memory.json]

Writes a dataset of made-up blobs of 20 to 200 pixels to a temporary folder (polygons or run lengths in a COCO file;
polygons in a project of VIA, or in its CSV; or label images, which it writes 200 of and counts up from), loads it in a
process of its own, and tells what that process holds then, and held at most, beside what it held before.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from benchmarks.machine import machine, today
from mrcnn.data.rle import encode_crops

KINDS = ("polygons", "runs", "via", "via_csv", "labels")
# Points of a polygon: those of COCO's own have 24 on average.
POINTS = 24
# Label images take their time to write and read; memory grows evenly with them.
LABEL_IMAGES = 200
# As many blobs differ; what a JSON file repeats is read anew each time.
_BLOBS = 500


def blobs(size: int, seed: int = 0) -> tuple[list[list[float]], list[dict[str, Any]]]:
    """Polygons and the run lengths of ellipses somewhere in an image of `size` x `size`."""
    rng = np.random.default_rng(seed)
    polygons, crops = [], []
    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    for radii in np.minimum(rng.uniform(10, 100, (_BLOBS, 2)), size / 4):
        y, x = rng.uniform(radii, size - radii)
        points = np.stack([x + radii[1] * np.cos(angles), y + radii[0] * np.sin(angles)], 1)
        polygons.append(points.round(2).ravel().tolist())
        half = radii.astype(int)
        row, column = np.mgrid[-half[0] : half[0] + 1, -half[1] : half[1] + 1]
        inside = (row / radii[0]) ** 2 + (column / radii[1]) ** 2 <= 1
        top, left = (np.array([y, x]) - half).astype(int).clip(0, size - np.array(inside.shape)).tolist()
        crops.append((inside, top, left))
    return polygons, encode_crops(crops, (size, size))


def write_coco(folder: Path, kind: str, images: int, instances: int, size: int) -> Path:
    """A COCO file with polygons or run lengths. All its images are one and the same file."""
    PIL.Image.new("L", (size, size)).save(folder / "image.png")
    polygons, runs = blobs(size)
    texts = [json.dumps([polygon]) for polygon in polygons] if kind == "polygons" else [json.dumps(one) for one in runs]
    path = folder / "annotations.json"
    with path.open("w") as file:
        listed = (f'{{"id":{n},"file_name":"image.png","height":{size},"width":{size}}}' for n in range(images))
        file.write(f'{{"images":[{",".join(listed)}],"categories":[{{"id":1,"name":"blob"}}],"annotations":[')
        file.writelines(_separated(_annotations(texts, images, instances)))
        file.write("]}")
    return path


def _annotations(texts: list[str], images: int, instances: int) -> Iterator[str]:
    for number in range(images * instances):
        yield (
            f'{{"id":{number},"image_id":{number // instances},"category_id":1,"iscrowd":0,"area":{number * 0.5},'
            f'"bbox":[{number % 911},{number % 887},40.5,50.25],"segmentation":{texts[number % len(texts)]}}}'
        )


def _separated(texts: Iterator[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield f",{text}" if number else text


def write_via(folder: Path, kind: str, images: int, instances: int, size: int) -> Path:
    """A project of VIA 2 ("via") or what it exports as CSV ("via_csv"), with an image file for each image."""
    shapes = [
        json.dumps({"name": "polygon", "all_points_x": polygon[::2], "all_points_y": polygon[1::2]})
        for polygon in blobs(size)[0]
    ]
    attributes = '{"kind":"blob"}'
    regions = ([shapes[(n * instances + i) % len(shapes)] for i in range(instances)] for n in range(images))
    first = folder / "0.png"
    PIL.Image.new("1", (size, size)).save(first)
    for number in range(1, images):
        (folder / f"{number}.png").hardlink_to(first)
    path = folder / ("via.csv" if kind == "via_csv" else "via.json")
    with path.open("w", newline="") as file:
        if kind == "via_csv":
            writer = csv.writer(file)
            writer.writerow(["filename", "file_size", "file_attributes", "region_count", "region_id",
                             "region_shape_attributes", "region_attributes"])  # fmt: skip
            for number, of_image in enumerate(regions):
                writer.writerows(
                    [f"{number}.png", 100, "{}", instances, position, shape, attributes]
                    for position, shape in enumerate(of_image)
                )
            return path
        file.write('{"_via_settings":{},"_via_attributes":{"region":{"kind":{"type":"text"}}},"_via_img_metadata":{')
        file.writelines(
            _separated(
                f'"{number}.png100":{{"filename":"{number}.png","size":100,"file_attributes":{{}},"regions":['
                + ",".join(f'{{"shape_attributes":{shape},"region_attributes":{attributes}}}' for shape in of_image)
                + "]}"
                for number, of_image in enumerate(regions)
            )
        )
        file.write("}}")
    return path


def write_labels(folder: Path, images: int, instances: int, size: int) -> Path:
    """Label images beside their images, with instances that lie over each other."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    for number in range(images):
        labels = np.zeros((size, size), np.uint16)
        for label in range(1, instances + 1):
            y, x = rng.uniform(0, size, 2)
            top, left = (max(0, int(value) - 100) for value in (y, x))
            part = np.s_[top : top + 200, left : left + 200]
            radii = rng.uniform(10, 100, 2)
            inside = ((rows[part] - y) / radii[0]) ** 2 + ((columns[part] - x) / radii[1]) ** 2 <= 1
            labels[part][inside] = label
        PIL.Image.fromarray(labels).save(folder / f"{number}_mask.png", compress_level=1)
        PIL.Image.new("L", (size, size)).save(folder / f"{number}.png", compress_level=1)
    return folder


def _load(path: Path, small: Path, results: Any) -> None:
    from mrcnn.data.formats import load_dataset

    load_dataset(small)  # what is imported and kept once
    before = held()
    start = time.perf_counter()
    dataset = load_dataset(path)
    seconds = time.perf_counter() - start
    count = sum(len(info["annotations"]) for info in dataset.image_info)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    results.put({"held": held() - before, "peak": peak - before, "instances": count, "images": len(dataset.image_info),
                 "seconds": seconds})  # fmt: skip


def held() -> int:
    """Bytes of this process in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def write(folder: Path, kind: str, images: int, instances: int, size: int) -> Path:
    """A dataset of any of the kinds."""
    folder.mkdir(exist_ok=True)
    if kind == "labels":
        return write_labels(folder, images, instances, size)
    if kind.startswith("via"):
        return write_via(folder, kind, images, instances, size)
    return write_coco(folder, kind, images, instances, size)


def measure(kind: str, images: int, instances: int, size: int) -> dict[str, Any]:
    """Bytes held and at the peak, of a dataset of that kind loaded in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="mrcnn-") as temporary:
        count = min(images, LABEL_IMAGES) if kind == "labels" else images
        path, small = (
            write(Path(temporary) / name, kind, number, instances, size)
            for name, number in (("all", count), ("one", 1))
        )
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        process = context.Process(target=_load, args=(path, small, results))
        process.start()
        measured = results.get()
        process.join()
    wanted = images / measured["images"]
    return {
        "kind": kind,
        **measured,
        "held_of_all": measured["held"] * wanted,
        "peak_of_all": measured["peak"] * wanted,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--instances", type=int, default=100, help="of each image")
    parser.add_argument("--size", type=int, default=1024, help="of an image's sides, in pixels")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go")
    args = parser.parse_args(argv)
    told = []
    for kind in args.kinds:
        told.append(measure(kind, args.images, args.instances, args.size))
        one = told[-1]
        counted = "" if one["images"] == args.images else f" (counted up from {one['images']} images)"
        print(
            f"{kind:9} {one['held_of_all'] / 1e9:6.2f} GB held, {one['peak_of_all'] / 1e9:6.2f} GB at most, "
            f"{one['held'] / one['instances']:6.0f} bytes an instance, read in {one['seconds']:.0f} s{counted}",
            flush=True,
        )
    if args.json is not None:
        setting = {"images": args.images, "instances": args.instances, "size": args.size}
        record = {"date": today(), "machine": machine(), **setting, "results": told}
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
