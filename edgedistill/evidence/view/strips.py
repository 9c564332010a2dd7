"""A chart of whole distributions: a strip for each, with a mark for every percentile, on one logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgedistill.evidence.view import svg
from edgedistill.evidence.view.charts import ROW, Kind, head
from edgedistill.evidence.view.figures import milliseconds
from edgedistill.evidence.view.svg import PAD, WIDTH

MOST_MARKS = 400
NEAR = 3.0
"""A limit farther from every run than so many times is left out, or the runs would be squeezed into a corner."""


@dataclass(frozen=True)
class Strip:
    """One distribution: percentiles of the samples in seconds, equally spaced, and bounds as `(name, seconds)`."""

    label: str
    text: str
    quantiles: Sequence[float]
    bounds: Sequence[tuple[str, float]]
    kind: Kind


def strips(
    title: str, desc: str, rows: Sequence[Strip], limit: float | None = None, limit_text: str = ""
) -> Markup:
    """The strips under each other. The axis holds the fastest and the slowest sample of all, and the limit."""
    seen = [v for row in rows for v in (*row.quantiles, *(b for _, b in row.bounds)) if v > 0]
    seen = svg.known(seen) or [1e-3, 1e-2]
    if limit is not None and not min(seen) / NEAR < limit < max(seen) * NEAR:
        limit = None
    seen += [limit] if limit else []
    low, high = math.log(min(seen)), math.log(max(seen))
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return PAD + (math.log(value) - low) / span * (WIDTH - 2 * PAD)

    bottom = len(rows) * ROW
    body = []
    marks = svg.decades(min(seen), max(seen))
    for value in marks if len(marks) > 2 else svg.ticks(min(seen), max(seen), 4):
        at = x(value)
        anchor = "start" if at < 20 else "end" if at > WIDTH - 20 else "middle"
        body.append(svg.rule("grid", at, 0, at, bottom))
        body.append(svg.text("tick", at, bottom + 15, f"{value * 1e3:.4g} ms", anchor))
    height = bottom + 22
    if limit:
        at = x(limit)
        body.append(svg.rule("limit", at, 0, at, bottom + 2))
        anchor = "start" if at < 60 else "end" if at > WIDTH - 60 else "middle"
        body.append(svg.text("limit-text", at, bottom + 32, limit_text, anchor))
        height = bottom + 38
    for i, row in enumerate(rows):
        body += _strip(row, i * ROW, [x(v) for v in _marks(row.quantiles)])
        for name, value in row.bounds:
            if value > 0:
                body.append(
                    _bound(x(value), i * ROW + 38, f"{name}: at most {milliseconds(value)}")
                )
        body += head(i * ROW, row.label, row.text)
    return svg.svg("strips", title, desc, height, body)


def _marks(quantiles: Sequence[float]) -> list[float]:
    """The percentiles that are drawn: all that a logarithm can place, the two ends always."""
    good = [v for v in svg.known(list(quantiles)) if v > 0]
    step = max(1, math.ceil(len(good) / MOST_MARKS))
    return good[::step] + ([good[-1]] if good and (len(good) - 1) % step else [])


def _strip(row: Strip, top: float, places: Sequence[float]) -> list[str]:
    if not places:
        return []
    middle = top + 28
    path = "".join(f"M{svg.digits(at)} {svg.digits(middle - 7)}v14" for at in places)
    ends = (places[0], places[-1])
    return [
        svg.rule("track", 0, middle, WIDTH, middle),
        svg.rule(f"reach {row.kind}", ends[0], middle, ends[1], middle),
        f'<path class="marks {row.kind}" d="{path}"/>',
        *[svg.rule(f"end-mark {row.kind}", at, middle - 7, at, middle + 7) for at in ends],
    ]


def _bound(x: float, y: float, tip: str) -> str:
    """A small triangle below the strip that points at a bound."""
    corners = ((x, y - 2), (x - 4, y + 5), (x + 4, y + 5))
    points = " ".join(f"{svg.digits(at)},{svg.digits(up)}" for at, up in corners)
    return f'<polygon class="bound" points="{points}"><title>{svg.clean(tip)}</title></polygon>'
