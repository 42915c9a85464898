"""Many small pictures on one, each with a title and a remark. Pictures are uint8 RGB [H, W, 3], lengths in pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mrcnn.lettering import extent_of_text, font_of, line_height, shortened, write

# Colors of the sheet.
_GROUND, _CARD = (24, 26, 30), (38, 41, 47)
_BRIGHT, _PALE = (236, 238, 242), (152, 158, 168)
REMARK_COLORS = {"error": (255, 118, 110), "warning": (250, 196, 84), "note": _PALE}

_MARGIN, _GAP, _PAD = 24, 14, 10
_LETTERS, _SMALL, _HEADING = 15, 13, 22
_REMARK_LINES = 2
_MOST_IN_LEGEND = 24
# A sheet of pictures this wide or wider has as many columns as fit here.
_WIDTH = 1500


@dataclass(frozen=True)
class Tile:
    """A picture on a sheet.

    Attributes:
        picture: uint8 [h, w, 3].
        title: one line, such as the name of a file.
        remark: up to two lines, in the color of its level.
        level: of `REMARK_COLORS`.
    """

    picture: np.ndarray
    title: str
    remark: str = ""
    level: str = "note"


def contact_sheet(
    tiles: Sequence[Tile],
    heading: str = "",
    explanation: str = "",
    legend: Mapping[str, Sequence[float]] | None = None,
    columns: int | None = None,
) -> np.ndarray:
    """Lay pictures out on a sheet, row after row.

    Args:
        tiles: as they are to follow each other.
        heading: a line above them.
        explanation: a smaller one below that.
        legend: names with their colors, each (red, green, blue) from 0 to 1.
        columns: of pictures. None: as many as make a sheet of common width.

    Returns:
        uint8 [H, W, 3].
    """
    wide = max([tile.picture.shape[1] for tile in tiles], default=320)
    columns = columns or max(1, min(len(tiles), _WIDTH // (wide + 2 * _PAD + _GAP)))
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    card = wide + 2 * _PAD
    width = max(2 * _MARGIN + columns * (card + _GAP) - _GAP, 480)
    entries = _legend_places(legend or {}, width)
    top = _MARGIN + line_height(_HEADING) * bool(heading) + line_height(_LETTERS) * bool(explanation)
    top += _legend_height(entries) + (_GAP if top > _MARGIN else 0)
    remark_lines = [max(_lines_of(tile.remark, wide) for tile in row) for row in rows]
    heights = [
        max(tile.picture.shape[0] for tile in row) + _PAD * 2 + line_height(_LETTERS) + line_height(_SMALL) * lines
        for row, lines in zip(rows, remark_lines, strict=True)
    ]
    sheet = np.empty((top + sum(heights) + _GAP * max(len(rows) - 1, 0) + _MARGIN, width, 3), np.uint8)
    sheet[:] = _GROUND
    _write_head(sheet, heading, explanation, entries)
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            _place(sheet[top : top + height, _MARGIN + column * (card + _GAP) :][:, :card], tile)
        top += height + _GAP
    return sheet


def _place(area: np.ndarray, tile: Tile) -> None:
    area[:] = _CARD
    high, wide = tile.picture.shape[:2]
    left = (area.shape[1] - wide) // 2
    area[_PAD : _PAD + high, left : left + wide] = tile.picture
    right, y = area.shape[1] - _PAD, _PAD + high + _PAD // 2
    write(area, tile.title, _PAD, y, right, _LETTERS, _BRIGHT)
    y += line_height(_LETTERS)
    for line in _wrap(tile.remark, right - _PAD):
        write(area, line, _PAD, y, right, _SMALL, REMARK_COLORS[tile.level])
        y += line_height(_SMALL)


def _lines_of(remark: str, wide: int) -> int:
    return len(_wrap(remark, wide))


def _wrap(text: str, wide: int) -> list[str]:
    """A text in lines of so many pixels, two at most; of what does not fit the begin."""
    font, words, lines = font_of(_SMALL), text.split(), []
    while words and len(lines) < _REMARK_LINES - 1:
        count = 1
        while count < len(words) and extent_of_text(" ".join(words[: count + 1]), font)[1] <= wide:
            count += 1
        lines.append(shortened(" ".join(words[:count]), font, wide))
        words = words[count:]
    return [*lines, shortened(" ".join(words), font, wide)] if words else lines


def _write_head(
    sheet: np.ndarray, heading: str, explanation: str, entries: Sequence[tuple[str, Sequence[float], int, int]]
) -> None:
    y, right = _MARGIN, sheet.shape[1] - _MARGIN
    if heading:
        write(sheet, heading, _MARGIN, y - 6, right, _HEADING, _BRIGHT)
        y += line_height(_HEADING)
    if explanation:
        write(sheet, explanation, _MARGIN, y - 4, right, _LETTERS, _PALE)
        y += line_height(_LETTERS)
    for name, color, left, row in entries:
        place = y + 6 + row * line_height(_LETTERS)
        mark = sheet[place + 5 : place + 17, left : left + 12]
        mark[:] = np.rint(np.asarray(color) * 255)
        write(sheet, name, left + 19, place, right, _LETTERS, _BRIGHT)


def _legend_places(legend: Mapping[str, Sequence[float]], width: int) -> list[tuple[str, Sequence[float], int, int]]:
    """Name, color, column of pixels and row of each entry."""
    font, left, row, places = font_of(_LETTERS), _MARGIN, 0, []
    for name, color in list(legend.items())[:_MOST_IN_LEGEND]:
        name = shortened(name, font, width / 3)
        wide = 19 + math.ceil(extent_of_text(name, font)[1]) + 24
        if left > _MARGIN and left + wide > width - _MARGIN:
            left, row = _MARGIN, row + 1
        places.append((name, color, left, row))
        left += wide
    return places


def _legend_height(entries: Sequence[tuple[str, Sequence[float], int, int]]) -> int:
    return (entries[-1][3] + 1) * line_height(_LETTERS) + 6 if entries else 0
