"""Two lists of detections compared."""

from __future__ import annotations

import numpy as np
import pytest

from mrcnn.agreement import Tolerance, compare, differences

SHAPE = (101, 201)


def raw(rows, mask=0.5):
    """Detections of (y1, x1, y2, x2) in pixels, class and score."""
    rows = np.array(rows, np.float64).reshape(-1, 6)
    rows[:, :4] = (rows[:, :4] - [0, 0, 1, 1]) / [100, 200, 100, 200]
    return rows.astype(np.float32), np.full((len(rows), 4, 4), mask, np.float32)


ROWS = [[10, 10, 40, 50, 1, 0.9], [50, 60, 90, 150, 2, 0.8], [20, 100, 45, 130, 1, 0.7]]


def test_the_order_does_not_matter():
    agreement = compare(raw(ROWS), raw(ROWS[::-1]), SHAPE, Tolerance())
    assert (agreement.expected, agreement.found, agreement.matched, agreement.agreeing, agreement.strays) == (
        3, 3, 3, 3, 0,
    )  # fmt: skip
    assert agreement.box < 1e-4 and agreement.score == agreement.mask == 0


def test_differences_are_told_in_pixels():
    moved = [[*ROWS[0][:4], 1, 0.85], [50, 60, 90, 153, 2, 0.8], ROWS[2]]
    agreement = compare(raw(ROWS), raw(moved, 0.25), SHAPE)
    assert agreement.agreeing == agreement.matched == 3
    assert agreement.box == agreement.worst_box == pytest.approx(3, abs=1e-3)
    assert agreement.score == pytest.approx(0.05) and agreement.mask == 0.25
    close = compare(raw(ROWS), raw(moved), SHAPE, Tolerance())
    assert (close.matched, close.agreeing, close.strays) == (3, 1, 2) and close.worst_box > 2.9
    assert close.box < 1e-4


@pytest.mark.parametrize(
    "other, matched",
    [
        ([[10, 10, 40, 50, 2, 0.9]], 0),  # another class
        ([[10, 45, 40, 85, 1, 0.9]], 0),  # elsewhere
        ([[10, 10, 40, 50, 1, 0.9], [10, 10, 40, 50, 1, 0.9]], 1),  # twice
        ([], 0),
    ],
)
def test_what_matches(other, matched):
    for a, b in ((raw(ROWS[:1]), raw(other)), (raw(other), raw(ROWS[:1]))):
        agreement = compare(a, b, SHAPE, Tolerance())
        assert agreement.matched == agreement.agreeing == matched
        assert agreement.strays == agreement.count - matched


def test_each_goes_to_the_nearest():
    """Of three boxes that overlap each other, whichever way round they come."""
    rows = [[10, 10 + shift, 40, 50 + shift, 1, 0.9] for shift in (0, 5, 10)]
    agreement = compare(raw(rows), raw([rows[1], rows[2], rows[0]]), SHAPE, Tolerance())
    assert agreement.agreeing == 3


def test_boxes_that_end_at_the_border_are_counted_apart():
    rows = [[60, 10, 101, 50, 1, 0.9], ROWS[1]]
    moved = [[61, 10, 101, 50, 1, 0.9], ROWS[1]]
    agreement = compare(raw(rows), raw(moved), SHAPE, Tolerance())
    assert (agreement.agreeing, agreement.border, agreement.strays) == (1, 1, 0)


def test_boxes_without_area_are_left_out():
    agreement = compare(raw([*ROWS, [0, 0, 0, 30, 1, 0.99]]), raw(ROWS), SHAPE, Tolerance())
    assert agreement.expected == agreement.found == agreement.agreeing == 3


def test_nothing_beside_nothing():
    agreement = compare(raw([]), raw([]), SHAPE, Tolerance())
    assert agreement.count == agreement.strays == 0
    assert agreement.to_dict()["box"] == 0.0


def test_differences_of_pairs_tell_those_at_the_border():
    rows = [[0, 10, 40, 50, 1, 0.9], [50, 60, 90, 150, 2, 0.8], [20, 100, 45, 130, 1, 0.7]]
    moved = [[4, 10, 40, 50, 1, 0.9], [50, 60, 90, 151, 2, 0.8]]
    pairs = differences(raw(rows), raw(moved), SHAPE)
    order = np.argsort(pairs.boxes)
    assert pairs.boxes[order] == pytest.approx([1, 4], abs=1e-3)
    assert pairs.border[order].tolist() == [False, True]
    assert pairs.sides[order] == pytest.approx([90, 40], abs=1e-3)
    assert (pairs.expected, pairs.found) == (3, 2)
    nothing = differences(raw([]), raw(moved), SHAPE)
    assert nothing.boxes.shape == nothing.border.shape == (0,)
