"""Results of a very large image written in each format: seconds, and memory above that of the result itself.

    python -m benchmarks.writing_results [--side 10000] [--instances 5000] [--bar 0.5] [--json FILE]

Each format is written in a process of its own: 5,000 disks of 20 to 80 pixels across, run-length encoded, on an image
of 10,000 x 10,000 pixels. As boolean masks [H, W, N] they would take 500 GB. Fails if a format takes more than --bar GB
above what the process had before.
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

import numpy as np

from benchmarks.machine import machine, today
from benchmarks.worker import peak_memory


def make_result(side: int, count: int) -> dict:
    """Disks anywhere, best score first."""
    from mrcnn.data.rle import encode_crops

    rng = np.random.default_rng(0)

    def crops():
        for radius, (top, left) in zip(radii.tolist(), corners.tolist(), strict=True):
            y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
            yield np.hypot(y, x) <= radius, top, left

    radii = rng.integers(10, 41, count)
    corners = (rng.random((count, 2)) * (side - 2 * radii - 1)[:, None]).astype(int)
    return {
        "rois": np.concatenate([corners, corners + 2 * radii[:, None] + 1], axis=1),
        "class_ids": np.ones(count, np.int32),
        "scores": np.linspace(1, 0.5, count, dtype=np.float32),
        "masks": encode_crops(crops(), (side, side)),
    }


def write(format: str, side: int, count: int) -> dict:
    """Write in one format, here, and measure."""
    from mrcnn.results.saving import FORMATS, save_results

    result = make_result(side, count)
    before = peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        start, busy = time.perf_counter(), time.process_time()
        save_results(Path(folder) / FORMATS[format].place, [result], ["large.png"], ("BG", "disk"), format=format)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {
        "format": format, "seconds": seconds, "cpu_seconds": busy, "gb": (peak_memory() - before) / 1e9,
        "file_mb": size / 1e6,
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    from mrcnn.results.saving import FORMATS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--instances", type=int, default=5_000)
    parser.add_argument("--bar", type=float, default=0.5, help="GB")
    parser.add_argument("--format", choices=FORMATS, help="this one only, in this process; print JSON")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go")
    args = parser.parse_args(argv)
    if args.format:
        print(json.dumps(write(args.format, args.side, args.instances)))
        return 0
    print(f"{args.instances} instances on {args.side} x {args.side} pixels")
    print("format    seconds  of one core   GB more   files MB")
    results = []
    for name in FORMATS:
        options = ["--side", str(args.side), "--instances", str(args.instances), "--format", name]
        command = [sys.executable, "-m", "benchmarks.writing_results", *options]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"{name:8}{told['seconds']:9.2f}{told['cpu_seconds']:13.2f}{told['gb']:10.3f}{told['file_mb']:11.1f}",
            flush=True,
        )
        results.append(told)
    if args.json:
        record = {"date": today(), "machine": machine(), "side": args.side, "instances": args.instances}
        args.json.write_text(json.dumps({**record, "results": results}, indent=1) + "\n", encoding="utf-8")
    if max(told["gb"] for told in results) > args.bar:
        print(f"More than {args.bar} GB.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
