"""One model against its limits and against another: a row for each limit, and how it ended.

Size and accuracy are properties of the files, and decide. A growth of latency is a ratio that was measured in turns on
one machine; a time by itself counts as it does in a build (`evidence/gate.py`). Where a limit lies inside an interval
the row is inconclusive, and what nobody measured is never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgedistill.checkresult import Allowed, CheckRow, Ending, LimitName, Verdict
from edgedistill.evidence.checks.predictions import pair
from edgedistill.evidence.checks.snapshot import Subject
from edgedistill.evidence.gate import headline, judged, judged_latency, peak_bytes
from edgedistill.latencyresult import Comparison
from edgedistill.metrics import independent_interval, measurable, paired_gain
from edgedistill.result import Gain, Latency

NAMES: dict[LimitName, str] = {
    "max-size-growth": "size growth", "max-size-mb": "size",
    "max-latency-growth": "latency growth", "max-latency-ms": "latency",
    "max-memory-mb": "memory", "max-drop": "top-1 drop", "min-top1": "top-1",
}  # fmt: skip
ORDER: dict[Ending, int] = {"pass": 0, "unconfirmed": 1, "inconclusive": 2, "regress": 3, "fail": 3}
LEAST_COMMON = 30
"""Images common to two runs below which their paired test says nothing."""


@dataclass(frozen=True)
class Timed:
    """What was measured for a check: two files in turns, `rows` of the new one, or `why` nothing was."""

    comparison: Comparison | None = None
    rows: tuple[Latency, ...] = ()
    why: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Sides:
    """The new model, the old one where there is one, what was timed, and how they compare in accuracy."""

    new: Subject
    old: Subject | None
    timed: Timed
    drop: Gain | None = None
    paired: bool = False

    @property
    def same(self) -> bool:
        """Whether both are the same bytes, so that nothing can have changed."""
        return self.old is not None and self.new.facts.sha256 == self.old.facts.sha256


def compared(new: Subject, old: Subject | None, timed: Timed) -> Sides:
    """Both sides with their difference in top-1: paired where both are known on the same images."""
    if old is None:
        return Sides(new, None, timed)
    both = pair(new.scored, old.scored)
    if both is not None and len(both.new) >= LEAST_COMMON:
        return Sides(new, old, timed, paired_gain(both.new, both.old, "the old model"), True)
    ours, theirs = new.facts.top1, old.facts.top1
    if ours is None or theirs is None or not (ours.n and theirs.n):
        return Sides(new, old, timed)
    low, high = independent_interval(ours, theirs)
    gain = Gain(
        against="the old model", value=ours.value - theirs.value, ci95=(low, high), p_value=1.0,
        words=f"from {theirs.n:,} and {ours.n:,} images that are not known to be the same",
    )  # fmt: skip
    return Sides(new, old, timed, gain)


def rows_of(limits: Mapping[LimitName, Allowed], sides: Sides) -> list[CheckRow]:
    """A row for each limit, in the order in which they are always told."""
    judges = {
        "max-size-growth": _size_growth, "max-size-mb": _size, "max-latency-growth": _slower,
        "max-latency-ms": _latency, "max-memory-mb": _memory, "max-drop": _drop, "min-top1": _top1,
    }  # fmt: skip
    return [judges[name](limits[name], sides) for name in NAMES if name in limits]


def _size_growth(limit: Allowed, sides: Sides) -> CheckRow:
    assert sides.old is not None
    old, new = sides.old.facts.size_bytes, sides.new.facts.size_bytes
    most = limit.value * old if limit.unit == "fraction" else limit.value
    grown = (new - old) / old if limit.unit == "fraction" and old else float(new - old)
    over = new - old > most
    return CheckRow(
        limit="max-size-growth", allowed=limit, old=old, new=new, observed=grown,
        status="regress" if over else "pass",
        advice="see what grew; a growth that is meant goes into the baseline with --update"
        if over
        else "",
    )  # fmt: skip


def _size(limit: Allowed, sides: Sides) -> CheckRow:
    size = sides.new.facts.size_bytes
    return CheckRow(
        limit="max-size-mb", allowed=limit, new=size, observed=size,
        old=sides.old.facts.size_bytes if sides.old else None,
        status="pass" if size <= limit.value else "fail",
        advice="" if size <= limit.value else "a smaller model, or a higher limit",
    )  # fmt: skip


def _slower(limit: Allowed, sides: Sides) -> CheckRow:
    name: LimitName = "max-latency-growth"
    if sides.same:
        return CheckRow(
            limit=name, allowed=limit, observed=0.0, status="pass", note="the same file"
        )
    found = sides.timed.comparison
    if found is None:
        return CheckRow(
            limit=name, allowed=limit, status="inconclusive",
            note=f"not measured: {sides.timed.why}", advice=sides.timed.advice,
        )  # fmt: skip
    outcome: Ending = found.outcome(limit.value)
    runs = f"{len(found.ratios)} pairs of runs in turns on {found.machine}"
    if found.same_class is False and outcome != "inconclusive":
        outcome = "unconfirmed"  # another kind of processor says nothing of the device, good or bad
    advice: dict[Ending, str] = {
        "pass": "",
        "regress": "see which layers and operators changed",
        "inconclusive": "a quieter machine, or a higher limit: the interval has the limit inside it",
        "unconfirmed": "compare them on the device, in the bundle there: python3 ontarget.pyz compare . "
        "--other ../old  (on a GPU with --provider engine)",
    }
    notes = [runs, *filter(None, [found.evidence_words]), *found.warnings]
    return CheckRow(
        limit=name, allowed=limit, old=found.old.p50_s, new=found.new.p50_s,
        observed=found.ratio - 1, low=found.low - 1, high=found.high - 1, status=outcome,
        note="; ".join(notes), advice=advice[outcome],
    )  # fmt: skip


def _latency(limit: Allowed, sides: Sides) -> CheckRow:
    name: LimitName = "max-latency-ms"
    row = judged_latency([*sides.new.latency, *sides.timed.rows], proxy_counts=False)
    device = sides.new.device or "the device"
    there = f"measure on {device}: python3 ontarget.pyz bench . in the bundle there"
    if row is None:
        return CheckRow(
            limit=name, allowed=limit, status="unconfirmed", note=_unmeasured(sides),
            advice=sides.timed.advice or there,
        )  # fmt: skip
    observed = headline(row)
    found, note = judged(row, limit.value)
    undecided = found == "unconfirmed" and row.evidence == "measured_on_target"
    status: Ending = "inconclusive" if undecided else found
    advice = {"pass": "", "unconfirmed": there, "inconclusive": "a quieter machine"}
    return CheckRow(
        limit=name, allowed=limit, new=observed, observed=observed, status=status,
        note=f"{note}; {row.machine}", advice=advice.get(status, "a smaller model or input, or a higher limit"),
    )  # fmt: skip


def _unmeasured(sides: Sides) -> str:
    """Why nothing that was measured counts."""
    device = sides.new.device or "the device"
    if sides.new.latency:
        return f"not measured on {device}: only predicted, or on another machine"
    return f"not measured: {sides.timed.why or f'{device} is not here'}"


def _memory(limit: Allowed, sides: Sides) -> CheckRow:
    name: LimitName = "max-memory-mb"
    peak = peak_bytes([*sides.new.latency, *sides.timed.rows])
    if peak is None:
        return CheckRow(
            limit=name, allowed=limit, status="unconfirmed", note=_unmeasured(sides),
            advice=sides.timed.advice,
        )  # fmt: skip
    return CheckRow(
        limit=name, allowed=limit, new=peak, observed=peak,
        status="pass" if peak <= limit.value else "fail", note="peak of the clean process",
        advice="" if peak <= limit.value else "a smaller model or input, or a higher limit",
    )  # fmt: skip


def _drop(limit: Allowed, sides: Sides) -> CheckRow:
    assert sides.old is not None
    name: LimitName = "max-drop"
    ours, theirs = sides.new.facts.top1, sides.old.facts.top1
    values = {"old": theirs.value if theirs else None, "new": ours.value if ours else None}
    if sides.same:
        return CheckRow(
            limit=name, allowed=limit, observed=0.0, status="pass", note="the same file", **values
        )
    gain = sides.drop
    if gain is None:
        return CheckRow(
            limit=name, allowed=limit, status="inconclusive",
            note=f"not known: {(sides.new if ours is None else sides.old).lacks}",
            advice="compare two run folders, or a run folder with a baseline made of one", **values,
        )  # fmt: skip
    lost, low, high = 0.0 - gain.value, 0.0 - gain.ci95[1], 0.0 - gain.ci95[0]
    certain = measurable(gain) if sides.paired else low > 0
    status: Ending = "inconclusive"
    if high <= limit.value:
        status = "pass"
    elif lost > limit.value and certain:
        status = "regress"
    advice = _more_images(limit.value, lost, high, sides) if status == "inconclusive" else ""
    return CheckRow(
        limit=name, allowed=limit, observed=lost, low=low, high=high, status=status,
        note=gain.words, advice=advice, **values,
    )  # fmt: skip


def _more_images(limit: float, lost: float, high: float, sides: Sides) -> str:
    """How many images it would take for this difference to be told from the limit."""
    if not sides.paired:
        return "test both on the same images, and give two run folders"
    both = pair(sides.new.scored, sides.old.scored if sides.old else None)
    if both is None or math.isclose(limit, lost, abs_tol=1e-4) or lost > limit:
        return "more test images, or another limit"
    needed = len(both.new) * ((high - lost) / (limit - lost)) ** 2
    digits = 10 ** max(len(str(math.ceil(needed))) - 2, 0)
    return f"about {math.ceil(needed / digits) * digits:,} test images would show it, or a higher limit"


def _top1(limit: Allowed, sides: Sides) -> CheckRow:
    top1 = sides.new.facts.top1
    old = sides.old.facts.top1 if sides.old else None
    common = {"old": old.value if old else None}
    if top1 is None:
        return CheckRow(
            limit="min-top1", allowed=limit, status="inconclusive",
            note=f"not known: {sides.new.lacks}", advice="give a run folder", **common,
        )  # fmt: skip
    passes = top1.value >= limit.value
    note = f"{top1.n:,} test images"
    low, high = top1.ci95 if top1.ci95 is not None else (None, None)
    if passes and low is not None and low < limit.value:
        note += "; the limit lies inside the 95 % interval"
    return CheckRow(
        limit="min-top1", allowed=limit, new=top1.value, observed=top1.value, low=low, high=high,
        status="pass" if passes else "fail", note=note,
        advice="" if passes else "more images or epochs, a stronger teacher, or a lower limit", **common,
    )  # fmt: skip


def verdict(rows: Sequence[CheckRow]) -> Verdict:
    """The worst of all rows."""
    worst: Ending = max((row.status for row in rows), key=ORDER.__getitem__, default="pass")
    return "fail" if worst == "regress" else worst


def sentence(rows: Sequence[CheckRow], name: str) -> str:
    """The verdict in one sentence."""
    count = len(rows)
    if not rows:
        return f"{name} was held against no limit."
    limits = f"{count} limit{'' if count == 1 else 's'}"
    missed = [NAMES[r.limit] for r in rows if r.status in ("fail", "regress")]
    if missed:
        which = "its one limit" if count == 1 else f"{len(missed)} of {limits}"
        return f"{name} misses {which}: {_and(missed)}."
    open_ = [NAMES[r.limit] for r in rows if r.status != "pass"]
    if open_:
        which = "its one limit" if count == 1 else f"one of {limits}"
        return f"{name} is not known to miss {which}; {_and(open_)} could not be decided."
    return f"{name} keeps {'its one limit' if count == 1 else f'all {limits}'}."


def _and(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
