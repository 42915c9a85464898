"""The process that one candidate lives in. `benchmarks.driver` starts it and talks with it in lines of JSON.

    python -m benchmarks.worker [--prepare]     with {"maker", "options", "cache", "photo"} as the first line of input

A maker is a class: `prepare(cache, photo, **options)` does once what need not be done again, such as an export;
`__init__(cache, photo, **options)` gets ready; `__call__(photo)` returns boxes [N, 4], labels [N], scores [N] and
masks, [N, H, W] bool unless `facts["pastes_masks"]` is False; `facts` is a dict of what is worth knowing about it.
If `facts["trains"]`, a call is a step of training and returns its losses by name.

Replies: {"event": "ready", ...} after the first detection, {"event": "run", ...} for each line {"do": "run"}, or
{"event": "error", "error": ...}. Nothing but replies goes to standard output, whatever libraries print.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def peak_memory() -> int:
    """The most memory in bytes that this process held, since its start or since `forget_peak`."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if platform.system() == "Darwin" else most * 1024


def forget_peak() -> bool:
    """Let `peak_memory` count anew. False: this system cannot."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def check(found: dict[str, np.ndarray], photo: np.ndarray, pasted: bool) -> int:
    """The number of detections, if they are what a detector should find.

    Raises:
        ValueError: lengths that differ, numbers that are not finite, masks of another size.
    """
    boxes, scores, masks = found["boxes"], found["scores"], found["masks"]
    count = len(boxes)
    lengths = {name: len(array) for name, array in found.items()}
    if set(lengths.values()) != {count}:
        raise ValueError(f"The results differ in length: {lengths}.")
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError("Boxes or scores are not finite.")
    if pasted and (masks.dtype != bool or masks.shape[1:] != photo.shape[:2]):
        raise ValueError(f"Masks should be bool {photo.shape[:2]}. They are {masks.dtype} {masks.shape[1:]}.")
    return count


def check_losses(found: dict[str, float]) -> int:
    """The number of losses, if a step of training should have had such.

    Raises:
        ValueError: one that is not finite, or that is zero, for which nothing was learnt.
    """
    if not all(0.0 < loss < float("inf") for loss in found.values()):
        raise ValueError(f"Losses must be above 0, and finite. They are {found}.")
    return len(found)


def main(arguments: list[str]) -> int:
    # Libraries print to standard output what they like; replies go where it led.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(**message: Any) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    try:
        told = json.loads(sys.stdin.readline())
        module, _, name = told["maker"].partition(":")
        photo = np.load(told["photo"])
        cache, options = Path(told["cache"]), told["options"]
        if "--prepare" in arguments:
            prepare = getattr(getattr(importlib.import_module(module), name), "prepare", None)
            if prepare is not None:
                prepare(cache, photo, **options)
            reply(event="prepared")
            return 0
        detector = getattr(importlib.import_module(module), name)(cache, photo, **options)
        facts = dict(detector.facts)
        found = detector(photo)
        count = check_losses(found) if facts.get("trains") else check(found, photo, facts.get("pastes_masks", True))
        del found
        reply(event="ready", detections=count, facts=facts, peak_bytes=peak_memory())
        resettable = forget_peak()
        for line in sys.stdin:
            if json.loads(line)["do"] == "stop":
                break
            cpu, start = time.process_time(), time.perf_counter()
            found = detector(photo)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            reply(
                event="run",
                seconds=seconds,
                cpu_seconds=cpu,
                detections=check_losses(found) if facts.get("trains") else len(found["boxes"]),
                peak_bytes=peak_memory() if resettable else None,
            )
            del found
    except Exception as error:  # whatever went wrong, the driver is to hear of it
        reply(event="error", error=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
