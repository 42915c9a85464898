"""Checks of what augmentations are made with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def probability(name: str, value: float) -> float:
    """`value`, if it is from 0 to 1.

    Raises:
        ValueError: it is not.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1. Received: {value}.")
    return float(value)


def between(
    name: str, value: float | Sequence[float], above: float = -math.inf, most: float = math.inf
) -> tuple[float, float]:
    """(low, high) from a number or from such a pair.

    Args:
        name: for the message.
        value: what was given.
        above: `low` must be above it.
        most: the most that `high` may be.

    Raises:
        ValueError: no such pair.
    """
    try:
        low, high = (value, value) if np.ndim(value) == 0 else value
        fine = low <= high and math.isfinite(low) and math.isfinite(high)
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise ValueError(f"{name} must be a number or (low, high) with low <= high. Received: {value}.")
    if low <= above or high > most:
        limit = "" if most == math.inf else f" and at most {most:g}"
        raise ValueError(f"{name} must be above {above:g}{limit}. Received: {value}.")
    return float(low), float(high)


def sides(name: str, value: Sequence[int] | int | None) -> tuple[int, int] | None:
    """(height, width) in pixels from such a pair, or a number for both; None stays None.

    Raises:
        ValueError: no whole numbers of at least 1.
    """
    if value is None:
        return None
    pair = (value, value) if np.ndim(value) == 0 else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int | np.integer) and v >= 1 for v in pair):
        raise ValueError(f"{name} must be None or (height, width), whole numbers of at least 1. Received: {value!r}.")
    return int(pair[0]), int(pair[1])
