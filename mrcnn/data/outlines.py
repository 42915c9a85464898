"""Masks as closed lines, for formats that know one outline where a mask has holes and several parts.

A hole is joined to the line around it by a seam, a line that is gone there and back. Filled by the even-odd rule the
seam vanishes, and as it runs within the mask, tools that also draw the line, as OpenCV and Pillow do, paint nothing
more. A seam between two parts runs outside the mask: there such tools paint a line of one pixel.

Letters: h, w size of a crop; M corners. Points are (x, y) in *pixels*, pixel centers having whole coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

# A part is joined to the nearest of so many before it, from left to right; all others would take quadratic time.
_NEIGHBORS = 16
# And of so many of their corners, evenly picked where there are more.
_CORNERS = 500


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

    They run along the centers of the outermost pixels. Filled one by one, lines included and by the even-odd rule, as
    `cv2.fillPoly(image, [outline], 1)` does it, they are the mask again, exactly.

    Args:
        crop: [h, w] bool: the part of the image that the mask lies in.
        top: first row of the crop in the image.
        left: its first column.

    Returns:
        For each part, 8-connected, its corners [M, 2] int32 in pixels of the image, M at least 3: those of a part as
        small as one pixel or two are repeated.
    """
    corner = np.array([left, top], np.int32)
    return [_three_corners(_corners(loop.flat())) + corner for loop in _loops(crop)]


def one_outline(crop: np.ndarray, top: int = 0, left: int = 0) -> tuple[np.ndarray, int]:
    """As `part_outlines`, with the parts joined as well.

    Returns:
        The corners [M, 2] int32, none for an empty mask; and how many parts there are.
    """
    loops = _loops(crop)
    if not loops:
        return np.zeros((0, 2), np.int32), 0
    return _three_corners(_corners(_joined(loops).flat())) + np.array([left, top], np.int32), len(loops)


def joined(outlines: Sequence[np.ndarray]) -> np.ndarray:
    """Outlines [M, 2] of parts that do not overlap, at least one, as one outline [M, 2]."""
    return _joined([_Loop(np.asarray(outline)) for outline in outlines]).flat()


def _loops(crop: np.ndarray) -> list[_Loop]:
    """The parts of a mask as lines of all their border pixels, with those around their holes hung on them."""
    if crop.size == 0:
        return []
    pixels = np.ascontiguousarray(crop, bool).view(np.uint8)
    contours, tree = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if len(contours) == 0:
        return []
    loops = [_Loop(contour[:, 0]) for contour in contours]
    is_hole = tree[0, :, 3] >= 0
    holes = sorted(np.flatnonzero(is_hole).tolist(), key=lambda n: loops[n].points[:, 0].min())
    if holes:
        # From a hole's first column left to the last pixel of the mask: there another line passes. It is a part's, or
        # that of a hole that begins further left. Where several pass, the one painted last counts, so those first.
        owner, position = np.zeros(crop.shape, np.int32), np.zeros(crop.shape, np.int32)
        for n in [*reversed(holes), *np.flatnonzero(~is_hole)]:
            x, y = loops[n].points.T
            owner[y, x], position[y, x] = n, np.arange(len(x))
        for n in holes:
            entry = int(loops[n].points[:, 0].argmin())
            x, y = loops[n].points[entry].tolist()
            gap = np.flatnonzero(pixels[y, :x] == 0)
            x = int(gap[-1]) + 1 if len(gap) else 0
            loops[owner[y, x]].hang(int(position[y, x]), loops[n], entry)
    return [loops[n] for n in np.flatnonzero(~is_hole)]


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
    """A closed line without the points at which it goes straight on."""
    if len(line) < 3:
        return line
    before, after = line - np.roll(line, 1, axis=0), np.roll(line, -1, axis=0) - line
    before, after = before.astype(np.int64), after.astype(np.int64)
    turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    straight = (turns == 0) & (np.einsum("ij,ij->i", before, after) > 0)
    repeated = (before == 0).all(axis=1)
    kept = line[~(straight | repeated)]
    return kept if len(kept) else line[:1]


def _three_corners(line: np.ndarray) -> np.ndarray:
    return np.concatenate([line, np.repeat(line[-1:], 3 - len(line), axis=0)]) if 0 < len(line) < 3 else line


def crop_of_outlines(outlines: Sequence[np.ndarray], image_shape: Sequence[int]) -> tuple[np.ndarray, int, int]:
    """The mask of outlines that are filled together by the even-odd rule, their lines included: the way back from
    `part_outlines` and from `mrcnn.data.masks.polygons_of_crop`.

    Args:
        outlines: [M, 2] int each. What lies outside the image is left out.
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
