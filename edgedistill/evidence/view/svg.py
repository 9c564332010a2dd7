"""What every chart is drawn with: numbers, scales, and the few SVG elements, as text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from edgedistill.evidence.view.figures import short

WIDTH = 480.0
PAD = 8.0
MARGIN = 12
"""Around a chart that is a file of its own."""


def known(values: Sequence[float | None]) -> list[float]:
    """The values that can be drawn: finite, and within reason."""
    return [v for v in values if v is not None and math.isfinite(v) and abs(v) < 1e15]


def digits(value: float) -> str:
    """A coordinate with two digits and no more."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most + 1` round values inside `[low, high]`; none when the span is too small."""
    span = high - low
    if not math.isfinite(span) or span <= 1e-12:
        return []
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, min(last, first + most + 1) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Round values inside the range: 1, 2 and 5 of each power of ten, thinned to at most seven."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    inside = [m for m in marks if low <= m <= high]
    return inside[:: max(1, math.ceil(len(inside) / 7))]


def span_of(values: Sequence[float | None]) -> tuple[float, float]:
    """Bounds that hold all known values with a margin; never empty, also when all are equal."""
    seen = known(values) or [0.0, 1.0]
    low, high = min(seen), max(seen)
    margin = (high - low) * 0.08 or max(abs(high) * 0.05, 1e-6)
    return low - margin, high + margin


def clean(text: str) -> Markup:
    """Text of a stranger, escaped and shortened."""
    return escape(short(text, 4000))


def svg(
    name: str, title: str, desc: str, height: float, body: Sequence[str], width: float = WIDTH
) -> Markup:
    """A chart with its title and description for those who cannot see it."""
    return Markup(
        f'<svg class="chart {name}" viewBox="0 0 {digits(width)} {digits(height)}" role="img">'
        f"<title>{clean(title)}</title><desc>{clean(desc)}</desc>{''.join(body)}</svg>"
    )


def rect(css: str, x: float, y: float, width: float, height: float, tip: str = "") -> str:
    """A rectangle with rounded corners; `tip` appears on hover."""
    inside = f"<title>{clean(tip)}</title>" if tip else ""
    return (
        f'<rect class="{css}" x="{digits(x)}" y="{digits(y)}" width="{digits(max(width, 0))}" '
        f'height="{digits(height)}" rx="2">{inside}</rect>'
    )


def rule(css: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """A straight line."""
    return f'<line class="{css}" x1="{digits(x1)}" y1="{digits(y1)}" x2="{digits(x2)}" y2="{digits(y2)}"/>'


def circle(css: str, x: float, y: float, radius: float) -> str:
    """A dot."""
    return f'<circle class="{css}" cx="{digits(x)}" cy="{digits(y)}" r="{digits(radius)}"/>'


def text(css: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    """Text at a place."""
    return f'<text class="{css}" x="{digits(x)}" y="{digits(y)}" text-anchor="{anchor}">{clean(text)}</text>'


def alone(chart: Markup, css: str) -> str:
    """A chart as a file of its own, with its style and the background that its page gave it."""
    own = "background: var(--panel); min-width: 0; max-width: none; font-family: system-ui, sans-serif"
    text = str(chart).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    text = re.sub(r'viewBox="0 0 (\S+) (\S+)"', _with_margin, text, count=1)
    return text.replace("<title>", f"<style>{css}svg.chart.chart {{ {own} }}</style><title>", 1)


def _with_margin(box: re.Match[str]) -> str:
    width, height = (digits(float(side) + 2 * MARGIN) for side in box.groups())
    return f'viewBox="{-MARGIN} {-MARGIN} {width} {height}"'
