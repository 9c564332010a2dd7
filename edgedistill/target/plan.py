"""Which student to train: every student, input size and precision against the limits.

A candidate is *safe* when the upper edge of its predicted latency fits and *possible* when only
the point does. The best expected accuracy among the safe ones is chosen, then among the possible
ones; the lower latency decides a tie. A limit on accuracy rejects nobody here: the prior ranks
students and says nothing about the user's images, so that limit is judged once a student is
trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from edgedistill.errors import BudgetError, UsageError
from edgedistill.result import Attempt, Candidate, Limits, Plan
from edgedistill.target.candidates import ORDER, Weighed, number, rounded_up, weigh
from edgedistill.target.device import Device
from edgedistill.target.prior import NOTHING, Earlier
from edgedistill.target.students import Student, find_student, load_students, table_sizes

Weights = Literal["auto", "pretrained", "random"]
SMALLEST_INPUT = 64
ASKED_INPUTS = (32, 512)
MAX_LISTED = 40
_OPTIONS = {"latency": "--latency-ms", "size": "--size-mb", "memory": "--memory-mb"}


def plan(
    device: Device,
    limits: Limits,
    *,
    classes: int,
    student: str = "auto",
    weights: Weights = "auto",
    input_size: int | Literal["auto"] = "auto",
    image_side: int,
    at_hand: Callable[[str], bool],
    tried: Sequence[Attempt] = (),
    earlier: Earlier = NOTHING,
) -> Plan:
    """The best candidate within `limits`, with the reasons for it and against the others.

    `image_side` is the median short side of the user's images in pixels, and `at_hand` says
    whether the pretrained weights of a student can be loaded here. Candidates that were `tried`
    and missed a limit are left out, larger inputs of theirs too; `earlier` runs shift the ranking.
    Raises `BudgetError` when nothing fits and `UsageError` for a name, size or start that is not
    allowed.
    """
    _check_request(classes, image_side, input_size)
    sizes, detail, size_reason = input_sizes(image_side, input_size)
    asked = load_students() if student == "auto" else (find_student(student),)
    starts = _starts(asked, weights, at_hand)
    weighed = [
        weigh(device, limits, one, size, precision, pretrained, classes, detail, earlier)
        for one, pretrained in starts
        for size in sizes
        for precision in device.precisions
    ]
    weighed = [w for w in weighed if not any(_covers(one.candidate, w) for one in tried)]
    fitting = sorted((w for w in weighed if w.fits != "no"), key=lambda w: _rank(w, device))
    if not fitting:
        raise BudgetError(_nothing_fits(device, weighed, student))
    chosen = fitting[0]
    best = list(_first_of_each(fitting, without={chosen.student.name}))
    ranked = {w.student.name for w in fitting}
    misses = sorted((w for w in weighed if w.student.name not in ranked), key=lambda w: w.miss)
    front = [
        _candidate(w, classes, "on the front of expected accuracy against latency")
        for w in pareto(weighed)
    ]
    return Plan(
        considered=len(weighed),
        attempts=list(tried),
        front=front,
        chosen=_candidate(chosen, classes, _why_chosen(chosen, fitting, limits)),
        runners_up=[
            _candidate(w, classes, _why_behind(w, chosen, _natural_miss(w, weighed, device)))
            for w in best[:MAX_LISTED]
        ],
        rejected=[
            _candidate(w, classes, _why_rejected(w))
            for w in list(_first_of_each(misses))[:MAX_LISTED]
        ],
        input_size_reason=size_reason,
    )


def _covers(tried: Candidate, weighed: Weighed) -> bool:
    """Whether a candidate is one that was tried, or the same network with a larger input."""
    same = (tried.model, tried.precision) == (weighed.student.name, weighed.precision)
    return same and weighed.input_size >= tried.input_size


def pareto(weighed: Sequence[Weighed]) -> list[Weighed]:
    """Candidates that no other beats in both expected accuracy and predicted latency, fastest first.

    Limits on size and memory hold for them, that on latency does not: the front shows what it
    costs. At most `MAX_LISTED`.
    """
    allowed = [
        w
        for w in weighed
        if w.prediction and all(c.verdict != "no" for c in w.checks if c.what != "latency")
    ]
    front: list[Weighed] = []
    best = -1.0
    for one in sorted(allowed, key=lambda w: (_seconds(w), -w.expected)):
        if one.expected > best:
            front.append(one)
            best = one.expected
    step = max(1, math.ceil(len(front) / MAX_LISTED))
    return front[::step] if front[-1:] == front[::step][-1:] else [*front[::step], front[-1]]


def _seconds(weighed: Weighed) -> float:
    return weighed.prediction.latency_s if weighed.prediction else math.inf


def input_sizes(image_side: int, asked: int | Literal["auto"]) -> tuple[tuple[int, ...], int, str]:
    """Input sizes to weigh, the largest that adds detail, and the reason.

    Sizes below the images' own are weighed because a small budget may leave nothing else, sizes
    above twice their own because the ranking shows that they cost time and add nothing.
    """
    if asked != "auto":
        return (asked,), asked, f"{asked} px as asked"
    sizes = tuple(s for s in table_sizes() if s >= SMALLEST_INPUT)
    detail = next((s for s in sizes if s >= 2 * image_side), sizes[-1])
    reason = (
        f"{sizes[0]} to {sizes[-1]} px were weighed; the images have {image_side} px on their "
        f"short side (median)"
    )
    if detail < sizes[-1]:
        reason += f", so more than {detail} px is held to add no detail"
    return sizes, detail, reason


def _check_request(classes: int, image_side: int, input_size: int | Literal["auto"]) -> None:
    if classes < 2:
        raise UsageError(f"a classifier needs at least 2 classes; got {classes}")
    if image_side < 1:
        raise UsageError(f"the images must have at least 1 pixel a side; got {image_side}")
    low, high = ASKED_INPUTS
    if input_size != "auto" and not low <= input_size <= high:
        raise UsageError(
            f"the input size must be from {low} to {high} pixels, or auto; got {input_size}"
        )


def _starts(
    asked: Iterable[Student], weights: Weights, at_hand: Callable[[str], bool]
) -> list[tuple[Student, bool]]:
    """Each student with whether it starts from pretrained weights."""
    if weights == "random":
        return [(student, False) for student in asked]
    starts = [(student, at_hand(student.name)) for student in asked]
    if weights == "auto":
        return starts
    kept = [(student, True) for student, here in starts if here]
    if kept:
        return kept
    names = [student.name for student in load_students() if at_hand(student.name)]
    wanted = starts[0][0].name if len(starts) == 1 else "any student"
    here = f"at hand: {', '.join(names)}" if names else "none are at hand"
    raise UsageError(
        f"pretrained weights of {wanted} were asked for, and they cannot be loaded here ({here}). "
        'Install the "sample" extra, allow the hub, or set student.weights to auto or random.'
    )


def _rank(weighed: Weighed, device: Device) -> tuple[float, ...]:
    """Safe before possible, then accuracy, then the device's natural precision, then speed."""
    unnatural = weighed.precision != device.natural_precision
    return (ORDER[weighed.fits], -round(weighed.expected, 6), unnatural, _seconds(weighed))


def _first_of_each(weighed: Iterable[Weighed], without: Iterable[str] = ()) -> Iterable[Weighed]:
    """The first candidate of every student, in the given order."""
    seen = set(without)
    for one in weighed:
        if one.student.name not in seen:
            seen.add(one.student.name)
            yield one


def _candidate(weighed: Weighed, classes: int, reason: str) -> Candidate:
    prediction = weighed.prediction
    return Candidate(
        model=weighed.student.name,
        input_size=weighed.input_size,
        precision=weighed.precision,
        pretrained=weighed.pretrained,
        params=weighed.student.params_for(classes),
        macs=weighed.student.macs(weighed.input_size, classes),
        size_bytes=weighed.size_bytes,
        latency_s=prediction.latency_s if prediction else None,
        tier=prediction.tier if prediction else None,
        latency_band_s=prediction.band_s if prediction else None,
        memory_bytes=weighed.memory_bytes,
        expected_top1=weighed.expected,
        fits=weighed.fits,
        reason=reason,
    )


def _why_chosen(chosen: Weighed, fitting: list[Weighed], limits: Limits) -> str:
    rivals = len({w.student.name for w in fitting if w.fits == chosen.fits})
    how = "fit safely" if chosen.fits == "safe" else "possibly fit"
    who = f"of the {rivals} students that {how}"
    if rivals == 1:
        who = "and the only student that " + how.replace("fit", "fits")
    start = "pretrained weights are at hand" if chosen.pretrained else "starts from random weights"
    size = f"{number(chosen.size_bytes / 1e6)} MB"
    text = (
        f"best expected accuracy (ranking prior {chosen.expected:.3f}) {who}; {start}; "
        f"{chosen.latency_words()}; {size} in {chosen.precision}"
    )
    allowed = [f"{c.what} {number(c.allowed)} {c.unit}" for c in chosen.checks]
    text += f"; allowed: {', '.join(allowed)}" if allowed else "; no limit was set"
    if limits.min_top1 is not None:
        text += "; the accuracy limit is judged after training, as the prior only ranks"
    return text


def _natural_miss(weighed: Weighed, all_: list[Weighed], device: Device) -> str:
    """What keeps the same student and size out in the natural precision; empty for nothing."""
    same = (weighed.student.name, weighed.input_size, device.natural_precision)
    for one in all_:
        if (one.student.name, one.input_size, one.precision) == same and one.fits == "no":
            missed = "; ".join(c.words() for c in one.checks if c.verdict == "no")
            return f"fits only in {weighed.precision} ({one.precision}: {missed})"
    return ""


def _why_behind(weighed: Weighed, chosen: Weighed, natural_miss: str) -> str:
    only = natural_miss or "fits"
    if weighed.fits != chosen.fits:
        edge = [c.words() for c in weighed.checks if c.verdict == "possible"]
        return f"possible only, which ranks after safe: {'; '.join(edge)}"
    if round(weighed.expected, 6) == round(chosen.expected, 6):
        return f"{only}, equal prior, not faster: {weighed.latency_words()}"
    start = "" if weighed.pretrained else ", from random weights"
    return f"{only}, lower prior: {weighed.expected:.3f} against {chosen.expected:.3f}{start}"


def _why_rejected(weighed: Weighed) -> str:
    missed = [c.words() for c in weighed.checks if c.verdict == "no"]
    return f"closest at {weighed.input_size} px in {weighed.precision}: {'; '.join(missed)}"


def _nothing_fits(device: Device, weighed: list[Weighed], student: str) -> str:
    """One paragraph: who came closest, by how much it misses what, and what to change."""
    if not weighed:
        return f"every candidate of {student} was tried on {device.title} and missed a limit."
    closest = min(weighed, key=lambda w: w.miss)
    missed = [c for c in closest.checks if c.verdict == "no"]
    by = "; ".join(f"{c.words()} ({number(c.ratio)} times the limit)" for c in missed)
    who = "no student fits" if student == "auto" else f"{student} does not fit"
    needed = " and ".join(
        f"{_OPTIONS[c.what]} {rounded_up(c.point)}" for c in missed if c.point is not None
    )
    other = "choose a faster device" if student == "auto" else "leave the student to auto"
    return (
        f"{who} {device.title} within the limits: of {len(weighed)} candidates the closest is "
        f"{closest.label()}, {by}. Allow {needed} or more, or {other}."
    )
