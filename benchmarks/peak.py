"""What the machine can do at best: convolutions of the network's own kinds, one after the other, nothing else.

    python -m benchmarks.peak [--rounds 10] [--engines openvino torch] [--output peak.json]

Each shape is a chain of equal convolutions with a relu behind each, so that nothing but the ends has to be laid out
anew; the best rate of any run of any shape is the peak of a precision. All shapes and precisions take turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.machine import machine, today
from benchmarks.quiet import wait_until_quiet

PRECISIONS = ("float32", "bfloat16", "int8")
CHAIN = 4


class Shape(NamedTuple):
    """A convolution: kernel side, channels in and out, side of the square map."""

    kernel: int
    channels: int
    side: int

    @property
    def flops(self) -> int:
        """Of the whole chain, a multiplication and an addition counted as two."""
        return 2 * CHAIN * self.kernel**2 * self.channels**2 * self.side**2

    def __str__(self) -> str:
        return f"{self.kernel}x{self.kernel} {self.channels} channels {self.side}x{self.side}"


SHAPES = (Shape(3, 256, 64), Shape(3, 256, 128), Shape(3, 512, 32), Shape(1, 256, 128), Shape(1, 512, 64))


def openvino_chain(shape: Shape, precision: str) -> Callable[[], object]:
    """The chain as a compiled OpenVINO model, ready to run."""
    import openvino as ov
    from openvino import opset13 as opset

    rng = np.random.default_rng(0)
    data = opset.parameter([1, shape.channels, shape.side, shape.side], np.float32)
    x = data
    pad = shape.kernel // 2
    scale = 1 / np.sqrt(shape.kernel**2 * shape.channels)
    for _ in range(CHAIN):
        weights = rng.normal(0, scale, (shape.channels, shape.channels, shape.kernel, shape.kernel))
        kernel = opset.constant(weights.astype(np.float32))
        if precision == "int8":
            low, high = (np.full((shape.channels, 1, 1, 1), sign * 4 * scale, np.float32) for sign in (-1, 1))
            kernel = opset.fake_quantize(kernel, low, high, low, high, 255)
            x = opset.fake_quantize(x, np.float32(0), np.float32(4), np.float32(0), np.float32(4), 256)
        x = opset.convolution(x, kernel, [1, 1], [pad, pad], [pad, pad], [1, 1])
        x = opset.relu(x)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16",
    }
    compiled = ov.Core().compile_model(ov.Model([x], [data], "chain"), "CPU", settings)
    request = compiled.create_infer_request()
    image = rng.uniform(0, 1, (1, shape.channels, shape.side, shape.side)).astype(np.float32)
    return lambda: request.infer([image], share_inputs=True, share_outputs=True)


def torch_chain(shape: Shape, precision: str) -> Callable[[], object] | None:
    """The chain in PyTorch, channels last; None for int8."""
    import torch

    if precision == "int8":
        return None
    kind = getattr(torch, precision)
    layout = torch.channels_last
    torch.manual_seed(0)
    image = torch.rand(1, shape.channels, shape.side, shape.side).to(kind).to(memory_format=layout)
    layers = []
    for _ in range(CHAIN):
        layers += [
            torch.nn.Conv2d(shape.channels, shape.channels, shape.kernel, padding=shape.kernel // 2, bias=False),
            torch.nn.ReLU(inplace=True),
        ]
    network = torch.nn.Sequential(*layers).to(kind).to(memory_format=layout).eval()

    def run() -> object:
        with torch.inference_mode():
            return network(image)

    return run


CHAINS = {"openvino": openvino_chain, "torch": torch_chain}


def measure_peaks(engines: Sequence[str], rounds: int, patience: float) -> list[dict[str, object]]:
    """For each engine, precision and shape the best rate in GFLOP/s of all rounds; see `wait_until_quiet`."""
    runs = []
    for engine in engines:
        for precision in PRECISIONS:
            for shape in SHAPES:
                run = CHAINS[engine](shape, precision)
                if run is not None:
                    run()
                    runs.append(({"engine": engine, "precision": precision, "shape": str(shape)}, shape, run, []))
    for _ in range(rounds):
        for _, _, run, times in runs:
            wait_until_quiet(patience, window=0.1)
            for _ in range(5):
                start = time.perf_counter()
                run()
                times.append(time.perf_counter() - start)
    return [
        {
            **what,
            "best_gflops": shape.flops / min(times) / 1e9,
            "median_gflops": shape.flops / float(np.median(times)) / 1e9,
            "runs": len(times),
        }
        for what, shape, _, times in runs
    ]


def best_of(rates: list[dict[str, object]]) -> dict[str, float]:
    """The peak of each precision in GFLOP/s, whatever engine and shape reached it."""
    peaks: dict[str, float] = {}
    for rate in rates:
        precision = str(rate["precision"])
        peaks[precision] = max(peaks.get(precision, 0.0), float(rate["best_gflops"]))
    return peaks


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peak", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--patience", type=float, default=5, help="seconds to wait for a quiet machine: %(default)s")
    parser.add_argument("--engines", nargs="+", choices=sorted(CHAINS), default=["openvino"])
    parser.add_argument("--output", type=Path, help="a JSON file for the rates")
    arguments = parser.parse_args()
    rates = measure_peaks(arguments.engines, arguments.rounds, arguments.patience)
    for rate in rates:
        what = f"{rate['engine']:9} {rate['precision']:9} {rate['shape']:32}"
        print(f"{what} best {rate['best_gflops']:7.0f} GFLOP/s  median {rate['median_gflops']:7.0f}")
    peaks = best_of(rates)
    print("peaks: " + ", ".join(f"{precision} {rate:.0f} GFLOP/s" for precision, rate in peaks.items()))
    if arguments.output:
        told = {"date": today(), "machine": machine(), "peaks_gflops": peaks, "rates": rates}
        arguments.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
