"""How much memory this process has taken at the most: of the machine, and of its GPU."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class PeakMemory:
    """Bytes at the peak so far; None where the system or the framework does not tell."""

    machine: int | None
    gpu: int | None

    def __str__(self) -> str:
        parts = [f"{count / 1e9:.1f} GB{where}" for count, where in ((self.machine, ""), (self.gpu, " of the GPU's"))
                 if count]  # fmt: skip
        return " and ".join(parts) or "not told by this system"


def peak_memory() -> PeakMemory:
    """The memory that this process has taken so far, at the peak."""
    return PeakMemory(_of_machine(), _of_gpu())


def _of_machine() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kilobytes elsewhere


def _of_gpu() -> int | None:
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.config.list_logical_devices("GPU"):
            return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    elif backend == "torch":
        import torch

        if torch.cuda.is_available() and torch.cuda.is_initialized():
            return int(torch.cuda.max_memory_allocated())
    elif backend == "jax":
        import jax

        device = jax.local_devices()[0]
        stats = device.memory_stats() if device.platform != "cpu" else None
        if stats:
            return int(stats.get("peak_bytes_in_use", 0)) or None
    return None
