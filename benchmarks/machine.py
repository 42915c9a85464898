"""What the measurements ran on, without names of hosts or people."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

# Instructions that decide how fast a network's convolutions can be.
_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp", "bf16", "i8mm",
)  # fmt: skip


def machine() -> dict[str, object]:
    """Processor, cores, instructions, memory and system."""
    fields: dict[str, str] = {}
    cpuinfo, meminfo = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    if cpuinfo.exists():
        first = cpuinfo.read_text().split("\n\n", 1)[0]
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    memory = None
    if meminfo.exists():
        memory = round(int(meminfo.read_text().split("MemTotal:")[1].split()[0]) / 2**20)
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "processor": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "instructions": [flag for flag in _FLAGS if flag in flags],
        "memory_gb": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def today() -> str:
    """The date, as results tell it."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()
