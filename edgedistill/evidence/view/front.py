"""What latency buys: candidates of the plan as a scatter of expected accuracy against predicted latency."""

from __future__ import annotations

import math
from collections.abc import Callable

from markupsafe import Markup, escape

from edgedistill.evidence.view import figures, svg
from edgedistill.evidence.view.svg import PAD, WIDTH
from edgedistill.result import Candidate, Result

Scale = Callable[[float], float]
HEIGHT, LEFT, BOTTOM = 250.0, 46.0, 208.0


def front_chart(result: Result) -> Markup | None:
    """The Pareto front of the plan, the choice and the limit; `None` with fewer than two points."""
    points = [c for c in [*result.plan.front, result.plan.chosen] if _known(c)]
    if len({c.latency_s for c in points}) < 2:
        return None
    limit = result.budget.latency_s
    times = [t for c in points for t in (c.latency_s or 0.0, *(c.latency_band_s or ()))]
    seen = [math.log(t) for t in [*times, limit] if t]
    left, right = min(seen), max(seen)
    low, high = svg.span_of([c.expected_top1 for c in points])

    def x(seconds: float) -> float:
        return LEFT + (math.log(seconds) - left) / (right - left) * (WIDTH - LEFT - PAD)

    def y(top1: float) -> float:
        return PAD + (high - top1) / (high - low) * (BOTTOM - PAD)

    body = []
    for value in svg.ticks(low, high, 4):
        body.append(svg.rule("grid", LEFT, y(value), WIDTH, y(value)))
        body.append(svg.text("tick", LEFT - 6, y(value) + 4, f"{100 * value:.4g} %", "end"))
    for seconds in svg.decades(math.exp(left), math.exp(right)):
        written = f"{seconds * 1e3:g} ms"
        body.append(svg.text("tick", x(seconds), BOTTOM + 18, written, "middle"))
    if limit:
        body.append(svg.rule("limit", x(limit), PAD, x(limit), BOTTOM))
        words = f"limit {figures.milliseconds(limit)}"
        anchor = "end" if x(limit) > WIDTH / 2 else "start"
        body.append(svg.text("limit-text", x(limit), HEIGHT - 4, words, anchor))
    for candidate in points:
        body += _mark(candidate, x, y, candidate is result.plan.chosen)
    desc = "; ".join(
        f"{c.model} at {c.input_size} px in {c.precision}: {figures.milliseconds(c.latency_s)}, "
        f"{figures.percent(c.expected_top1)}"
        for c in points
    )
    title = "Expected top-1 (a ranking prior) against predicted latency"
    return svg.svg("lines", title, desc, HEIGHT, body)


def _known(candidate: Candidate) -> bool:
    return bool(candidate.latency_s) and candidate.expected_top1 is not None


def _mark(candidate: Candidate, x: Scale, y: Scale, chosen: bool) -> list[str]:
    at, up = x(candidate.latency_s or 0.0), y(candidate.expected_top1 or 0.0)
    parts = []
    if candidate.latency_band_s and candidate.latency_band_s[0] > 0:
        low, high = candidate.latency_band_s
        parts.append(svg.rule("whisker strong" if chosen else "whisker", x(low), up, x(high), up))
    tip = f"{candidate.model}, {candidate.input_size} px, {candidate.precision}"
    css, radius = ("end l1", 5.5) if chosen else ("end l0", 4.0)
    parts.append(
        f'<circle class="{css}" cx="{svg.digits(at)}" cy="{svg.digits(up)}" r="{radius}">'
        f"<title>{escape(tip)}</title></circle>"
    )
    if chosen:
        anchor = "end" if at > WIDTH / 2 else "start"
        beside = up + 20 if up < PAD + 16 else up - 11
        parts.append(svg.text("label", at, beside, candidate.model, anchor))
    return parts
