"""What recipes do to accuracy: legacy, modern, and modern with one choice taken back, on the nuclei.

    python -m benchmarks.recipes --minutes 20 --runs modern legacy --output FILE [--keep FOLDER]
    python -m benchmarks.recipes --steps 400 --more-seeds 2 --jobs 2 --output FILE

The first compares what the same time gives: each run has the machine for itself, imports included. The second compares
what the same number of steps gives (all of `settings.TRAINED`), which other work on the machine does not change, so
that several may run at once, with a core each.

The demo's small network starts from random weights, of one seed; --more-seeds trains the modern one from others too,
which tells what chance does. What is found in the held-out halves is scored by `mrcnn.evaluation`. FILE is written
after each run, and one that is in it already is not done again.
"""

from __future__ import annotations

import argparse
import json
import queue
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.accuracy.__main__ import score
from benchmarks.accuracy.data import write_data
from benchmarks.driver import ROOT
from benchmarks.machine import machine
from benchmarks.recipes.settings import MODERN, RUNS, TRAINED, numbers_of
from mrcnn.files import write_text


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    budget = {"minutes": arguments.minutes} if arguments.steps is None else {"steps": arguments.steps}
    setting = {"machine": machine(), **budget, "jobs": arguments.jobs}
    results = known_results(arguments.output, setting)
    wanted = [(name, 0) for name in arguments.runs] + [(MODERN, 1 + more) for more in range(arguments.more_seeds)]
    cores: queue.Queue[int] = queue.Queue()
    for core in range(arguments.jobs):
        cores.put(core)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        data = Path(folder) / "data.npz"
        write_data(data)

        def work(name: str, seed: int) -> dict[str, Any]:
            options = [f"--{key}={value:g}" for key, value in budget.items()]
            core = cores.get()
            try:
                options += [] if arguments.jobs == 1 else [f"--core={core}"]
                return run(name, seed, data, options, arguments.keep)
            finally:
                cores.put(core)

        todo = [one for one in wanted if key_of(*one) not in results]
        for done in as_completed([pool.submit(work, *one) for one in todo]):
            results |= done.result()
            write_text(arguments.output, json.dumps({**setting, "results": results}, indent=1) + "\n")
            for key, result in done.result().items():
                print(f"{key}: mask AP {result['mask']['ap']:.3f} after {result['steps']} steps", flush=True)
    return 0


def run(name: str, seed: int, data: Path, options: Sequence[str], keep: Path | None) -> dict[str, Any]:
    """Train one, and score all runs that have its weights: run -> result."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.recipes.one", name, str(data), folder, f"--seed={seed}", *options]
        subprocess.run(command, cwd=ROOT, check=True)
        trained = json.loads((Path(folder) / "training.json").read_text(encoding="utf-8"))
        results = {}
        for number in numbers_of(name):
            key = key_of(RUNS[number], seed)
            results[key] = {**trained, **score(Path(folder) / f"{number}.npz")}
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path(folder) / f"{number}.h5", keep / f"{key}.h5")
    return results


def key_of(name: str, seed: int) -> str:
    """What a run is called in a file of results."""
    return name if seed == 0 else f"{name}, seed {seed}"


def known_results(path: Path, setting: dict[str, Any]) -> dict[str, Any]:
    """What a file holds of runs in this setting.

    Raises:
        SystemExit: they are of another setting.
    """
    if not path.exists():
        return {}
    known = json.loads(path.read_text(encoding="utf-8"))
    results = known.pop("results")
    if known != setting:
        raise SystemExit(f"{path} is of another setting: {known}. This one: {setting}. Name another file.")
    return results


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recipes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float, help="of training, for each run")
    budget.add_argument("--steps", type=int, help="of training, for each run")
    add = parser.add_argument
    add("--runs", nargs="+", choices=TRAINED, default=TRAINED, metavar="NAME", help=f"of {', '.join(TRAINED)}; all")
    add("--more-seeds", type=int, default=0, metavar="N", help="train the modern one N more times: %(default)s")
    add("--jobs", type=int, default=1, metavar="N", help="N runs at once, a core each: %(default)s")
    add("--keep", type=Path, metavar="FOLDER", help="keep the weights of all runs there")
    add("--output", type=Path, default=Path("out/recipes.json"), help="%(default)s")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
