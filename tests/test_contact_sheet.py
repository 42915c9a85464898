"""Sheets of small pictures, and the letters on them."""

from __future__ import annotations

import numpy as np
import pytest

from mrcnn import lettering
from mrcnn.contact_sheet import REMARK_COLORS, Tile, contact_sheet
from mrcnn.lettering import extent_of_text, font_of, line_height, shortened, write

GREEN = (0, 200, 0)


def tile(height, width, color=GREEN, **words):
    return Tile(np.full((height, width, 3), color, np.uint8), **{"title": "a.png", **words})


def places(sheet, color):
    return np.argwhere((sheet == np.array(color, np.uint8)).all(axis=-1))


def test_every_picture_is_there_unchanged_in_reading_order():
    rng = np.random.default_rng(0)
    colors = rng.permutation(np.arange(60, 240)).reshape(-1, 3)[:7]
    shapes = [(40, 64), (64, 64), (64, 30), (20, 64), (64, 64), (64, 64), (1, 1)]
    sheet = contact_sheet([tile(*shape, color) for shape, color in zip(shapes, colors, strict=True)], columns=3)
    corners = []
    for (height, width), color in zip(shapes, colors, strict=True):
        there = places(sheet, color)
        assert len(there) == height * width
        low, high = there.min(axis=0), there.max(axis=0) + 1
        assert (high - low).tolist() == [height, width]
        corners.append(low.tolist())
    rows = [[corner[0] for corner in corners[i : i + 3]] for i in (0, 3, 6)]
    assert [len(set(row)) for row in rows] == [1, 1, 1] and rows[0][0] < rows[1][0] < rows[2][0]
    assert corners[0][1] < corners[1][1] < corners[2][1]


def test_remarks_are_in_the_color_of_their_level():
    for level, color in REMARK_COLORS.items():
        plain = contact_sheet([tile(64, 200)])
        sheet = contact_sheet([tile(64, 200, remark="it is broken", level=level)])
        near = (np.abs(sheet.astype(int) - color).max(axis=-1) < 12).sum()
        assert near > 10 and sheet.shape[0] > plain.shape[0]
    long = contact_sheet([tile(64, 200, remark="many words of a long story " * 20)])
    short = contact_sheet([tile(64, 200, remark="many words of a long story")])
    assert long.shape == (short.shape[0] + line_height(13) * (long.shape[0] > short.shape[0]), short.shape[1], 3)


def test_legend_and_heading():
    legend = {f"class number {n}": color for n, color in enumerate(np.eye(3).tolist() * 4)}
    sheet = contact_sheet([tile(64, 64)], "heading", "explanation", dict(list(legend.items())[:1]))
    assert len(places(sheet, (255, 0, 0))) >= 100
    tall = contact_sheet([tile(64, 64)], "heading", "explanation", legend)
    assert (
        len(places(tall, (255, 0, 0))) >= 400
        and tall.shape[0] > sheet.shape[0] > contact_sheet([tile(64, 64)]).shape[0]
    )
    assert contact_sheet([], "nothing").ndim == 3


def test_many_pictures_are_no_wider_than_a_screen():
    sheet = contact_sheet([tile(32, 320)] * 30)
    assert sheet.shape[1] < 1600


@pytest.mark.parametrize("pillow", [True, False], ids=["Pillow", "OpenCV"])
def test_text_is_cut_where_it_must_end(pillow, monkeypatch):
    if not pillow:
        monkeypatch.setattr(lettering, "Image", None)
    font_of.cache_clear()
    font = font_of(15)
    assert shortened("short", font, 200) == "short"
    for width in (0, 20, 60, 100):
        cut = shortened("a text that is much too long for this", font, width)
        assert cut.endswith("…") and (extent_of_text(cut, font)[1] <= width or cut == "…")
    canvas = np.zeros((30, 100, 3), np.uint8)
    write(canvas, "a text that is much too long for this", 10, 4, 60, 15, (255, 0, 0))
    assert canvas[..., 0].max() > 200 and not canvas[..., 1:].any()
    columns = np.flatnonzero(canvas[..., 0].any(axis=0))
    assert columns[0] >= 10 and columns[-1] < 60
    write(canvas, "below the picture", 0, 40, 60, 15, (255, 0, 0))
    font_of.cache_clear()
