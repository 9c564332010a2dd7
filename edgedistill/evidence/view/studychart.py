"""The chart of a study: test top-1 against total seconds, one labelled point an arm, teachers as lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from edgedistill.evidence.view import figures, svg
from edgedistill.studyresult import StudyArm, StudyResult

WIDTH, HEIGHT = 1080.0, 470.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 1066.0, 26.0, 414.0
FONT, LETTER = 13.0, 8.0
"""Height of a label's line and mean width of a letter, in units of the chart."""
RADIUS = 5.5
ROOM = 110.0
"""Right of the last point, for its name."""
APART, SPREAD = 14.0, 160.0
"""Least distance of two points, and how far a cluster of points is drawn apart at most."""
LONGEST = 26
ROUNDS = 4
MARKS = tuple(
    [m * 10.0**p for p in range(-3, 1) for m in (1, 2, 5)] + [10, 20, 30]
    + [60 * m for m in (1, 2, 5, 10, 20, 30)] + [3600 * m for m in (1, 2, 5, 10, 24)]
    + [86_400 * m * 10.0**p for p in range(4) for m in (2, 5, 10)]
)  # fmt: skip
"""Round durations in seconds."""


@dataclass(frozen=True)
class Box:
    """A rectangle from its upper left corner."""

    x: float
    y: float
    width: float
    height: float

    def overlap(self, other: Box) -> float:
        """Area that both cover."""
        across = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        down = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return across * down if across > 0 and down > 0 else 0.0


@dataclass(frozen=True)
class Spot:
    """An arm in the chart: its place, the end of its tail (training alone), the ends of its whisker."""

    arm: StudyArm
    x: float
    y: float
    tail: float
    whisker: tuple[float, float] | None


@dataclass(frozen=True)
class Scales:
    """Seconds to x in logarithms, top-1 to y; outside the range a value is drawn at the edge."""

    first: float
    last: float
    low: float
    high: float

    def x(self, seconds: float) -> float:
        """Place of a duration."""
        share = math.log(seconds / self.first) / math.log(self.last / self.first)
        return LEFT + 14 + min(max(share, 0.0), 1.0) * (RIGHT - ROOM - LEFT - 14)

    def y(self, top1: float) -> float:
        """Place of an accuracy."""
        share = (top1 - self.low) / (self.high - self.low)
        return BOTTOM - min(max(share, 0.0), 1.0) * (BOTTOM - TOP)


def study_chart(study: StudyResult) -> Markup | None:
    """Every arm that has run; `None` where none has."""
    arms = [arm for arm in study.arms if arm.top1 and arm.seconds_total and arm.seconds]
    if not arms:
        return None
    scales = _scales(arms)
    spots = side_by_side([_spot(arm, scales) for arm in arms])
    body = _axes(scales)
    teachers = _teachers(arms)
    body += [
        svg.rule("teacher-line", LEFT, scales.y(top1), RIGHT, scales.y(top1))
        for _, top1 in teachers
    ]
    for spot in spots:
        body += _mark(spot, spot.arm.name == study.baseline)
    words = [
        (name if scales.low <= top1 <= scales.high else f"{name} (not to scale)", scales.y(top1))
        for name, top1 in teachers
    ]
    body += _labels(spots, words)
    desc = "; ".join(
        f"{arm.name}: {figures.percent(arm.top1.value if arm.top1 else None)} in "
        f"{figures.duration(arm.seconds_total)}"
        for arm in arms
    )
    title = "Top-1 on test against seconds in all"
    return svg.svg("study", title, desc, HEIGHT, body, WIDTH)


def interval_of(arm: StudyArm) -> tuple[float, float] | None:
    """The interval that is shown of an arm: over seeds where they differ, else Wilson's over images."""
    if arm.top1 is None or not arm.runs:
        return None
    return arm.top1.ci95 or arm.runs[0].top1.ci95


def _scales(arms: Sequence[StudyArm]) -> Scales:
    """Ranges that hold every point; a far wider interval is cut at the edge, a teacher far away drawn at it."""
    times = [t for arm in arms for t in (arm.seconds, arm.seconds_total) if t]
    first, last = min(times), max(times)
    if last < 2 * first:
        first, last = first / 1.5, last * 1.5
    values = [arm.top1.value for arm in arms if arm.top1]
    low, high = min(values), max(values)
    far = max(1.5 * (high - low), 0.1)
    taught = [arm.teacher.top1.value for arm in arms if arm.teacher]
    values += [top1 for top1 in taught if low - far <= top1 <= high + far]
    low, high = min(values), max(values)
    room = max(high - low, 0.04)
    ends = [end for arm in arms for end in interval_of(arm) or ()]
    low = max(min([low, *ends]), low - room)
    high = min(max([high, *ends]), high + room)
    low, high = svg.span_of([low, high])
    return Scales(first, last, max(low, -0.01), min(high, 1.01))


def _spot(arm: StudyArm, scales: Scales) -> Spot:
    assert arm.top1 is not None
    ends = interval_of(arm)
    return Spot(
        arm,
        scales.x(arm.seconds_total or 1.0),
        scales.y(arm.top1.value),
        scales.x(arm.seconds or 1.0),
        (scales.y(ends[0]), scales.y(ends[1])) if ends else None,
    )


def side_by_side(spots: Sequence[Spot]) -> list[Spot]:
    """The same spots, those that would cover each other moved apart; each keeps the start of its tail."""
    order = sorted(range(len(spots)), key=lambda i: spots[i].x)
    clusters: list[list[int]] = []
    for i in order:
        clusters.append([i])
        while len(clusters) > 1:
            (_, end), (begin, _) = _extent(clusters[-2], spots), _extent(clusters[-1], spots)
            if begin - end >= APART:
                break
            last = clusters.pop()
            clusters[-1] += last
    moved = list(spots)
    for cluster in clusters:
        first, last_x = _extent(cluster, spots)
        step = (last_x - first) / max(1, len(cluster) - 1)
        for k, i in enumerate(cluster):
            alone = len(cluster) == 1
            moved[i] = spots[i] if alone else replace(spots[i], x=first + k * step)
    return moved


def _extent(cluster: Sequence[int], spots: Sequence[Spot]) -> tuple[float, float]:
    """Ends of a cluster when it is drawn apart around its middle, inside the chart."""
    xs = [spots[i].x for i in cluster]
    wide = max(xs[-1] - xs[0], min(APART * (len(xs) - 1), SPREAD))
    first = sum(xs) / len(xs) - wide / 2
    first = min(max(first, LEFT + 14), RIGHT - ROOM / 2 - wide)
    return first, first + wide


def _teachers(arms: Sequence[StudyArm]) -> list[tuple[str, float]]:
    """Each teacher with its words and top-1; where there are several, with the arms that it taught."""
    found = {arm.teacher.key: arm.teacher for arm in arms if arm.teacher}
    words = []
    for key, teacher in found.items():
        taught = [arm.name for arm in arms if arm.teacher and arm.teacher.key == key]
        more = f" of {', '.join(taught)}" if len(found) > 1 else ""
        text = f"teacher{figures.short(more, 40)} {figures.percent(teacher.top1.value)}"
        words.append((text, teacher.top1.value))
    return words


def _axes(scales: Scales) -> list[str]:
    body = [svg.text("tick", 0, 10, "top-1 on test")]
    for value in svg.ticks(scales.low, scales.high, 6):
        y = scales.y(value)
        body.append(svg.rule("grid", LEFT, y, RIGHT, y))
        body.append(svg.text("tick", LEFT - 7, y + 4, f"{100 * value:.4g} %", "end"))
    for seconds in time_ticks(scales.first, scales.last):
        x = scales.x(seconds)
        body.append(svg.rule("grid", x, BOTTOM, x, BOTTOM + 5))
        body.append(svg.text("tick", x, BOTTOM + 20, written(seconds), "middle"))
    words = "seconds in all, logarithmic (dotted: from training alone)"
    body.append(svg.text("tick", RIGHT, BOTTOM + 42, words, "end"))
    return body


def time_ticks(first: float, last: float) -> list[float]:
    """Round durations inside the range, at most eight; the ends where there are fewer than two."""
    inside = [mark for mark in MARKS if first <= mark <= last]
    if len(inside) < 2:
        return [float(f"{first:.3g}"), float(f"{last:.3g}")]
    return inside[:: max(1, math.ceil(len(inside) / 8))]


def written(seconds: float) -> str:
    """A round duration in few letters: `20 s`, `5 min`, `2 h`, `3 d`."""
    for unit, word in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:.0f} {word}"
    return f"{seconds:g} s" if seconds < 60 else figures.duration(seconds)


def _mark(spot: Spot, baseline: bool) -> list[str]:
    kind = "plain" if spot.arm.teacher is None else "strong"
    body = []
    if abs(spot.x - spot.tail) > RADIUS:
        body.append(svg.rule("tail", spot.tail, spot.y, spot.x, spot.y))
    if spot.whisker:
        low, high = spot.whisker
        body.append(svg.rule(f"whisker {kind}", spot.x, low, spot.x, high))
        body += [
            svg.rule(f"whisker {kind}", spot.x - 4, end, spot.x + 4, end)
            for end in (low, high)
            if TOP < end < BOTTOM
        ]
    tip = f"{spot.arm.name}{', the baseline' if baseline else ''}"
    body.append(
        f'<circle class="dot {kind}" cx="{svg.digits(spot.x)}" cy="{svg.digits(spot.y)}" '
        f'r="{RADIUS}"><title>{escape(tip)}</title></circle>'
    )
    return body


def _labels(spots: Sequence[Spot], teachers: Sequence[tuple[str, float]]) -> list[str]:
    """Names beside their points where they cover least, found in a few rounds of improvement."""
    fixed: list[tuple[Box, float]] = []
    for spot in spots:
        fixed.append((Box(spot.x - 8, spot.y - 8, 16, 16), 6.0))
        if spot.whisker:
            high, low = min(spot.whisker), max(spot.whisker)
            fixed.append((Box(spot.x - 5, high, 10, low - high), 2.0))
        left, right = sorted((spot.tail, spot.x))
        fixed.append((Box(left, spot.y - 2, right - left, 4), 1.0))
    fixed += [(Box(LEFT, y - 1, RIGHT - LEFT, 2), 1.0) for _, y in teachers]
    words = [figures.short(spot.arm.name, LONGEST) for spot in spots]
    choices = [_around(spot, word, spots) for spot, word in zip(spots, words, strict=True)]
    choices += [_along(y, word) for word, y in teachers]
    boxes = [options[0][0] for options in choices]
    for _ in range(ROUNDS):
        for i, options in enumerate(choices):
            others = [box for j, box in enumerate(boxes) if j != i]
            boxes[i] = min(options, key=lambda option: _cost(option, others, fixed))[0]
    body = []
    for spot, word, box in zip(spots, words, boxes, strict=False):
        body += _named(spot, word, box)
    for (word, _), box in zip(teachers, boxes[len(spots) :], strict=True):
        body.append(svg.text("teacher-text", box.x, box.y + FONT - 2, word))
    return body


def _cost(
    option: tuple[Box, float], labels: Sequence[Box], fixed: Sequence[tuple[Box, float]]
) -> float:
    box, far = option
    covered = sum(10 * box.overlap(other) for other in labels)
    covered += sum(weight * box.overlap(other) for other, weight in fixed)
    inside = Box(2, 14, WIDTH - 4, BOTTOM - 15)
    return far + covered + 20 * (box.width * box.height - box.overlap(inside))


def _around(spot: Spot, word: str, spots: Sequence[Spot]) -> list[tuple[Box, float]]:
    """Places for a name around its point, each with how far it is away; a line across another point is far."""
    width, found = LETTER * len(word), []
    for step, far in enumerate((9, 20, 34, 50, 70, 95)):
        for turn, angle in enumerate((0, 180, 45, 135, -45, -135, 90, -90)):
            across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x, y = spot.x + far * across, spot.y - far * up
            left = x if across > 0.1 else x - width if across < -0.1 else x - width / 2
            box = Box(left, y - FONT / 2 - FONT / 2 * up, width, FONT)
            found.append((box, 14.0 * step + turn + 150 * _crossed(spot, box, spots)))
    return found


def _crossed(spot: Spot, box: Box, spots: Sequence[Spot]) -> int:
    """Other points that the way from a point to its name touches."""
    end_x, end_y = _near(spot, box)
    steps = [k / 12 for k in range(1, 12)]
    way = [(spot.x + k * (end_x - spot.x), spot.y + k * (end_y - spot.y)) for k in steps]
    others = [other for other in spots if other is not spot]
    return sum(
        any(math.hypot(x - other.x, y - other.y) < RADIUS + 2 for x, y in way) for other in others
    )


def _near(spot: Spot, box: Box) -> tuple[float, float]:
    """The place of a box that is nearest to a point."""
    x = min(max(spot.x, box.x), box.x + box.width)
    return x, min(max(spot.y, box.y), box.y + box.height)


def _along(y: float, word: str) -> list[tuple[Box, float]]:
    """Places for a teacher's words above and below its line, from the right end to the left one."""
    width, found = LETTER * len(word), []
    for step in range(9):
        x = RIGHT - width - step * (RIGHT - LEFT - width) / 8
        found += [(Box(x, y - FONT - 3, width, FONT), step), (Box(x, y + 4, width, FONT), step + 1)]
    return [(box, float(far)) for box, far in found]


def _named(spot: Spot, word: str, box: Box) -> list[str]:
    """The name in its box, with a line to the point where it stands apart."""
    near_x, near_y = _near(spot, box)
    body = []
    if math.hypot(near_x - spot.x, near_y - spot.y) > 16:
        body.append(svg.rule("leader", spot.x, spot.y, near_x, near_y))
    # the text may be narrower than its box: it stands at the side of its point
    if box.x >= spot.x:
        return [*body, svg.text("label", box.x, box.y + FONT - 2, word)]
    if box.x + box.width <= spot.x:
        return [*body, svg.text("label", box.x + box.width, box.y + FONT - 2, word, "end")]
    middle = box.x + box.width / 2
    return [*body, svg.text("label", middle, box.y + FONT - 2, word, "middle")]
