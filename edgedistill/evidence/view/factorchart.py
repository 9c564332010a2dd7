"""The chart of a study of factors: what each level gains over the default, one line each, factors as headings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from edgedistill.evidence.view import figures, svg
from edgedistill.studyresult import StudyArm, StudyResult

WIDTH, LEFT, RIGHT, TOP = 860.0, 210.0, 764.0, 30.0
ROW, HEAD = 22.0, 30.0
RADIUS, THICK = 4.5, 7.0
LONGEST = 27
MOST = 0.9
"""Share of the gains that the scale holds at least; what lies far outside is drawn at its edge with its number."""
ROOM, LEAST = 1.6, 0.005
"""How much wider the scale is than those gains, and its least half width, as a share of the images."""


@dataclass(frozen=True)
class Scale:
    """Gains from `-half` to `half` to x; what lies outside stands at the edge."""

    half: float

    def x(self, gain: float) -> float:
        """Place of a gain."""
        share = (gain + self.half) / (2 * self.half)
        return LEFT + min(max(share, 0.0), 1.0) * (RIGHT - LEFT)

    def holds(self, gain: float) -> bool:
        """Whether a gain lies inside."""
        return abs(gain) <= self.half


def factor_chart(study: StudyResult) -> Markup | None:
    """Every level that has run beside the default; `None` where none has, or the study has no factors."""
    arms = [arm for arm in study.arms if arm.factor and arm.image_gain]
    if not arms:
        return None
    scale = _scale([arm.image_gain.value for arm in arms if arm.image_gain])
    body, y, factor = [], TOP, None
    for arm in arms:
        if arm.factor != factor:
            factor = arm.factor
            y += HEAD
            body.append(svg.text("factor", 0, y - 9, figures.short(factor or "", 60)))
        y += ROW
        body += _level(arm, y - ROW / 2, scale)
    height = y + 34
    desc = "; ".join(
        f"{arm.name}: {figures.signed_points(arm.image_gain.value)}"
        for arm in arms
        if arm.image_gain
    )
    title = f"Gain in test top-1 over {study.baseline}"
    return svg.svg("factors", title, desc, height, [*_axes(study, scale, y), *body], WIDTH)


def _scale(gains: Sequence[float]) -> Scale:
    """A scale that most gains fill, and symmetric, so that a loss looks like a gain of its size."""
    sizes = sorted(abs(gain) for gain in gains)
    most = sizes[min(len(sizes) - 1, round(MOST * (len(sizes) - 1)))]
    return Scale(max(LEAST, ROOM * most))


def _axes(study: StudyResult, scale: Scale, bottom: float) -> list[str]:
    body = [svg.text("tick", RIGHT, 12, f"points over {figures.short(study.baseline, 40)}", "end")]
    for value in svg.ticks(-scale.half, scale.half, 8):
        x = scale.x(value)
        zero = abs(value) < 1e-9
        body.append(svg.rule("zero-line" if zero else "grid", x, TOP - 8, x, bottom + 4))
        label = "0" if zero else f"{100 * value:+.3g}".replace("-", "\u2212")
        body.append(svg.text("tick", x, bottom + 20, label, "middle"))
    return body


def _level(arm: StudyArm, y: float, scale: Scale) -> list[str]:
    """The name, both intervals, the mean and its number."""
    assert arm.image_gain is not None
    gain = arm.seed_gain.value if arm.seed_gain else arm.image_gain.value
    body = [svg.text("label", 14, y + 4.5, figures.short(arm.name, LONGEST))]
    if arm.seed_gain is not None and arm.seed_gain.ci95 is not None:
        low, high = (scale.x(end) for end in arm.seed_gain.ci95)
        body.append(svg.rule("whisker", low, y, high, y))
    if arm.image_gain.ci95 is not None:
        low, high = (scale.x(end) for end in arm.image_gain.ci95)
        body.append(svg.rect("interval", low, y - THICK / 2, high - low, THICK))
    x, number = scale.x(gain), figures.signed_points(gain).removesuffix(" points")
    kind = "dot strong" if scale.holds(gain) else "dot"
    tip = arm.name if scale.holds(gain) else f"{arm.name}, not to scale"
    body.append(
        f'<circle class="{kind}" cx="{svg.digits(x)}" cy="{svg.digits(y)}" r="{RADIUS}">'
        f"<title>{escape(figures.short(tip, 100))}</title></circle>"
    )
    body.append(svg.text("value", WIDTH, y + 4.5, number, "end"))
    return body
