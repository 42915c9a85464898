"""Shapes that annotation tools have beside polygons, as polygons.

Coordinates are pixels, x to the right and y down; angles turn clockwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.data.content import Kind, short
from mrcnn.data.segmentations import SegmentationError

# How far a polygon may lie inside the curve that it stands for, in pixels, and the fewest and most corners it gets.
_SAGITTA = 0.1
_FEWEST, _MOST = 12, 8192
_LARGEST = 1e7  # radius; it has more corners than the most


def rectangle(x1: float, y1: float, x2: float, y2: float, angle: float = 0.0) -> list[float]:
    """A rectangle as a polygon [x, y, ...].

    Args:
        x1, y1, x2, y2: two opposite corners.
        angle: in radians, that it is turned by about its center.

    Raises:
        SegmentationError: it has no area.
    """
    if x1 == x2 or y1 == y2:
        raise SegmentationError(Kind.EMPTY, f"is a rectangle without an area, from {x1:g}, {y1:g} to {x2:g}, {y2:g}.")
    corners = [x1, y1, x2, y1, x2, y2, x1, y2]
    return corners if angle == 0 else _turned(np.reshape(corners, (-1, 2)), (x1 + x2) / 2, (y1 + y2) / 2, angle)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.0) -> list[float]:
    """An ellipse as a polygon [x, y, ...] with corners on it. Its sides are at most 0.1 pixels inside the ellipse.

    Args:
        x, y: its center.
        radius_x, radius_y: half its axes.
        angle: in radians, that it is turned by.

    Raises:
        SegmentationError: it has no area.
    """
    if not (radius_x > 0 and radius_y > 0):
        raise SegmentationError(Kind.EMPTY, f"is an ellipse or circle of radius {min(radius_x, radius_y):g}.")
    # An ellipse is a stretched circle: sides of a polygon in one of this radius are at least as far off.
    radius = min(max(radius_x, radius_y), _LARGEST)
    count = math.pi / math.acos(1 - _SAGITTA / radius) if radius > _SAGITTA else 0
    angles = np.arange(int(np.clip(math.ceil(count), _FEWEST, _MOST)))
    angles = angles * (2 * math.pi / len(angles))
    points = np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)
    return _turned(points, x, y, angle)


def numbers(values: Any, keys: Sequence[str]) -> list[float]:
    """The values of `keys` as numbers; text that tells a number will do.

    Raises:
        SegmentationError: one is missing, or no finite number.
    """
    found = []
    for key in keys:
        number = _number(values.get(key))
        if number is None:
            raise SegmentationError(
                Kind.COORDINATES,
                f"needs numbers {', '.join(map(repr, keys))}. Received: {key!r} {short(values.get(key))}.",
            )
        found.append(number)
    return found


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _turned(points: np.ndarray, x: float, y: float, angle: float) -> list[float]:
    """Points [P, (x, y)] turned about x, y."""
    if angle:
        sine, cosine = math.sin(angle), math.cos(angle)
        points = (points - (x, y)) @ np.array([[cosine, sine], [-sine, cosine]]) + (x, y)
    return points.ravel().tolist()
