"""How accurate a network is after so many minutes of training: ours against torchvision's by its reference recipe.

    python -m benchmarks.accuracy --minutes 20 [--peer-python PATH] [--sides ours torchvision] [--output FOLDER]

Both train a ResNet-50 from scratch on the left halves of the HeLa frames (`mrcnn.nuclei`), one after the other, with
the whole machine each; the time counts from before the framework is imported. What they find in the right halves, at
the same scale, is scored by the same code (`mrcnn.evaluation`). FOLDER gets the log of each side and `results.json`,
where a side that is run alone takes its place beside the other.
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

from benchmarks.accuracy.data import DETECTIONS, Found, write_data
from benchmarks.driver import ROOT
from benchmarks.machine import machine

SIDES = {"ours": "benchmarks.accuracy.ours", "torchvision": "benchmarks.accuracy.reference"}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    setting = {"machine": machine(), "minutes": arguments.minutes, "precision": arguments.precision}
    results = known_results(arguments.output / "results.json", setting)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        write_data(data)
        for side in arguments.sides:
            found = Path(folder) / f"{side}.npz"
            python = sys.executable if side == "ours" else arguments.peer_python
            command = [python, "-m", SIDES[side], str(data), str(found), "--minutes", f"{arguments.minutes:g}"]
            command += ["--precision", arguments.precision]
            print(f"{side}: {arguments.minutes:g} minutes ...", flush=True)
            run(command, arguments.output / f"{side}.log")
            results[side] = score(found)
            told = json.dumps({**setting, "results": results}, indent=1) + "\n"
            (arguments.output / "results.json").write_text(told, encoding="utf-8")
    for side, result in results.items():
        print(f"{side:12} mask AP@[.5:.95] {result['mask']['ap']:.3f}  mask AP@0.5 {result['mask']['ap50']:.3f}")
    return 0


def known_results(path: Path, setting: dict[str, Any]) -> dict[str, Any]:
    """What a file of results holds of a run in the same setting, such as that of one side alone: side -> result."""
    if not path.exists():
        return {}
    known = json.loads(path.read_text(encoding="utf-8"))
    results = known.pop("results")
    return results if known == setting else {}


def run(command: Sequence[str], log: Path) -> None:
    """Run a side, its output in a log of its own and here.

    Raises:
        RuntimeError: it failed.
    """
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        for line in process.stdout:
            file.write(line)
            print(f"  {line}", end="", flush=True)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} ended with exit status {process.returncode}: see {log}.")


def score(found: Path) -> dict[str, Any]:
    """Average precision of what a side has found in the right halves."""
    from mrcnn.evaluation import evaluate
    from mrcnn.nuclei import HelaNuclei, fetch_hela

    dataset = HelaNuclei(fetch_hela(), "right")
    result = evaluate(Found(found), dataset, batch_size=1, progress=False, max_detections=DETECTIONS)
    print(result, flush=True)
    return result.to_dict()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    peers = ROOT / ".venv-peers" / "bin" / "python"
    add = parser.add_argument
    add("--minutes", type=float, default=20, help="of training, for each side: %(default)s")
    add("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="in this order; default: both")
    add("--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of both: %(default)s")
    add("--peer-python", metavar="PATH", default=str(peers) if peers.exists() else sys.executable,
        help="interpreter of the peer's environment: %(default)s")  # fmt: skip
    add("--output", type=Path, default=Path("out/accuracy"), help="folder for logs and results: %(default)s")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
