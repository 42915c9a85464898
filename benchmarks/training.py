"""A step of our training against one of torchvision's, in turns.

    python -m benchmarks.training [--peer-python PATH] [--precisions f32 bf16] [--steps 12] [--json FILE]

ResNet-50-FPN, 512 x 512, batches of 2, all layers in training, batch statistics frozen, the same images, objects,
numbers of ROIs and width of the RPN (`benchmarks.scene`); torchvision's with channels last, its bf16 by autocast, ours
by mixed precision. A step is what a user waits for: a batch of arrays in, losses, gradients, new weights, the losses
as numbers. All live in processes of their own and step by turns, so that whatever else the machine does meets all.

torchvision's is measured as it comes, and at its best: with PyTorch's batch normalization, and an allocator that keeps
what it has. A ratio is the median of ours over the lowest median of theirs, in one precision; that of memory, over the
least of theirs. A step that others on the machine disturbed is taken again.

PATH is an interpreter with torch and torchvision. FILE gets {"ratios": {"f32": ..., "bf16": ...}} and what they are of.
Ends with 1 where a side fails, or where they have not done the same work.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import scene
from benchmarks.candidates import MALLOC, MALLOC_SUFFIX, OURS, TORCHVISION, Candidate
from benchmarks.driver import ROOT, Worker, WorkerError
from benchmarks.machine import machine, today
from benchmarks.measures import Run, Start, summary
from benchmarks.photo import saved_photo
from benchmarks.quiet import busy_seconds, wait_until_quiet

SIDE = 512
BATCH = 2
PRECISIONS = {"f32": "float32", "bf16": "bfloat16"}
_PEERS = ROOT / ".venv-peers" / "bin" / "python"
_TIMEOUT = 900.0  # seconds, for a start with its first step, and for a step


def candidates(short: str) -> list[Candidate]:
    """Ours and torchvision's of a precision ("f32" or "bf16"), ours first."""
    precision = PRECISIONS[short]
    ours = Candidate(
        f"ours-{short}", "benchmarks.our_training:OurTrainer", {"precision": precision}, OURS, peer=False,
        environment={"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    plain, tuned = (
        Candidate(
            f"{TORCHVISION}-{short}-{norm}", "benchmarks.torchvision_training:TorchvisionTrainer",
            {"precision": precision, "norm": norm}, TORCHVISION, peer=True, note="channels last",
        )
        for norm in ("frozen", "stored")
    )  # fmt: skip
    return [ours, plain, replace(tuned, name=tuned.name + MALLOC_SUFFIX, environment=MALLOC)]


def measure(
    field: Sequence[Candidate],
    python_of: Callable[[Candidate], str],
    *,
    cache: Path,
    photo: Path,
    steps: int,
    patience: float,
    repeats: int,
    report: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Let the candidates step by turns, one step before those that count: a summary of each, in their order.

    Raises:
        WorkerError: one that fails.
    """
    with contextlib.ExitStack() as stack:
        workers, starts = [], []
        for candidate in field:  # one after the other, so that none disturbs another's start
            worker = stack.enter_context(Worker(candidate, python_of(candidate), cache, photo))
            ready = worker.reply(_TIMEOUT)
            starts.append(Start(time.perf_counter() - worker.started, ready["peak_bytes"], ready["facts"]))
            _step(worker)
            workers.append(worker)
            report(f"{candidate.name} is ready")
        runs: list[list[Run]] = [[] for _ in field]
        for step in range(1, steps + 1):
            for worker, own in zip(workers, runs, strict=True):
                own.append(_least_disturbed(worker, patience, repeats))
            times = (f"{own[-1].seconds:7.3f}{'*' * own[-1].disturbed:1}" for own in runs)
            report(f"{step:3} {' '.join(times)}")
    if any(all(run.disturbed for run in own) for own in runs):  # then quiet runs of others are no match
        runs = [[replace(run, foreign_cores=math.inf) for run in own] for own in runs]
    return [
        {"name": candidate.name, "family": candidate.family, "note": candidate.note, **summary([start], own)}
        for candidate, start, own in zip(field, starts, runs, strict=True)
    ]


def _least_disturbed(worker: Worker, patience: float, repeats: int) -> Run:
    best = None
    for _ in range(1 + repeats):
        if patience:
            wait_until_quiet(patience)
        run = _step(worker)
        if best is None or run.foreign_cores < best.foreign_cores:
            best = run
        if not best.disturbed:
            break
    return best


def _step(worker: Worker) -> Run:
    before = busy_seconds()
    worker.send(do="run")
    message = worker.reply(_TIMEOUT)
    after = busy_seconds()
    foreign = 0.0 if before is None else max(0.0, after - before - message["cpu_seconds"]) / message["seconds"]
    return Run(message["seconds"], message["detections"], message["peak_bytes"], foreign)


def differences(results: Sequence[dict[str, Any]]) -> list[str]:
    """What the first has not done as the others have."""
    ours, *others = results
    return [
        f"{what}: {ours['facts'][what]} of {ours['name']}, {other['facts'][what]} of {other['name']}"
        for what in ("rois", "mask_rois")
        for other in others
        if ours["facts"][what] != other["facts"][what]
    ]


def time_ratio(results: Sequence[dict[str, Any]]) -> float:
    """How long the first takes, over the fastest of the others."""
    ours, *others = (result["median_seconds"] for result in results)
    return ours / min(others)


def memory_ratio(results: Sequence[dict[str, Any]]) -> float | None:
    """The most memory that the first needs in a step, over the least of the others; None where nobody knows."""
    ours, *others = (result["peak_bytes_detection"] for result in results)
    return None if None in (ours, *others) else ours / min(others)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    results: dict[str, list[dict[str, Any]]] = {}
    failures: list[str] = []
    for short in arguments.precisions:
        try:
            results[short] = measure(
                candidates(short),
                lambda candidate: arguments.peer_python if candidate.peer else sys.executable,
                cache=arguments.cache,
                photo=saved_photo(arguments.cache, arguments.side),
                steps=arguments.steps,
                patience=arguments.patience,
                repeats=arguments.repeats,
                report=lambda line: print(line, file=sys.stderr, flush=True),
            )
        except (WorkerError, OSError) as error:
            failures.append(f"{short}: {error}")
            continue
        failures += [f"{short}, not the same work: {line}" for line in differences(results[short])]
    told = {
        "date": today(),
        "machine": machine(),
        "setting": {
            "side": arguments.side,
            "batch": BATCH,
            "rois": BATCH * scene.ROIS,
            "mask_rois": BATCH * scene.POSITIVES,
            "rpn_width": scene.RPN_WIDTH,
            "steps": arguments.steps,
        },
        "ratios": {name: time_ratio(own) for name, own in results.items()},
        "memory_ratios": {name: memory_ratio(own) for name, own in results.items()},
        "results": results,
        "failures": failures,
    }
    for name, own in results.items():
        print(table(own))
        print(f"{name}: {told['ratios'][name]:.3f} x the time of torchvision's fastest\n")
    if failures:
        print("\n".join(failures), file=sys.stderr)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 1 if failures else 0


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as lines of text."""
    lines = [f"{'':36} {'median':>8} {'lowest':>8} {'highest':>8} {'first':>7} {'peak GB':>8}"]
    for result in results:
        peak = result["peak_bytes_detection"] or result["peak_bytes_start"]
        disturbed = f"  {result['disturbed_runs']} of {result['runs']} disturbed" * bool(result["disturbed_runs"])
        lines.append(
            f"{result['name']:36} {result['median_seconds']:8.3f} {result['lowest_seconds']:8.3f} "
            f"{result['highest_seconds']:8.3f} {result['first_result_seconds']:7.1f} {peak / 1e9:8.2f}{disturbed}"
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    peers = str(_PEERS) if _PEERS.exists() else sys.executable
    add("--peer-python", metavar="PATH", default=peers, help="interpreter of the peer's environment: %(default)s")
    add("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="default: both")
    add("--steps", type=int, default=12, help="of each that count: %(default)s")
    add("--repeats", type=int, default=2, help="of a step that others disturbed: %(default)s")
    add("--side", type=int, default=SIDE, help="of the square photo: %(default)s")
    add("--patience", type=float, default=5, help="seconds to wait for a quiet machine before each: %(default)s")
    add("--cache", type=Path, default=Path(".cache/benchmarks"), help="what is made once: %(default)s")
    add("--json", type=Path, metavar="FILE", help="where the results go")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
