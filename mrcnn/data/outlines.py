"""Masks as closed lines, for formats that know one outline where a mask has holes and several parts.

Tools differ on which pixels a polygon fills. labelme and Ultralytics cut coordinates off to whole pixels and fill
these, the line's own included; COCO fills pixels whose centers lie inside. So lines run a quarter of a pixel outside
the centers of a mask's outermost pixels, within these pixels, and both find the mask again, exactly. Pixel (0, 0) lies
from 0 to 1 in both directions, its center at one half, as it does in COCO and in labelme's window.

A hole is joined to the line around it by a seam, a line that is gone there and back. Filled by the even-odd rule the
seam vanishes, and as it runs within the mask, tools that also fill the line's pixels paint nothing more. A seam between
two parts runs outside the mask: there such tools paint a line of one pixel.

Letters: h, w size of a crop; M corners. Points are (x, y) in *pixels*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

# A part is joined to the nearest of so many before it, from left to right; all others would take quadratic time.
_NEIGHBORS = 16
# And of so many of their corners, evenly picked where there are more.
_CORNERS = 500

# How far a line runs outside the centers.
_QUARTER = 0.25
# The directions from west by south, east and north, 45 degrees apart: as those out of a mask follow each other along
# its border in the order of OpenCV, which has the mask on the left.
_COMPASS = np.array([(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)])


def _turns() -> np.ndarray:
    """Where a line is to pass in a pixel of the border: directions from its center, up to three, -1 for none, by the
    directions out of the mask before the pixel and, as a turn of 0 to 7, after it: [8, 8, 3].

    The odd directions are corners. Around a tip, turns of up to 4, the line passes all corners between, and into a nook
    it goes as far as both its sides.
    """
    table = np.full((8, 8, 3), -1)
    for before in range(8):
        for turn in range(8):
            if turn == 0:
                passed = [before]
            elif turn <= 4:
                passed = [n for n in range(before, before + turn + 1) if n % 2]
            elif turn == 6:
                passed = [before - 1]
            else:
                passed = [n for n in (before, before - 1, before - 2) if n % 2][-1:]
            table[before, turn, : len(passed)] = np.array(passed) % 8
    return table


_PASSED = _turns()
_DIRECTION_OF = np.zeros((3, 3), np.int64)  # by x and y, both from -1 to 1
_DIRECTION_OF[_COMPASS[:, 0] + 1, _COMPASS[:, 1] + 1] = np.arange(8)


class _Loop:
    """A closed line and what hangs on it: for positions in its points [M, 2], other loops, each entered at a position
    of its own."""

    def __init__(self, points: np.ndarray) -> None:
        self.points = points
        self.hung: dict[int, list[tuple[_Loop, int]]] = {}

    def hang(self, at: int, other: _Loop, entry: int) -> None:
        self.hung.setdefault(at, []).append((other, entry))

    def flat(self) -> np.ndarray:
        """This loop and all that hangs on it as one closed line, its first point not repeated."""
        pieces, walks = [], [self._walk(0)]
        while walks:
            step = next(walks[-1], None)
            if step is None:
                walks.pop()
            elif isinstance(step, np.ndarray):
                pieces.append(step)
            else:
                walks.append(step[0]._walk(step[1]))
        line = np.concatenate(pieces)
        return line[:-1] if len(line) > 1 else line

    def _walk(self, entry: int) -> Iterator[np.ndarray | tuple[_Loop, int]]:
        count, done = len(self.points), 0
        turned = np.roll(self.points, -entry, axis=0)
        for step, at in sorted(((at - entry) % count, at) for at in self.hung):
            yield turned[done : step + 1]
            for other, other_entry in self.hung[at]:
                yield other, other_entry
                yield turned[step : step + 1]
            done = step + 1
        yield turned[done:]
        yield turned[:1]


def part_outlines(crop: np.ndarray, top: int = 0, left: int = 0) -> list[np.ndarray]:
    """The outlines of a mask, one for each part of it, holes included.

    Args:
        crop: [h, w] bool: the part of the image that the mask lies in.
        top: first row of the crop in the image.
        left: its first column.

    Returns:
        For each part, 8-connected, its corners [M, 2] float64 in pixels of the image, M at least 4. Filled one by one,
        by the even-odd rule, they are the mask.
    """
    return [_corners(loop.flat()) + np.array([left, top]) for loop in _loops(crop)]


def one_outline(crop: np.ndarray, top: int = 0, left: int = 0) -> tuple[np.ndarray, int]:
    """As `part_outlines`, with the parts joined as well.

    Returns:
        The corners [M, 2] float64, none for an empty mask; and how many parts there are.
    """
    loops = _loops(crop)
    if not loops:
        return np.zeros((0, 2)), 0
    return _corners(_joined(loops).flat()) + np.array([left, top]), len(loops)


def joined(outlines: Sequence[np.ndarray]) -> np.ndarray:
    """Outlines [M, 2] of parts that do not overlap, at least one, as one outline [M, 2]."""
    return _joined([_Loop(np.asarray(outline)) for outline in outlines]).flat()


def _loops(crop: np.ndarray) -> list[_Loop]:
    """The parts of a mask as lines through all their border pixels, with those around their holes hung on them."""
    if crop.size == 0:
        return []
    pixels = np.ascontiguousarray(crop, bool).view(np.uint8)
    contours, tree = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if len(contours) == 0:
        return []
    borders = [contour[:, 0] for contour in contours]
    loops, firsts = zip(*map(_loop_of, borders), strict=True)
    is_hole = tree[0, :, 3] >= 0
    holes = sorted(np.flatnonzero(is_hole).tolist(), key=lambda n: borders[n][:, 0].min())
    if holes:
        # From a hole's first column left to the last pixel of the mask: there another line passes. It is a part's, or
        # that of a hole that begins further left. Where several pass, the one painted last counts, so those first.
        owner, position = np.zeros(crop.shape, np.int32), np.zeros(crop.shape, np.int32)
        for n in [*reversed(holes), *np.flatnonzero(~is_hole)]:
            x, y = borders[n].T
            owner[y, x], position[y, x] = n, firsts[n]
        for n in holes:
            entry = int(borders[n][:, 0].argmin())
            x, y = borders[n][entry].tolist()
            gap = np.flatnonzero(pixels[y, :x] == 0)
            x = int(gap[-1]) + 1 if len(gap) else 0
            loops[owner[y, x]].hang(int(position[y, x]), loops[n], int(firsts[n][entry]))
    return [loops[n] for n in np.flatnonzero(~is_hole)]


def _loop_of(border: np.ndarray) -> tuple[_Loop, np.ndarray]:
    """The line through the pixels of a border [P, (x, y)], and for each of them the position of its first point."""
    if len(border) == 1:
        return _Loop(border + 0.5 + _QUARTER * _COMPASS[1::2]), np.zeros(1, np.int64)
    step = np.roll(border, -1, axis=0) - border
    after = _DIRECTION_OF[1 - step[:, 1], 1 + step[:, 0]]  # the mask is on the left: out of it is to the right
    before = np.roll(after, 1)
    passed = _PASSED[before, (after - before) % 8]
    points = border[:, None] + 0.5 + _QUARTER * _COMPASS[passed]
    counts = np.count_nonzero(passed >= 0, axis=1)
    return _Loop(points[passed >= 0]), np.cumsum(counts) - counts


def _joined(loops: Sequence[_Loop]) -> _Loop:
    """Loops hung on one of them, from left to right, each by a short line."""
    ordered = sorted(loops, key=lambda loop: loop.points[:, 0].min())
    for n, loop in enumerate(ordered[1:], start=1):
        best = None
        ends = _some_corners(loop.points)
        for other in ordered[max(0, n - _NEIGHBORS) : n]:
            starts = _some_corners(other.points)
            way = other.points[starts][:, None].astype(np.float64) - loop.points[ends][None]
            lengths = np.einsum("ijk,ijk->ij", way, way)
            start, end = np.unravel_index(lengths.argmin(), lengths.shape)
            if best is None or lengths[start, end] < best[0]:
                best = lengths[start, end], other, int(starts[start]), int(ends[end])
        _, other, start, end = best
        other.hang(start, loop, end)
    return ordered[0]


def _some_corners(points: np.ndarray) -> np.ndarray:
    """Positions of up to `_CORNERS` points of a line."""
    return np.linspace(0, len(points) - 1, min(len(points), _CORNERS)).astype(int)


def _corners(line: np.ndarray) -> np.ndarray:
    """A closed line of whole quarters without the points at which it goes straight on, and so do its pixels."""
    repeated = (line == np.roll(line, 1, axis=0)).all(axis=1)
    line = line[~repeated]
    return line[~(_goes_straight(line) & _goes_straight(np.floor(line)))]


def _goes_straight(line: np.ndarray) -> np.ndarray:
    before, after = line - np.roll(line, 1, axis=0), np.roll(line, -1, axis=0) - line
    turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return (turns == 0) & (np.einsum("ij,ij->i", before, after) > 0)


def crop_of_outlines(outlines: Sequence[np.ndarray], image_shape: Sequence[int]) -> tuple[np.ndarray, int, int]:
    """The mask of outlines that are filled together by the even-odd rule, the pixels on their lines included: the way
    back from `mrcnn.data.masks.polygons_of_crop`.

    Args:
        outlines: [M, 2] each; they are cut off to whole pixels. What lies outside the image is left out.
        image_shape: (H, W, ...).

    Returns:
        The part of the image that they lie in [h, w] bool, its first row and its first column there.
    """
    corners = [np.asarray(outline, np.int32).reshape(-1, 2) for outline in outlines]
    corners = [each for each in corners if len(each)]
    if not corners:
        return np.zeros((0, 0), bool), 0, 0
    low = np.min([each.min(axis=0) for each in corners], axis=0)
    high = np.max([each.max(axis=0) for each in corners], axis=0) + 1
    first, last = np.clip(low, 0, None), np.minimum(high, (image_shape[1], image_shape[0]))
    if (first >= last).any():
        return np.zeros((0, 0), bool), 0, 0
    canvas = np.zeros((int(last[1] - first[1]), int(last[0] - first[0])), np.uint8)
    cv2.fillPoly(canvas, [each - first.astype(np.int32) for each in corners], 1)
    return canvas.view(bool), int(first[1]), int(first[0])
