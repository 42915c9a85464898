"""Circles, ellipses and turned rectangles as polygons."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mrcnn.data.content import Kind
from mrcnn.data.formats.shapes import ellipse, numbers, rectangle
from mrcnn.data.segmentations import SegmentationError, decode_segmentation
from tests.formats import samples


def distance_inside(polygon: list[float], x: float, y: float, radius_x: float, radius_y: float, angle: float) -> float:
    """How far the curve is outside the polygon at most: of many points on it, the distance to the nearest side."""
    points = np.reshape(polygon, (-1, 2))
    t = np.linspace(0, 2 * math.pi, 5000)
    cosine, sine = math.cos(angle), math.sin(angle)
    curve = np.stack([x + radius_x * np.cos(t) * cosine - radius_y * np.sin(t) * sine,
                      y + radius_x * np.cos(t) * sine + radius_y * np.sin(t) * cosine], 1)  # fmt: skip
    starts, ends = points, np.roll(points, -1, 0)
    along = ends - starts
    share = ((curve[:, None] - starts) * along).sum(-1) / (along**2).sum(-1)
    nearest = starts + np.clip(share, 0, 1)[..., None] * along
    return np.linalg.norm(curve[:, None] - nearest, axis=-1).min(1).max()


@pytest.mark.parametrize("radii", [(0.4, 0.4), (3, 3), (50, 50), (2000, 2000), (900, 4), (4, 900)])
@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_ellipses_are_off_by_a_tenth_of_a_pixel_at_most(radii, angle):
    polygon = ellipse(100, 200, *radii, angle)
    assert distance_inside(polygon, 100, 200, *radii, angle) <= 0.1 + 1e-9
    assert 24 <= len(polygon) <= 1000


def test_shapes_turn_clockwise():
    turned = np.reshape(rectangle(10, 10, 20, 12, math.pi / 2), (-1, 2))
    np.testing.assert_allclose(sorted(turned.tolist()), [[14, 6], [14, 16], [16, 6], [16, 16]], atol=1e-9)
    mask = decode_segmentation([ellipse(16, 12, 10, 3, 0.6)], samples.HEIGHT, samples.WIDTH)
    wanted = samples.disk(16, 12, 10, 3, 0.6)
    assert (mask & wanted).sum() / (mask | wanted).sum() > 0.85
    # y points down: the right end is below the left one.
    assert mask[17, 23] and mask[7, 8] and not mask[7, 23]


@pytest.mark.parametrize(
    "make", [lambda: rectangle(1, 2, 1, 5), lambda: rectangle(1, 2, 4, 2), lambda: ellipse(1, 2, 0, 3),
             lambda: ellipse(1, 2, 3, -1)]
)  # fmt: skip
def test_shapes_without_an_area(make):
    with pytest.raises(SegmentationError) as caught:
        make()
    assert caught.value.kind == Kind.EMPTY


def test_huge_radii_take_no_time():
    assert len(ellipse(0, 0, 1e300, 1e300)) <= 20_000


@pytest.mark.parametrize("value", [None, True, "x", [], math.nan, math.inf, "1e999", 10**400])
def test_what_is_no_number(value):
    with pytest.raises(SegmentationError, match="needs numbers 'x', 'y'. Received: 'y'"):
        numbers({"x": "1.5", "y": value}, ("x", "y"))
    assert numbers({"x": "1.5", "y": 2}, ("x", "y")) == [1.5, 2.0]
