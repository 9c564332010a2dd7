"""Which student to train: every student, input size and precision against the limits.

A candidate is *safe* when the upper edge of its predicted latency fits and *possible* when only
the point does. The best expected accuracy among the safe ones is chosen, then among the possible
ones; the lower latency decides a tie. A limit on accuracy rejects nobody here: the prior ranks
students and says nothing about the user's images, so that limit is judged once a student is
trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from edgedistill.errors import BudgetError, UsageError
from edgedistill.result import Candidate, Limits, Plan
from edgedistill.target.candidates import ORDER, Weighed, number, rounded_up, weigh
from edgedistill.target.device import Device
from edgedistill.target.students import Student, find_student, load_students, table_sizes

Weights = Literal["auto", "pretrained", "random"]
LARGEST_INPUT = 224
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
) -> Plan:
    """The best candidate within `limits`, with the reasons for it and against the others.

    `image_side` is the median short side of the user's images in pixels, and `at_hand` says
    whether the pretrained weights of a student can be loaded here. Raises `BudgetError` when
    nothing fits and `UsageError` for a name, size or start that is not allowed.
    """
    _check_request(classes, image_side, input_size)
    sizes, size_reason = input_sizes(image_side, input_size)
    asked = load_students() if student == "auto" else (find_student(student),)
    starts = _starts(asked, weights, at_hand)
    weighed = [
        weigh(device, limits, one, size, precision, pretrained, classes)
        for one, pretrained in starts
        for size in sizes
        for precision in device.precisions
    ]
    fitting = sorted((w for w in weighed if w.fits != "no"), key=lambda w: _rank(w, device))
    if not fitting:
        raise BudgetError(_nothing_fits(device, weighed, student))
    chosen = fitting[0]
    best = list(_first_of_each(fitting, without={chosen.student.name}))
    ranked = {w.student.name for w in fitting}
    misses = sorted((w for w in weighed if w.student.name not in ranked), key=lambda w: w.miss)
    return Plan(
        considered=len(weighed),
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


def input_sizes(image_side: int, asked: int | Literal["auto"]) -> tuple[tuple[int, ...], str]:
    """Input sizes to weigh, with the reason: up to twice the images' own, from 64 to 224 pixels.

    Sizes below the images' own stay in the list, since a small budget may leave nothing else; the
    prior ranks them last.
    """
    if asked != "auto":
        return (asked,), f"{asked} px as asked"
    sizes = [s for s in table_sizes() if SMALLEST_INPUT <= s <= LARGEST_INPUT]
    cap = next((s for s in sizes if s >= 2 * image_side), LARGEST_INPUT)
    chosen = tuple(s for s in sizes if s <= cap)
    images = f"the images have {image_side} px on their short side (median)"
    if 2 * image_side > LARGEST_INPUT:
        why = f"{LARGEST_INPUT} px is the largest input that students are planned with"
    else:
        why = f"{cap} px is the smallest input of the table that holds them twice over"
    reason = f"{images}, and {why}; more would cost time and add no detail"
    if len(chosen) == 1:
        return chosen, f"{reason}. Smaller than {SMALLEST_INPUT} px is taken only when asked for"
    return chosen, f"{reason}. Down to {chosen[0]} px was considered too"


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
    latency = weighed.prediction.latency_s if weighed.prediction else float("inf")
    unnatural = weighed.precision != device.natural_precision
    return (ORDER[weighed.fits], -round(weighed.expected, 6), unnatural, latency)


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
        macs=weighed.student.cost(weighed.input_size, classes).macs,
        size_bytes=weighed.size_bytes,
        latency_s=prediction.latency_s if prediction else None,
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
    closest = min(weighed, key=lambda w: w.miss)
    missed = [c for c in closest.checks if c.verdict == "no"]
    by = "; ".join(f"{c.words()} ({c.ratio:.2g} times the limit)" for c in missed)
    who = "no student fits" if student == "auto" else f"{student} does not fit"
    needed = " and ".join(
        f"{_OPTIONS[c.what]} {rounded_up(c.point)}" for c in missed if c.point is not None
    )
    other = "choose a faster device" if student == "auto" else "leave the student to auto"
    return (
        f"{who} {device.title} within the limits: of {len(weighed)} candidates the closest is "
        f"{closest.label()}, {by}. Allow {needed} or more, or {other}."
    )
