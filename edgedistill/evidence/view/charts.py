"""Charts as plain SVG text: intervals, bars, stacked bars, lines.

Own code and no plotting library: the report is one small offline file whose text stays selectable
and whose colours follow the reader's light or dark scheme. Colours, fonts and patterns live in
`templates/chart.css`. Each function takes facts and gives `Markup`; a value that is `None` or not
finite is not drawn, its row says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

from edgedistill.evidence.view import svg
from edgedistill.evidence.view.figures import short
from edgedistill.evidence.view.svg import PAD, WIDTH

ROW = 48.0
Kind = Literal["plain", "strong", "quiet", "target", "proxy", "predicted"]


@dataclass(frozen=True)
class Dot:
    """One row of an interval chart: a value with its bounds, how it is written, and small dots beside it."""

    label: str
    text: str
    value: float | None
    low: float | None = None
    high: float | None = None
    kind: Kind = "plain"
    beside: Sequence[float] = ()


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart from zero; `low` and `high` are its whisker or a predicted band."""

    label: str
    text: str
    value: float | None
    low: float | None = None
    high: float | None = None
    kind: Kind = "plain"


@dataclass(frozen=True)
class Stack:
    """One row of a stacked chart: parts as `(name, value, text)`."""

    label: str
    text: str
    parts: Sequence[tuple[str, float, str]]


@dataclass(frozen=True)
class Line:
    """One line of a line chart: points as `(x, y)`; `style` is its place in the chart where it is `None`."""

    label: str
    points: Sequence[tuple[float, float]]
    style: int | None = None
    faint: bool = False


def head(y: float, label: str, text: str) -> list[str]:
    """The words above a row: what it is, and its number at the right."""
    room = max(12, 50 - len(text))
    return [
        svg.text("label", 0, y + 13, short(label, room)),
        svg.text("value", WIDTH, y + 13, short(text, 40), "end"),
    ]


def _axis(
    y: float, low: float, high: float, x: Callable[[float], float], write: Callable[[float], str]
) -> list[str]:
    marks = []
    for value in svg.ticks(low, high, 4):
        at = x(value)
        anchor = "start" if at < 16 else "end" if at > WIDTH - 16 else "middle"
        marks.append(svg.rule("grid", at, 0, at, y))
        marks.append(svg.text("tick", at, y + 15, write(value), anchor))
    return marks


def intervals(
    title: str,
    desc: str,
    rows: Sequence[Dot],
    write: Callable[[float], str],
    zero: bool = False,
) -> Markup:
    """Dots with whiskers on one shared axis that need not begin at zero; `zero` draws a line there."""
    seen = [v for row in rows for v in (row.value, row.low, row.high, *row.beside)]
    low, high = svg.span_of([*seen, 0.0] if zero else seen)

    def x(value: float) -> float:
        return PAD + (value - low) / (high - low) * (WIDTH - 2 * PAD)

    bottom = len(rows) * ROW
    body = _axis(bottom, low, high, x, write)
    for i, row in enumerate(rows):
        top = i * ROW
        middle = top + 29
        body += head(top, row.label, row.text)
        body.append(svg.rule("track", 0, middle, WIDTH, middle))
        if zero:
            body.append(svg.rule("zero-line", x(0.0), middle - 10, x(0.0), middle + 10))
        ends = svg.known([row.low, row.high])
        if len(ends) == 2:
            left, right = x(ends[0]), x(ends[1])
            body.append(svg.rule(f"whisker {row.kind}", left, middle, right, middle))
            body += [
                svg.rule(f"whisker {row.kind}", e, middle - 5, e, middle + 5) for e in (left, right)
            ]
        body += [svg.circle("beside", x(value), middle, 3) for value in svg.known(row.beside)]
        body += [svg.circle(f"dot {row.kind}", x(v), middle, 5.5) for v in svg.known([row.value])]
    return svg.svg("intervals", title, desc, bottom + 22, body)


def _bar(row: Bar, top: float, x: Callable[[float], float]) -> list[str]:
    body = [svg.rect("track-bar", 0, top, WIDTH, 14)]
    value = next(iter(svg.known([row.value])), None)
    ends = svg.known([row.low, row.high])
    if row.kind == "predicted" and len(ends) == 2:
        left, right = x(max(ends[0], 0)), x(max(ends[1], 0))
        body.append(svg.rect("bar predicted", left, top, max(right - left, 1.5), 14))
        if value is not None:
            at = x(max(value, 0))
            body.append(svg.rule("point predicted", at, top - 2, at, top + 16))
    elif value is not None:
        body.append(svg.rect(f"bar {row.kind}", 0, top, max(x(max(value, 0)), 1.5), 14))
        if len(ends) == 2:
            left, right = x(max(ends[0], 0)), x(max(ends[1], 0))
            body.append(svg.rule("whisker bar-whisker", left, top + 7, right, top + 7))
            body.append(svg.rule("whisker bar-whisker", right, top + 3, right, top + 11))
    return body


def bars(
    title: str,
    desc: str,
    rows: Sequence[Bar],
    write: Callable[[float], str],
    limit: float | None = None,
    limit_text: str = "",
) -> Markup:
    """Bars from zero: measured ones solid, predicted ones a dashed band, the limit a line."""
    known = svg.known([v for row in rows for v in (row.value, row.low, row.high)] + [limit])
    high = max([*known, 0.0]) * 1.06 or 1.0

    def x(value: float) -> float:
        return min(value / high, 1.0) * WIDTH

    bottom = len(rows) * ROW
    body = _axis(bottom, 0.0, high, x, write)
    for i, row in enumerate(rows):
        body += _bar(row, i * ROW + 21, x)
    height = bottom + 22
    for value in svg.known([limit]):
        at = x(max(value, 0))
        body.append(svg.rule("limit", at, 0, at, bottom + 2))
        anchor = "start" if at < 60 else "end" if at > WIDTH - 60 else "middle"
        body.append(svg.text("limit-text", at, bottom + 32, limit_text, anchor))
        height = bottom + 38
    for i, row in enumerate(rows):
        body += head(i * ROW, row.label, row.text)
    return svg.svg("bars", title, desc, height, body)


def stacked(title: str, desc: str, rows: Sequence[Stack], write: Callable[[float], str]) -> Markup:
    """Bars cut into parts with a legend; a part has the same colour in every row."""
    names = list(dict.fromkeys(name for row in rows for name, _, _ in row.parts))
    colour = {name: f"part c{min(i, 5)}" for i, name in enumerate(names)}
    totals = [sum(svg.known([max(v, 0.0) for _, v, _ in row.parts])) for row in rows]
    high = max([*totals, 0.0]) * 1.02 or 1.0

    def x(value: float) -> float:
        return value / high * WIDTH

    bottom = len(rows) * ROW
    body = _axis(bottom, 0.0, high, x, write)
    for i, row in enumerate(rows):
        body += head(i * ROW, row.label, row.text)
        body.append(svg.rect("track-bar", 0, i * ROW + 21, WIDTH, 14))
        at = 0.0
        for name, value, text in row.parts:
            for known in svg.known([max(value, 0.0)]):
                tip = f"{short(name)}: {text}"
                body.append(svg.rect(colour[name], x(at), i * ROW + 21, x(known), 14, tip))
                at += known
    items = "".join(
        f'<li><span class="swatch {colour[name]}"></span>{escape(short(name))}</li>'
        for name in names
    )
    chart = svg.svg("stacked", title, desc, bottom + 22, body)
    return chart + Markup(f'<ul class="legend">{items}</ul>' if items else "")


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{svg.digits(round(px, 1))},{svg.digits(round(py, 1))}" for px, py in points)


def lines(
    title: str,
    desc: str,
    series: Sequence[Line],
    write: Callable[[float], str],
    write_x: Callable[[float], str] | None = None,
    most_points: int = 150,
) -> Markup:
    """Lines over epochs, or from zero on over what `write_x` writes, with a legend.

    Long lines are thinned to `most_points` points and their last.
    """
    height, left, bottom = 230.0, 46.0, 200.0
    kept = [(line, _thinned(line.points, most_points)) for line in series]
    every = [point for _, good in kept for point in good]
    low, high = svg.span_of([py for _, py in every])
    first, last = (min(px for px, _ in every), max(px for px, _ in every)) if every else (0.0, 1.0)
    first = first if write_x is None else min(first, 0.0)
    width = (last - first) or 1.0

    def place(px: float, py: float) -> tuple[float, float]:
        across = (px - first) / width * (WIDTH - left - PAD)
        return left + across, PAD + (high - py) / (high - low) * (bottom - PAD)

    body = []
    for value in svg.ticks(low, high, 4):
        _, y = place(first, value)
        body += [
            svg.rule("grid", left, y, WIDTH, y),
            svg.text("tick", left - 6, y + 4, write(value), "end"),
        ]
    marks = svg.ticks(first, last, 6)
    if write_x is None:
        marks = [t for t in marks if float(t).is_integer()] or [first]
    for value in marks:
        at, _ = place(value, low)
        anchor = "end" if at > WIDTH - 16 else "middle"
        written = f"{value:.0f}" if write_x is None else write_x(value)
        body.append(svg.text("tick", at, bottom + 18, written, anchor))
    items = ""
    for i, (line, good) in enumerate(kept):
        css = f"l{(i if line.style is None else line.style) % 5}{' faint' if line.faint else ''}"
        spots = [place(px, py) for px, py in good]
        if spots:
            body.append(f'<polyline class="line {css}" points="{_path(spots)}"/>')
            body.append(svg.circle(f"end {css}", *spots[-1], 3.5))
            items += f'<li><span class="stroke {css}"></span>{escape(short(line.label))}</li>'
    chart = svg.svg("lines", title, desc, height, body)
    return chart + Markup(f'<ul class="legend">{items}</ul>' if items else "")


def _thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    good = [(px, py) for px, py in points if len(svg.known([px, py])) == 2]
    step = max(1, math.ceil(len(good) / most))
    return good[::step] + ([good[-1]] if (len(good) - 1) % step else [])
