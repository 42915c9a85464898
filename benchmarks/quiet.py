"""What else the machine is doing: a timing that shared its cores with others says little."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")


def busy_seconds() -> float | None:
    """CPU seconds that all processes together have used since the machine started, stolen ones included.

    None where the system does not say (it is Linux that does)."""
    if not _STAT.exists():
        return None
    fields = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _, _, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def wait_until_quiet(limit: float, cores: float = 0.15, window: float = 0.2) -> bool:
    """Wait until others use fewer than `cores` cores over a `window` of seconds, at most `limit` seconds.

    True: it is quiet. False: it is not, or nobody knows."""
    end = time.monotonic() + limit
    while True:
        before = busy_seconds()
        if before is None:
            return False
        start = time.monotonic()
        time.sleep(window)
        if (busy_seconds() - before) / (time.monotonic() - start) <= cores:
            return True
        if time.monotonic() >= end:
            return False
