"""What recipes do to accuracy: legacy, modern, and modern with one choice taken back, on the nuclei.

    python -m benchmarks.recipes --minutes 20 --runs legacy modern --output FILE
    python -m benchmarks.recipes --minutes 5 [--output FILE]                       # all of `settings.RUNS`

Each run has the machine for itself and the same time, imports included; the demo's small network starts from random
weights, of one seed. What it finds in the held-out halves is scored by `mrcnn.evaluation`. FILE is written after each
run, and one that is in it already is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy.__main__ import score
from benchmarks.accuracy.data import write_data
from benchmarks.driver import ROOT
from benchmarks.machine import machine
from benchmarks.recipes.settings import RUNS
from mrcnn.files import write_text


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recipes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=5, help="of training, for each run: %(default)s")
    add("--runs", nargs="+", choices=RUNS, default=list(RUNS), metavar="NAME", help=f"of {', '.join(RUNS)}; all")
    add("--seed", type=int, default=0, help="of weights, data and sampling: %(default)s")
    add("--output", type=Path, default=Path("out/recipes.json"), help="%(default)s")
    arguments = parser.parse_args(argv)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    setting = {"machine": machine(), "minutes": arguments.minutes, "seed": arguments.seed}
    results = known_results(arguments.output, setting)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        write_data(data)
        for name in arguments.runs:
            if name in results:
                continue
            print(f"{name}: {arguments.minutes:g} minutes ...", flush=True)
            results[name] = run(name, data, Path(folder), arguments.minutes, arguments.seed)
            write_text(arguments.output, json.dumps({**setting, "results": results}, indent=1) + "\n")
            print(f"{name}: mask AP {results[name]['mask']['ap']:.3f} after {results[name]['steps']} steps", flush=True)
    return 0


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


def run(name: str, data: Path, folder: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Train and score one."""
    found = folder / "found.npz"
    command = [sys.executable, "-m", "benchmarks.recipes.one", name, str(data), str(found)]
    subprocess.run([*command, "--minutes", f"{minutes:g}", "--seed", str(seed)], cwd=ROOT, check=True)
    steps = json.loads(found.with_suffix(".json").read_text(encoding="utf-8"))["steps"]
    return {"steps": steps, **score(found)}


if __name__ == "__main__":
    raise SystemExit(main())
