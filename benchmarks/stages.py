"""Where the time of one of our detections goes: decode, mold, trunk, proposals, heads, masks, paste.

    python -m benchmarks.stages [--engine openvino] [--precision bfloat16] [--rounds 7] [--peak GFLOPS] [--output FILE]

The stages around the network are timed by the clock. Inside OpenVINO, it is asked for the time of each node, and a node
belongs to the last stage that it needs anything of. Inside Keras, networks that end behind each stage are timed, and
the differences taken. `--peak`, of `benchmarks.peak` for the precision, adds the share of it that the network reaches.
Ends with 1 where the stages inside the network do not add up to the time that the network takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ours
from benchmarks.machine import machine, today
from benchmarks.photo import SIDE, saved_photo
from benchmarks.quiet import wait_until_quiet

INSIDE = ("trunk", "proposals", "heads", "masks")
STAGES = ("decode", "mold", *INSIDE, "paste")
ENGINES = ("openvino", "keras")
JPEG_QUALITY = 95
# By how much of the network's time the stages inside it may miss it.
MISSED = 0.03


class TimedEngine:
    """An engine that says how long its last run took."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.seconds = 0.0  # of the last run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, *arrays: np.ndarray) -> Any:
        """See `mrcnn.engines.base.Engine.run`."""
        start = time.perf_counter()
        try:
            return self._engine.run(*arrays)
        finally:
            self.seconds = time.perf_counter() - start


def stage_of(name: str, kind: str, before: int) -> int:
    """Index in `INSIDE` of a node.

    Args:
        name, kind: of the node, in OpenVINO's words.
        before: the last stage of those that it needs.
    """
    if name.startswith("roi_align_mask"):
        own = 3
    elif name.startswith("roi_align_classifier"):
        own = 2
    elif kind == "TopK":  # the best anchors, of the image or of a level
        own = 1
    else:
        own = 0
    return max(own, before)


class NodeTimes:
    """Seconds of a request's nodes in its latest runs. OpenVINO tells for each node the mean of all its runs, the slow
    first one included, in whole microseconds; from the sums before and after a run follows what that run took."""

    def __init__(self) -> None:
        self._runs = 0
        self._sums: dict[tuple[str, str], float] = {}

    def since(self, runs: int, profile: Iterable[Any]) -> dict[tuple[str, str], float]:
        """Seconds by name and kind of node, in the mean of the runs since the last call.

        Args:
            runs: how many there were in all, since the network was compiled.
            profile: the request's `profiling_info`.
        """
        sums = {(node.node_name, node.node_type): runs * node.real_time.total_seconds() for node in profile}
        found = {node: (total - self._sums.get(node, 0.0)) / (runs - self._runs) for node, total in sums.items()}
        self._runs, self._sums = runs, sums
        return found


def openvino_stages(compiled: Any) -> dict[str, str]:
    """The stage of each node, by its name."""
    stages: dict[str, int] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        needs = [stages[node.input_value(i).get_node().get_friendly_name()] for i in range(node.get_input_size())]
        kind = str(node.get_rt_info()["layerType"].astype(str))
        stages[node.get_friendly_name()] = stage_of(node.get_friendly_name(), kind, max(needs, default=0))
    return {name: INSIDE[stage] for name, stage in stages.items()}


def profiled_openvino(path: Path, precision: str, quantized: bool) -> Any:
    """Our engine, which also times its nodes."""
    from mrcnn.engines.openvino_engine import OpenVINOEngine

    class ProfiledEngine(OpenVINOEngine):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._times, self._runs = NodeTimes(), 0

        def _properties(self) -> dict[str, Any]:
            return {**super()._properties(), "PERF_COUNT": True}

        def run(self, *arrays: np.ndarray) -> Any:
            self._runs += 1
            return super().run(*arrays)

        def stages(self) -> dict[str, dict[str, float]]:
            """Seconds by stage and kind of node, of the runs since the last call."""
            (network,) = self._networks.values()  # there was one photo
            stage_of = openvino_stages(network.compiled)
            found: dict[str, dict[str, float]] = {stage: {} for stage in INSIDE}
            for (name, kind), seconds in self._times.since(self._runs, network.request.profiling_info).items():
                of_stage = found[stage_of.get(name, INSIDE[0])]
                of_stage[kind] = of_stage.get(kind, 0.0) + seconds
            return found

    return ProfiledEngine(path, precision, quantized=quantized)


def keras_prefixes(model: Any, precision: str) -> dict[str, Callable[..., Any]]:
    """For each stage but the masks, a function that runs the network up to its end."""
    import keras

    from mrcnn.folding import fold_batch_norm

    if precision != "float32":
        model = fold_batch_norm(model, precision)
    pyramid = [model.get_layer(f"fpn_p{level}").output for level in (2, 3, 4, 5)]
    ends = {
        "trunk": [*pyramid, *model.outputs[5:7]],
        "proposals": [*pyramid, model.outputs[4]],
        "heads": [*pyramid, model.outputs[0]],
    }
    functions = {}
    for stage, outputs in ends.items():
        part = keras.Model(model.inputs, outputs)
        functions[stage] = part.predict_on_batch
    return functions


def measure(cache: Path, side: int, engine: str, precision: str, rounds: int, patience: float) -> dict[str, Any]:
    """Medians in seconds: `stages`, `total` (without decoding), `network` of that, and, of OpenVINO, `kinds` of nodes
    in each stage. `accounted`: what share of `network` its stages add up to. `box_pixels`: how much is pasted."""
    from mrcnn import Detector
    from mrcnn.bundle import read_bundle
    from mrcnn.data.images import read_image
    from mrcnn.data.molding import mold_one

    photo = np.load(saved_photo(cache, side))
    ours.OurDetector.prepare(cache, photo, engine=engine, precision=precision)
    prefixes: dict[str, Callable[..., Any]] = {}
    if engine == "openvino":
        bundle = read_bundle(ours.exported(cache, photo, engine, precision))
        made, config = profiled_openvino(bundle.path, precision, bundle.precision == "int8"), bundle.config
    else:
        from mrcnn.engines.keras_engine import KerasEngine

        network = ours.model(cache, photo)
        made, config = KerasEngine(network.keras_model, network.config, precision), network.config
        prefixes = keras_prefixes(network.keras_model, precision)
    timed = TimedEngine(made)
    detector = Detector(timed, config)
    molded, meta, _ = mold_one(photo, config)
    inputs = [molded[None], meta[None].astype(np.float32), detector.get_anchors(molded.shape)[None]]

    samples: dict[str, list[float]] = {stage: [] for stage in (*STAGES, "network", "total", "accounted")}
    kinds: dict[str, dict[str, list[float]]] = {stage: {} for stage in INSIDE}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        _write_jpeg(path, photo)
        for turn in range(rounds + 1):
            wait_until_quiet(patience)
            one = {"decode": _seconds(lambda: read_image(path)), "mold": _seconds(lambda: mold_one(photo, config))}
            one["total"] = _seconds(lambda: detector.detect([photo]))
            one["network"] = timed.seconds
            one["paste"] = one["total"] - one["mold"] - one["network"]
            if engine == "openvino":
                for stage, times in made.stages().items():
                    one[stage] = sum(times.values())
                    for kind, seconds in times.items():
                        kinds[stage].setdefault(kind, []).extend([seconds] * bool(turn))
            else:
                ends = {stage: _seconds(lambda run=run: run(inputs)) for stage, run in prefixes.items()}
                one["trunk"] = ends["trunk"]
                one["proposals"] = ends["proposals"] - ends["trunk"]
                one["heads"] = ends["heads"] - ends["proposals"]
                one["masks"] = one["network"] - ends["heads"]
            one["accounted"] = sum(one[stage] for stage in INSIDE) / one["network"]
            if turn:
                for stage, seconds in one.items():
                    samples[stage].append(seconds)
        (found,) = detector.detect([photo])
    medians = {stage: statistics.median(times) for stage, times in samples.items()}
    return {
        "engine": engine,
        "precision": precision,
        "rounds": rounds,
        "stages": {stage: medians[stage] for stage in STAGES},
        "network": medians["network"],
        "accounted": medians["accounted"],
        "total": medians["total"],
        "box_pixels": int(np.prod(found["rois"][:, 2:] - found["rois"][:, :2], axis=1).sum()),
        "kinds": {
            stage: {kind: statistics.median(times) for kind, times in of_stage.items()}
            for stage, of_stage in kinds.items()
        },
    }


def table(measured: dict[str, Any], most_kinds: int = 4) -> str:
    """The measurement as lines of text."""
    total = measured["total"]
    lines = [f"{measured['engine']} {measured['precision']}: {total * 1e3:.0f} ms without decoding"]
    for stage, seconds in measured["stages"].items():
        kinds = sorted(measured["kinds"].get(stage, {}).items(), key=lambda item: -item[1])[:most_kinds]
        told = ", ".join(f"{kind} {time * 1e3:.0f}" for kind, time in kinds if time >= 5e-4)
        lines.append(f"{stage:10} {seconds * 1e3:8.1f} ms {seconds / total:6.1%}  {told}".rstrip())
    return "\n".join(lines)


def adds_up(measured: dict[str, Any]) -> bool:
    """Whether the stages inside the network account for its time."""
    return abs(measured["accounted"] - 1) <= MISSED


def share_of_peak(total: float, flops: int, peak_gflops: float) -> float:
    """What part of a peak `flops` operations in `total` seconds are."""
    return flops / total / (peak_gflops * 1e9)


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _write_jpeg(path: Path, photo: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(photo).save(path, quality=JPEG_QUALITY)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=ENGINES, default="openvino")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "int8"), default="bfloat16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--side", type=int, default=SIDE, help="of the square photo: %(default)s")
    parser.add_argument("--patience", type=float, default=5, help="seconds to wait for a quiet machine: %(default)s")
    parser.add_argument("--cache", type=Path, default=Path(".cache/benchmarks"), help="what is made once: %(default)s")
    parser.add_argument("--peak", type=float, metavar="GFLOPS", help="the precision's, of benchmarks.peak")
    parser.add_argument("--output", type=Path, help="a JSON file for the result")
    arguments = parser.parse_args(argv)
    measured = measure(
        arguments.cache, arguments.side, arguments.engine, arguments.precision, arguments.rounds, arguments.patience
    )
    print(table(measured))
    if not adds_up(measured):
        print(f"The stages add up to {measured['accounted']:.1%} of the network's time.", file=sys.stderr)
    if arguments.peak:
        from benchmarks.flops import our_flops

        flops = sum(our_flops(arguments.side).values())
        measured |= {"flops": flops, "peak_gflops": arguments.peak}
        measured["share_of_peak"] = share_of_peak(measured["total"], flops, arguments.peak)
        print(
            f"{flops / 1e9:.0f} GFLOP at {flops / measured['total'] / 1e9:.0f} GFLOP/s: "
            f"{measured['share_of_peak']:.0%} of the peak"
        )
    if arguments.output:
        told = {"date": today(), "machine": machine(), **measured}
        arguments.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0 if adds_up(measured) else 1


if __name__ == "__main__":
    raise SystemExit(main())
