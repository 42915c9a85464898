"""Which engine and precision to run on: measured where it is to run, once, and remembered."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrcnn.cache import known_cache_folder
from mrcnn.engines.base import EngineError
from mrcnn.engines.probe import measure_rate
from mrcnn.files import atomic_path
from mrcnn.requirements import installed

# What must be there for an engine to run; the engine keras has Keras's own backends.
PACKAGES = {"keras": ("keras",), "openvino": ("openvino",), "onnxruntime": ("onnxruntime",)}
# On a CPU; ONNX Runtime has kernels for float32 only.
_PRECISIONS = {
    "keras": ("float32", "bfloat16"),
    "openvino": ("float32", "bfloat16"),
    "onnxruntime": ("float32",),
}
_ORDER = ("openvino", "keras", "onnxruntime")
_AS_GOOD = 0.85
_VERSIONS_OF = ("keras", "tensorflow", "jax", "torch", "openvino", "onnxruntime")

# What failed is asked again by the next process only: it may have been for want of memory.
_failed: set[tuple[str, str]] = set()

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """An engine, a precision, and why these."""

    engine: str
    precision: str
    reason: str


def installed_engines() -> list[str]:
    """Names of the engines that could run here."""
    return [name for name, packages in PACKAGES.items() if all(installed(package) for package in packages)]


def choose(engines: Sequence[str], precision: str, threads: int | None = None) -> Choice:
    """The fastest of some engines.

    Args:
        engines: names, all of them installed.
        precision: "float32", "bfloat16" or "auto", either.
        threads: as for the engines.

    Raises:
        EngineError: none of them can.
    """
    pairs = [(engine, kind) for engine in engines for kind in _PRECISIONS[engine] if precision in ("auto", kind)]
    if not pairs:
        raise EngineError(f"No engine of {', '.join(engines) or 'none'} computes in {precision!r}.")
    if len(pairs) == 1:
        return Choice(*pairs[0], "nothing else would do")
    rates = _rates(pairs, threads)
    if not rates:
        raise EngineError(f"None of the engines {', '.join(engines)} runs here. Name one (engine=...) to see why.")
    best = max(rates.values())
    # What lies closer together than such a short measurement can tell goes by what stands around the convolutions, and
    # by what rounds less.
    good = (pair for pair in rates if rates[pair] >= _AS_GOOD * best)
    chosen = min(good, key=lambda pair: (_ORDER.index(pair[0]), pair[1] != "float32"))
    ranked = sorted(rates, key=lambda pair: -rates[pair])
    told = ", ".join(f"{engine} {kind} {rates[engine, kind] / 1e9:.0f}" for engine, kind in ranked)
    return Choice(*chosen, f"convolutions measured here, in GFLOP/s: {told}")


def _rates(pairs: Sequence[tuple[str, str]], threads: int | None) -> dict[tuple[str, str], float]:
    """Rates of those pairs of engine and precision that run, remembered from another time where they can be."""
    folder = known_cache_folder()
    path = folder / "engines.json" if folder is not None else None
    known = _read(path)
    fingerprint = _fingerprint(threads)
    kept = known.get(fingerprint)
    kept = kept if isinstance(kept, dict) else {}
    own = {key: rate for key, rate in kept.items() if isinstance(rate, float) and rate > 0}
    before = dict(own)
    for engine, kind in pairs:
        key = f"{engine} {kind}"
        if key in own or (fingerprint, key) in _failed:
            continue
        try:
            own[key] = measure_rate(engine, kind, threads)
        except Exception as error:  # whatever a runtime raises where it cannot: the others are asked
            _log.warning("The engine %s cannot run in %s here: %s", engine, kind, error)
            _failed.add((fingerprint, key))
    if own != before and path is not None:
        _write(path, {**known, fingerprint: own})
    return {(engine, kind): own[f"{engine} {kind}"] for engine, kind in pairs if f"{engine} {kind}" in own}


def _read(path: Path | None) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: Path, known: dict[str, Any]) -> None:
    """Best effort: what cannot be remembered is measured again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
    except OSError as error:
        _log.info("Measurements of engines are not kept: %s", error)


def _fingerprint(threads: int | None) -> str:
    """What the rates hold for: this processor, as many cores, these versions."""
    versions = []
    for package in _VERSIONS_OF:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    backend = os.environ.get("KERAS_BACKEND", "")
    return "; ".join([_processor(), f"{cores} cores", f"threads {threads}", f"backend {backend}", *versions])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    names = ("vendor_id", "cpu family", "model", "stepping", "model name")
    return " ".join([platform.machine(), *(told[name] for name in names if name in told)])
