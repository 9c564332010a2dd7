"""Charts of the arms: accuracy, gains, what each part cost, and how they learned by epoch and by second."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from edgedistill.evidence.view import charts, figures
from edgedistill.evidence.view.comparisons import comparisons, own_seconds, taught_arm
from edgedistill.result import Arm, Result


def arms_chart(result: Result) -> Markup:
    """Top-1 of each arm and of the teacher with their 95 % intervals, and of every other seed."""
    rows = []
    for arm in result.arms:
        kind: charts.Kind = "strong" if arm.name == result.chosen_arm else "plain"
        low, high = arm.top1.ci95 or (None, None)
        text, seeds = figures.accuracy(arm.top1), tuple(seed.top1 for seed in arm.seeds)
        rows.append(charts.Dot(arm.name, text, arm.top1.value, low, high, kind, seeds))
    top1 = result.teacher.top1
    low, high = top1.ci95 or (None, None)
    rows.append(charts.Dot("teacher", figures.accuracy(top1), top1.value, low, high, "quiet"))
    desc = "; ".join(f"{row.label} {row.text}" for row in rows)
    title = "Top-1 accuracy on the test images with 95 % intervals"
    return charts.intervals(title, desc, rows, lambda v: f"{v * 100:.4g} %")


def gains_chart(result: Result) -> Markup | None:
    """What was gained in each comparison, with its 95 % interval and a line at zero; `None` without any."""
    rows = []
    for made in comparisons(result.arms):
        if made.gain is not None:
            low, high = made.gain.ci95 or (None, None)
            text = figures.signed_points(made.gain.value)
            kind: charts.Kind = (
                "plain" if low is None or high is None or low <= 0 <= high else "strong"
            )
            rows.append(charts.Dot(made.title, text, made.gain.value, low, high, kind))
    if not rows:
        return None
    desc = "; ".join(f"{row.label} {row.text}" for row in rows)
    title = "Gains in points of top-1, with 95 % intervals"
    return charts.intervals(title, desc, rows, _signed, zero=True)


def _signed(value: float) -> str:
    return f"{value * 100:+.3g}".replace("-", "\u2212") if abs(value) > 1e-12 else "0"


def seconds_chart(result: Result) -> Markup:
    """Seconds of each arm, cut into its parts."""
    most = max((arm.seconds for arm in result.arms), default=0.0)
    scale, unit = figures.time_unit(most)
    parts = [arm.seconds_parts or {"training": arm.seconds} for arm in result.arms]
    return _stacked(
        "Time spent on each arm", result.arms, parts, figures.duration,
        lambda arm, _: figures.duration(arm.seconds), scale, unit,
    )  # fmt: skip


def flops_chart(result: Result) -> Markup | None:
    """Floating-point operations of each arm, cut into its parts; `None` where none were counted."""
    counted = [arm for arm in result.arms if arm.flops_parts]
    if not counted:
        return None
    scale, unit = figures.operations_unit(max(sum(arm.flops_parts.values()) for arm in counted))
    return _stacked(
        "Floating-point operations of each arm", counted, [arm.flops_parts for arm in counted],
        figures.operations, lambda arm, _: "" if arm.flops is None else figures.operations(arm.flops), scale, unit,
    )  # fmt: skip


def _stacked(
    title: str,
    arms: Sequence[Arm],
    parts: Sequence[Mapping[str, float]],
    write: Callable[[float], str],
    whole: Callable[[Arm, float], str],
    scale: float,
    unit: str,
) -> Markup:
    rows = []
    for arm, cut in zip(arms, parts, strict=True):
        bars = [(name, value / scale, write(value)) for name, value in cut.items()]
        rows.append(charts.Stack(arm.name, whole(arm, sum(cut.values())), bars))
    desc = "; ".join(f"{row.label} {row.text}" for row in rows)
    return charts.stacked(title, desc, rows, lambda v: f"{v:g} {unit}")


def curve_charts(result: Result) -> list[tuple[str, Markup]]:
    """Captions and charts, one line an arm: validation top-1 by epoch and by second, training loss by epoch."""
    top1 = [charts.Line(arm.name, _scores(arm)) for arm in result.arms]
    loss = [
        charts.Line(arm.name, [(float(p.epoch), p.loss) for p in arm.curve]) for arm in result.arms
    ]
    made = []
    if any(line.points for line in top1):
        title = "Validation top-1 by epoch"
        made.append((title, charts.lines(title, _ends(top1), top1, _percent)))
    clocked = timed(result.arms)
    if any(len(line.points) > 1 for line in clocked):
        made.append(_by_seconds(clocked))
    if any(line.points for line in loss):
        title = "Training loss by epoch, in nats"
        desc = "; ".join(f"{x.label} ends at {x.points[-1][1]:.3g}" for x in loss if x.points)
        made.append((title, charts.lines(title, desc, loss, lambda v: f"{v:.3g}")))
    return made


def _percent(value: float) -> str:
    return f"{value * 100:.4g} %"


def _ends(lines: Sequence[charts.Line]) -> str:
    return "; ".join(
        f"{line.label} ends at {figures.percent(line.points[-1][1])}"
        for line in lines
        if line.points
    )


def _scores(arm: Arm) -> list[tuple[float, float]]:
    return [(float(p.epoch), p.val_top1) for p in arm.curve if p.val_top1 is not None]


def timed(arms: Sequence[Arm]) -> list[charts.Line]:
    """Validation top-1 against seconds since an arm began, its other parts first; an arm without a curve is a point.

    The taught arm stands there a second time, with the teacher's part not counted.
    """
    taught, lines = taught_arm(arms), []
    for style, arm in enumerate(arms):
        known = [(p.seconds, p.val_top1) for p in arm.curve if p.seconds is not None]
        found = [(seconds, score) for seconds, score in known if score is not None]
        if not arm.curve and arm.val_top1 is not None:
            found = [(arm.seconds, arm.val_top1)]
        elif not found:
            continue
        before = arm.seconds - found[-1][0]
        counted = [(before + seconds, score) for seconds, score in found]
        lines.append(charts.Line(arm.name, counted, style))
        teacher = arm.seconds - own_seconds(arm)
        if arm is taught and teacher > 0:
            alone = [(seconds - teacher, score) for seconds, score in counted]
            lines.append(charts.Line(f"{arm.name}, teacher not counted", alone, style, faint=True))
    return lines


def _by_seconds(lines: Sequence[charts.Line]) -> tuple[str, Markup]:
    scale, unit = figures.time_unit(max(x for line in lines for x, _ in line.points))
    scaled = [
        charts.Line(line.label, [(x / scale, y) for x, y in line.points], line.style, line.faint)
        for line in lines
    ]
    title = "Validation top-1 by time"
    write = charts.lines(title, _ends(lines), scaled, _percent, lambda v: f"{v:g} {unit}")
    return title, write
