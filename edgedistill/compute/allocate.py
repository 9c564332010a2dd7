"""How a budget is split: of everything that can be trained within it, what the laws think best.

A configuration is a student, a way of learning (labels alone, or a teacher with stored or live outputs) and epochs: as
many as the budget pays for beside the teacher's preparation and its passes, or fewer where the laws say that more do
harm, or tell nothing of more. Busbridge et al. 2025 (section 5) split
by continuous amounts of compute; the students that fit a device and the teachers at hand are a few, so each is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgedistill.compute.effort import Effort
from edgedistill.compute.flops import SCENARIOS, Scenario, bill, training_flops
from edgedistill.compute.predict import Asked, Law, Said, Way

MOST_EPOCHS = 300
ALL_PAID = SCENARIOS["one_student"]
"""A budget pays for everything where nothing else is said."""
SHORTER = tuple(2.0 ** (-k / 2) for k in range(17))
"""Shares of the epochs that a budget pays for, which are weighed beside them."""
WORTH = 0.01
"""By what share of the error a shorter training must be better to be chosen."""
OTHER_BUDGETS = (0.25, 0.5, 2.0, 4.0)
"""Shares of the budget for which the advice is asked again."""


@dataclass(frozen=True)
class Pupil:
    """A student that fits, as it would be trained here: seconds of training on an image from labels alone, from a
    teacher's stored outputs too, and of validating one.
    """

    model: str
    params: int
    macs: int
    start: str
    train_s: float
    taught_s: float
    validate_s: float


@dataclass(frozen=True)
class Master:
    """A teacher at hand: loss and error on validation, seconds and operations of its preparation that are still to be
    spent, and of a pass of one image.
    """

    name: str
    loss: float
    error: float
    prepare_s: float
    prepare_flops: float
    pass_s: float
    pass_flops: float


@dataclass(frozen=True)
class Images:
    """Images to learn from and to validate with, and the stored views for so many epochs."""

    train: int
    val: int
    views: Callable[[int], int]


@dataclass(frozen=True)
class Training:
    """A configuration, and what it costs by part."""

    pupil: Pupil
    way: Way
    master: Master | None
    targets: str | None
    views: int | None
    epochs: int
    seconds: Mapping[str, float]
    flops: Mapping[str, float]


@dataclass(frozen=True)
class Choice(Training):
    """A configuration with what the laws say of it; `None` where there is no such law. `why_shorter` says what keeps it
    from the epochs that the budget would pay for.
    """

    error: Said
    loss: Said | None
    why_shorter: str | None = None

    @property
    def outside(self) -> tuple[str, ...]:
        """Amounts that lie too far from the runs for the laws to hold."""
        return tuple(
            dict.fromkeys([*self.error.outside, *(self.loss.outside if self.loss else ())])
        )


@dataclass(frozen=True)
class Laws:
    """Laws of one way: of the error, by which is chosen, and of the loss."""

    error: Law
    loss: Law | None = None


@dataclass(frozen=True)
class Advice:
    """Configurations within the budget, the best first, and those of which the laws tell nothing; the best for other
    budgets, and in other cases of who pays for the teacher, where it is another.
    """

    choices: tuple[Choice, ...]
    beyond: tuple[Choice, ...]
    others: Mapping[float, Choice]
    scenarios: Mapping[str, Choice]


def advise(
    effort: Effort,
    pupils: Sequence[Pupil],
    masters: Sequence[Master],
    images: Images,
    laws: Mapping[Way, Laws],
) -> Advice:
    """The best configurations within `effort`, by the error that is said."""
    every = ranked(effort, pupils, masters, images, laws)
    found = [choice for choice in every if not choice.outside]

    def another(given: Effort, scenario: Scenario) -> Choice | None:
        again = ranked(given, pupils, masters, images, laws, scenario)
        if not found or not again or again[0].outside or _same(again[0], found[0]):
            return None
        return again[0]

    others = {share: another(_scaled(effort, share), ALL_PAID) for share in OTHER_BUDGETS}
    cases = {name: another(effort, case) for name, case in SCENARIOS.items() if case != ALL_PAID}
    return Advice(
        tuple(found),
        tuple(choice for choice in every if choice.outside),
        {share: choice for share, choice in others.items() if choice is not None},
        {name: choice for name, choice in cases.items() if choice is not None},
    )


def ranked(
    effort: Effort,
    pupils: Sequence[Pupil],
    masters: Sequence[Master],
    images: Images,
    laws: Mapping[Way, Laws],
    scenario: Scenario = ALL_PAID,
) -> list[Choice]:
    """Every configuration within `effort`, the best first, each with the epochs that are best for it; those that lie
    outside the laws come last.
    """
    plans = [
        plan
        for pupil in pupils
        for way in laws
        if way.start == pupil.start
        for plan in _plans(pupil, way, masters if way.taught else (None,), images, effort, scenario)
    ]
    alone = {way.start: known for way, known in laws.items() if not way.taught}
    choices: list[Choice] = []
    for way, known in laws.items():
        own = [plan for plan in plans if plan.way == way]
        base = alone.get(way.start)
        if not own or (way.taught and base is None and _needs_alone(known)):
            continue
        errors = known.error.say_all(
            _asked(own, base.error if base else None, error=True, seen=images)
        )
        losses: Sequence[Said | None] = [None] * len(own)
        if known.loss is not None and not (way.taught and base is None):
            of = base.loss if base else None
            if not way.taught or of is not None or "alone" not in known.loss.fitted.form.reads:
                losses = known.loss.say_all(_asked(own, of, error=False, seen=images))
        choices += [
            Choice(**vars(plan), error=error, loss=loss)
            for plan, error, loss in zip(own, errors, losses, strict=True)
        ]
    return sorted(_longest_or_best(choices), key=_order)


def _order(choice: Choice) -> tuple[bool, float, float]:
    return bool(choice.outside), choice.error.value, sum(choice.seconds.values())


def _longest_or_best(choices: Sequence[Choice]) -> list[Choice]:
    """Of each configuration one length: the longest of which the laws tell, or a shorter one that is said to be better
    by more than WORTH.
    """
    lengths: dict[tuple[object, ...], list[Choice]] = {}
    for choice in choices:
        lengths.setdefault((choice.pupil, choice.way, choice.master, choice.targets), []).append(
            choice
        )
    found = []
    for same in lengths.values():
        longest = max(same, key=lambda c: c.epochs)
        inside = [choice for choice in same if not choice.outside] or same
        held = max(inside, key=lambda c: c.epochs)
        best = min(inside, key=_order)
        if best.error.value < (1 - WORTH) * held.error.value:
            found.append(replace(best, why_shorter="more epochs are said to do harm"))
        elif held is not longest:
            found.append(replace(held, why_shorter="the laws tell nothing of more epochs"))
        else:
            found.append(longest)
    return found


def _plans(
    pupil: Pupil,
    way: Way,
    masters: Sequence[Master | None],
    images: Images,
    effort: Effort,
    scenario: Scenario,
) -> list[Training]:
    found = []
    for master in masters:
        for targets in ("stored", "live") if master is not None else (None,):
            plan = None
            for epochs in range(1, MOST_EPOCHS + 1):
                longer = _plan(pupil, way, master, targets, images, epochs, scenario)
                if not _pays(effort, longer):
                    break
                plan = longer
            if plan is not None:
                for epochs in sorted({max(1, round(plan.epochs * share)) for share in SHORTER}):
                    found.append(_plan(pupil, way, master, targets, images, epochs, scenario))
    return found


def _plan(
    pupil: Pupil,
    way: Way,
    master: Master | None,
    targets: str | None,
    images: Images,
    epochs: int,
    scenario: Scenario,
) -> Training:
    seen, views = epochs * images.train, None
    step = pupil.train_s if master is None else pupil.taught_s
    seconds = [seen * step + epochs * images.val * pupil.validate_s]
    flops = [training_flops(pupil.macs, seen)]
    if master is not None:
        views = images.views(epochs) if targets == "stored" else epochs
        passed = images.train * views
        seconds += [passed * master.pass_s, master.prepare_s]
        flops += [passed * master.pass_flops, master.prepare_flops]
    return Training(
        pupil, way, master, targets, views, epochs, bill(scenario, *seconds), bill(scenario, *flops)
    )  # fmt: skip


def _pays(effort: Effort, plan: Training) -> bool:
    if effort.seconds is not None:
        return sum(plan.seconds.values()) <= effort.seconds
    assert effort.flops is not None
    return sum(plan.flops.values()) <= effort.flops


def _asked(
    plans: Sequence[Training], base: Law | None, *, error: bool, seen: Images
) -> list[Asked]:
    found = []
    for plan in plans:
        value = None
        if plan.master is not None:
            value = plan.master.error if error else plan.master.loss
        pupil = plan.pupil
        found.append(
            Asked(
                pupil.model, pupil.params, pupil.macs, plan.epochs * seen.train, seen.train, value
            )
        )
    if base is None:
        return found
    return base.beside(found)


def _needs_alone(laws: Laws) -> bool:
    return "alone" in laws.error.fitted.form.reads


def _scaled(effort: Effort, share: float) -> Effort:
    return Effort(
        None if effort.seconds is None else effort.seconds * share,
        None if effort.flops is None else effort.flops * share,
    )


def _same(one: Choice, other: Choice) -> bool:
    """Whether two choices differ in nothing but their length."""
    return (one.pupil, one.way, one.master, one.targets) == (
        other.pupil, other.way, other.master, other.targets,
    )  # fmt: skip
