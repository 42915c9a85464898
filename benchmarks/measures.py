"""What runs say together: medians, ratios, the fastest of a family."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Cores that others may use during a run before it counts as disturbed.
DISTURBED = 0.1


@dataclass(frozen=True)
class Run:
    """One detection.

    Attributes:
        seconds: how long it took.
        detections: how many it found.
        peak_bytes: the most memory the process held during and since the first of these runs; None: not known.
        foreign_cores: how many cores others kept busy meanwhile, in the mean.
    """

    seconds: float
    detections: int
    peak_bytes: int | None
    foreign_cores: float

    @property
    def disturbed(self) -> bool:
        """Whether others took so much that the time says little."""
        return self.foreign_cores > DISTURBED


@dataclass(frozen=True)
class Start:
    """A process's start.

    Attributes:
        seconds: from the start of the process to its first result.
        peak_bytes: the most memory that it held until then.
        facts: what its maker tells of it.
    """

    seconds: float
    peak_bytes: int
    facts: dict[str, Any]


def summary(starts: Sequence[Start], runs: Sequence[Run]) -> dict[str, Any]:
    """The numbers of a candidate: of its starts and of its runs, at least one of each.

    The first start is told apart from the later ones, which find what it has kept, such as a compiled network. Runs
    that others disturbed are counted and left out, unless all were disturbed.
    """
    quiet = [run for run in runs if not run.disturbed]
    seconds = [run.seconds for run in quiet or runs]
    peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
    later = [start.seconds for start in starts[1:]]
    return {
        "median_seconds": statistics.median(seconds),
        "lowest_seconds": min(seconds),
        "highest_seconds": max(seconds),
        "seconds": seconds,
        "runs": len(runs),
        "disturbed_runs": len(runs) - len(quiet),
        "detections": sorted({run.detections for run in runs}),
        "first_result_seconds": starts[0].seconds,
        "later_first_result_seconds": statistics.median(later) if later else None,
        "peak_bytes_start": max(start.peak_bytes for start in starts),
        "peak_bytes_detection": max(peaks) if peaks else None,
        "facts": starts[0].facts,
    }


def fastest_of_families(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each family the result with the lowest median; families of which none was measured are missing."""
    fastest: dict[str, dict[str, Any]] = {}
    for result in results:
        if "error" not in result:
            best = fastest.setdefault(result["family"], result)
            if result["median_seconds"] < best["median_seconds"]:
                fastest[result["family"]] = result
    return fastest


def ratios(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each family of ours, how many times faster its fastest is than the fastest of each other family."""
    fastest = fastest_of_families(results)
    return {
        ours: {
            other: fastest[other]["median_seconds"] / fastest[ours]["median_seconds"]
            for other in fastest
            if other != ours
        }
        for ours in fastest
        if ours.startswith("ours ")
    }
