"""Ours against what else one could pick, in turns: uint8 photo in, boxes, labels, scores and masks out.

    python -m benchmarks.inference --peer-python PATH [--candidates NAME ...] [--rounds 5] [--output NAME.json]

Round after round, one candidate after the other is started in a process of its own and detects on the same photo, at
1024 x 1024 with 1000 proposals and 100 detections, ResNet-101, 81 classes, random weights (`settle.py`). Then comes
where the time of each of ours goes (`stages.py`), and what others have published of the original, as text.
PATH is an interpreter with torch and torchvision, and, for the converted network, onnx, openvino and onnxruntime;
without it the one that runs this is taken. A candidate that cannot run is told of with its error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.candidates import CANDIDATES, DEFAULT, MALLOC_SUFFIX, PUBLISHED, Candidate, find
from benchmarks.driver import ROOT, Measurement
from benchmarks.machine import machine, today
from benchmarks.measures import ratios
from benchmarks.photo import SIDE, saved_photo
from benchmarks.stages import ENGINES
from benchmarks.stages import table as stage_table

DETECTIONS = 100


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.list:
        print("\n".join(candidate.name for candidate in CANDIDATES))
        return 0
    try:
        candidates = find(arguments.candidates)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2

    def python_of(candidate: Candidate) -> str:
        return arguments.peer_python if candidate.peer else sys.executable

    results = Measurement(
        candidates,
        python_of,
        cache=arguments.cache,
        photo=saved_photo(arguments.cache, arguments.side),
        rounds=arguments.rounds,
        runs=arguments.runs,
        timeout=arguments.timeout,
        patience=arguments.patience,
        repeats=arguments.repeats,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    ).measure()
    print(table(results))
    print()
    print(ratio_table(ratios(results)))
    stages = []
    for candidate, result in zip(candidates, results, strict=True):
        if arguments.stages and "error" not in result and (measured := stages_of(candidate, arguments)) is not None:
            stages.append(measured)
    print("".join(f"\n{stage_table(measured)}\n" for measured in stages))
    print(published())
    odd = [result["name"] for result in results if result.get("detections", [DETECTIONS]) != [DETECTIONS]]
    if odd:
        print(f"Not {DETECTIONS} detections, so not comparable: {', '.join(odd)}.")
    if arguments.output:
        told = {
            "date": today(),
            "machine": machine(),
            "setting": {
                "side": arguments.side,
                "proposals": 1000,
                "detections": DETECTIONS,
                "rounds": arguments.rounds,
                "runs": arguments.runs,
            },
            "results": results,
            "ratios": ratios(results),
            "stages": stages,
            "published": list(PUBLISHED),
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 1 if odd or all("error" in result for result in results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--candidates", nargs="+", metavar="NAME", default=list(DEFAULT), help=f"any may end in {MALLOC_SUFFIX}")
    add("--list", action="store_true", help="the names of the candidates, and nothing else")
    add("--peer-python", metavar="PATH", default=sys.executable, help="interpreter of the peers' environment")
    add("--cache", type=Path, default=Path(".cache/benchmarks"), help="what is made once: %(default)s")
    add("--side", type=int, default=SIDE, help="of the square photo: %(default)s")
    add("--rounds", type=int, default=5, help="in each, every candidate has a turn: %(default)s")
    add("--runs", type=int, default=2, help="detections in a turn that count: %(default)s")
    add("--timeout", type=float, default=120, help="seconds for a detection: %(default)s")
    add("--patience", type=float, default=5, help="seconds to wait for a quiet machine before each: %(default)s")
    add("--repeats", type=int, default=2, help="of a detection that others disturbed: %(default)s")
    add("--stages", type=int, default=3, metavar="ROUNDS", help="of the table of stages; 0: none: %(default)s")
    add("--output", type=Path, help="a JSON file for the results")
    return parser


def stages_of(candidate: Candidate, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """What `benchmarks.stages` measures of a candidate, in a process of its own; None where it cannot."""
    options = candidate.options
    if candidate.peer or options["engine"] not in ENGINES or "weights" in options:
        return None
    command = [
        sys.executable, "-m", "benchmarks.stages", "--engine", options["engine"], "--precision", options["precision"],
        "--rounds", str(arguments.stages), "--side", str(arguments.side), "--patience", str(arguments.patience),
        "--cache", str(arguments.cache.resolve()),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stages.json"
        done = subprocess.run(
            [*command, "--output", str(path)], cwd=ROOT, capture_output=True, text=True,
            env={**os.environ, **candidate.environment},
        )  # fmt: skip
        if done.returncode:
            print(f"The stages of {candidate.name}: {done.stderr.strip()[-600:]}", file=sys.stderr)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def published() -> str:
    """What others have published of the original, as lines of text."""
    lines = [f"  {figure['what']} ({figure['source']})" for figure in PUBLISHED]
    return "\n".join(["Published, on other machines:", *lines])


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as lines of text, the fastest first."""
    lines = [f"{'':36} {'median':>8} {'lowest':>8} {'highest':>8} {'first':>7} {'later':>7} {'peak GB':>8}  detections"]
    measured = [result for result in results if "error" not in result]
    for result in sorted(measured, key=lambda result: result["median_seconds"]):
        peak = result["peak_bytes_detection"] or result["peak_bytes_start"]
        found = "/".join(map(str, result["detections"]))
        later = result["later_first_result_seconds"]
        later = "" if later is None else f"{later:.1f}"
        disturbed = ""
        if result["disturbed_runs"]:
            disturbed = f", {result['disturbed_runs']} of {result['runs']} disturbed"
        lines.append(
            f"{result['name']:36} {result['median_seconds']:8.3f} {result['lowest_seconds']:8.3f} "
            f"{result['highest_seconds']:8.3f} {result['first_result_seconds']:7.1f} {later:>7} {peak / 1e9:8.2f}  "
            f"{found}{disturbed}"
        )
    lines += [f"{result['name']:36} unavailable: {result['error']}" for result in results if "error" in result]
    return "\n".join(lines)


def ratio_table(found: dict[str, dict[str, float]]) -> str:
    """How many times faster the fastest of each of our precisions is than the fastest of each other family."""
    lines = []
    for ours, others in found.items():
        lines.append(f"{ours} is faster than")
        lines += [f"  {other:36} {ratio:6.2f} x" for other, ratio in others.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
