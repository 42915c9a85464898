"""Charts as SVG text, to be set into an HTML page whose style sheet (`mrcnn.report.style`) gives them their colors, so
that they follow the reader's light or dark mode.

A series is (its name, its x values, its y values); None among the y values is a gap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

Series = tuple[str, Sequence[float], Sequence[float | None]]

# Widths of a chart that stands alone and of one that has another beside it: about as many pixels as on the page.
WIDE, NARROW = 900, 470
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 12, 36
_LETTER = 6.6  # the width of one, at most on average
_MOST_DOTS = 60  # more points than these run into each other


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str = "epoch",
    marked: float | None = None,
    marked_label: str = "best",
    width: int = NARROW,
    height: int = 220,
) -> str:
    """Lines over a shared x axis.

    Args:
        title: what the chart shows; read out by screen readers, not drawn.
        series: at most four.
        x_label: below the axis.
        marked: an x value to draw an upright line at.
        marked_label: beside that line.
        width, height: of the picture.

    Returns:
        "" where there is nothing to draw.
    """
    points = [[(x, y) for x, y in zip(xs, ys, strict=True)] for _, xs, ys in series]
    flat = [(x, y) for line in points for x, y in line if y is not None and math.isfinite(y)]
    if not flat:
        return ""
    x_low, x_high = min(x for x, _ in flat), max(x for x, _ in flat)
    y_low, y_high = min(y for _, y in flat), max(y for _, y in flat)
    if 0 < y_low < 0.4 * y_high:
        y_low = 0.0
    y_ticks = ticks(y_low, y_high)
    y_low, y_high = min(y_low, y_ticks[0]), max(y_high, y_ticks[-1])
    frame = _Frame(x_low, x_high, y_low, y_high, width, height)
    parts = [_y_axis(frame, y_ticks), _x_axis(frame, [t for t in ticks(x_low, x_high) if t == round(t)], x_label)]
    if marked is not None and x_low <= marked <= x_high:
        x = frame.x(marked)
        side = "end" if x > width * 0.8 else "start"
        parts.append(
            f'<line class="marked" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>'
            f'<text class="marked" x="{x + (-4 if side == "end" else 4):.1f}" y="{_TOP + 9}" text-anchor="{side}">'
            f"{escape(marked_label)}</text>"
        )
    for number, ((name, _, _), line) in enumerate(zip(series, points, strict=True), start=1):
        parts.append(_line(frame, number, name, line, x_label))
    return _svg(frame, title, parts)


def bar_chart(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    x_label: str,
    width: int = NARROW,
    height: int = 220,
) -> str:
    """Groups of upright bars, one group a label; each series' y values are as many, its x values are not looked at.

    Returns:
        "" where there is nothing above 0.
    """
    values = [[float(y or 0) for y in ys] for _, _, ys in series]
    most = max((v for row in values for v in row), default=0)
    if most <= 0:
        return ""
    y_ticks = ticks(0, most)
    frame = _Frame(0, len(labels), 0, max(most, y_ticks[-1]), width, height)
    parts = [_y_axis(frame, y_ticks)]
    slot = frame.x(1) - frame.x(0)
    thick = slot * 0.78 / len(series)
    every = math.ceil((max(map(len, labels)) + 2) * _LETTER / slot)  # names that would run into each other are left out
    for place, label in enumerate(labels):
        if place % every == 0:
            parts.append(
                f'<text x="{frame.x(place + 0.5):.1f}" y="{height - _BOTTOM + 14}" text-anchor="middle">'
                f"{escape(label)}</text>"
            )
        for number, ((name, _, _), row) in enumerate(zip(series, values, strict=True), start=1):
            x, y = frame.x(place) + slot * 0.11 + (number - 1) * thick, frame.y(row[place])
            parts.append(
                f'<rect class="s{number}" x="{x:.1f}" y="{y:.1f}" width="{max(thick - 1, 1):.1f}" '
                f'height="{max(frame.y(0) - y, 0):.1f}"><title>{escape(name)}, {escape(label)}: '
                f"{number_text(row[place])}</title></rect>"
            )
    parts.append(_x_title(frame, x_label))
    return _svg(frame, title, parts)


def legend(names: Sequence[str]) -> str:
    """The names of series with their colors, as HTML."""
    keys = (
        f'<span class="key"><svg viewBox="0 0 22 8" width="22" height="8" aria-hidden="true">'
        f'<path class="l{number}" d="M1 4H21"/></svg>{escape(name)}</span>'
        for number, name in enumerate(names, start=1)
    )
    return f'<div class="legend">{"".join(keys)}</div>'


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from below `low` or at it to above `high` or at it."""
    span = high - low or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / count))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step)) + 1)
    return [round(n * step, digits) for n in range(first, max(last, first + 1) + 1)]


def number_text(value: float) -> str:
    """A number as people write it, of at most four digits behind the point."""
    if value == round(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) >= 1e-4 else f"{value:.1e}"


class _Frame:
    """From values to places in the picture."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float, width: int, height: int) -> None:
        self.x_low, self.x_span = x_low, (x_high - x_low) or 1.0
        self.y_low, self.y_span = y_low, (y_high - y_low) or 1.0
        self.single = x_high == x_low
        self.width, self.height = width, height

    def x(self, value: float) -> float:
        share = 0.5 if self.single else (value - self.x_low) / self.x_span
        return _LEFT + share * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / self.y_span
        return self.height - _BOTTOM - share * (self.height - _TOP - _BOTTOM)


def _svg(frame: _Frame, title: str, parts: Sequence[str]) -> str:
    kind = "chart wide" if frame.width > NARROW else "chart"
    return (
        f'<svg class="{kind}" viewBox="0 0 {frame.width} {frame.height}" role="img" '
        f'aria-label="{escape(title, quote=True)}"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def _y_axis(frame: _Frame, values: Sequence[float]) -> str:
    return "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{frame.width - _RIGHT}" y1="{frame.y(v):.1f}" y2="{frame.y(v):.1f}"/>'
        f'<text x="{_LEFT - 7}" y="{frame.y(v) + 4:.1f}" text-anchor="end">{number_text(v)}</text>'
        for v in values
    )


def _x_axis(frame: _Frame, values: Sequence[float], label: str) -> str:
    high = frame.x_low + (0 if frame.single else frame.x_span)
    marks = "".join(
        f'<text x="{frame.x(v):.1f}" y="{frame.height - _BOTTOM + 14}" text-anchor="middle">{number_text(v)}</text>'
        for v in values
        if frame.x_low <= v <= high
    )
    return marks + _x_title(frame, label)


def _x_title(frame: _Frame, label: str) -> str:
    return (
        f'<text class="axis" x="{frame.width - _RIGHT}" y="{frame.height - 4}" text-anchor="end">{escape(label)}</text>'
    )


def _line(frame: _Frame, number: int, name: str, line: Sequence[tuple[float, float | None]], x_label: str) -> str:
    path, pen_down, dots = [], False, []
    known = [(x, y) for x, y in line if y is not None and math.isfinite(y)]
    # Epochs between two measurements are no gap in what is measured every few epochs.
    for x, y in known:
        path.append(f"{'L' if pen_down else 'M'}{frame.x(x):.1f} {frame.y(y):.1f}")
        pen_down = True
    if len(known) <= _MOST_DOTS:
        dots = [
            f'<circle class="d{number}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3">'
            f"<title>{escape(name)}, {escape(x_label)} {number_text(x)}: {number_text(y)}</title></circle>"
            for x, y in known
        ]
    return f'<path class="l{number}" d="{"".join(path)}"/>{"".join(dots)}'
