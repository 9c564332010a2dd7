"""What the arms say of distillation, in words: each comparison by name, what it cost, and what happened on the way.

Two comparisons are always named: at equal steps (or, where early stop ended the arms at different ones, at the same
schedule), and at equal seconds with the teacher and storing counted. One that was not made says so, and how to make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgedistill.evidence.view import figures
from edgedistill.result import Arm, Gain, Result, SeedGain, SeedTop1

PLAIN, LONGER, DISTILLED, SYNTHETIC = "plain", "plain_longer", "distilled", "distilled+synthetic"
STEPS, SCHEDULE, SECONDS = "Equal steps", "Same schedule", "Equal seconds"
COUNTED = " (teacher and storing counted)"
ADDED = "Synthetic images"
ABOUT = "Distillation, "
HOW = "--set proof.equal_seconds=true trains a plain arm for as long"


@dataclass(frozen=True)
class Comparison:
    """The distilled arm against another: `title` in few words, `more` beside it, what was found.

    `gain` is `None` where the comparison was not made.
    """

    title: str
    more: str
    words: str
    against: str
    gain: Gain | SeedGain | None


def taught_arm(arms: Sequence[Arm]) -> Arm | None:
    """The arm that was compared with the others, `None` when none was."""
    return next((arm for arm in arms if arm.gain is not None or arm.gains), None)


def comparisons(arms: Sequence[Arm]) -> list[Comparison]:
    """Equal steps, equal seconds, over seeds, then every other arm; empty when nothing was compared."""
    taught = taught_arm(arms)
    if taught is None:
        return []
    gains = gains_over(arms)
    steps = taught.gain or gains.get(PLAIN)
    found = []
    title, more = STEPS, ""
    if steps is not None:
        title, more = _steps(arms, taught, steps.against)
        found.append(Comparison(title, more, steps.words, steps.against, steps))
    longer = gains.get(LONGER)
    words = not_at_equal_seconds(arms) if longer is None else longer.words + _took(arms, taught)
    found.append(Comparison(SECONDS, COUNTED, words, LONGER, longer))
    if taught.seed_gain is not None:
        over = taught.seed_gain
        found.append(
            Comparison(
                f"Over {over.seeds} seeds", f", {title.lower()}", over.words, over.against, over
            )
        )
    own = {PLAIN, LONGER, *([steps.against] if steps else [])}
    found += [
        Comparison(f"Against {gain.against}", "", gain.words, gain.against, gain)
        for gain in taught.gains
        if gain.against not in own
    ]
    return found + _synthetic(arms)


def _synthetic(arms: Sequence[Arm]) -> list[Comparison]:
    """What synthetic images added to the distilled arm at equal steps; empty where there were none."""
    arm = next((arm for arm in arms if arm.name == SYNTHETIC), None)
    if arm is None:
        return []
    title, more = _steps(arms, arm, DISTILLED)
    how = f", {title.lower()}{more}"
    found = [
        Comparison(ADDED, how, gain.words, gain.against, gain)
        for gain in arm.gains
        if gain.against == DISTILLED
    ]
    if arm.seed_gain is not None:
        over = arm.seed_gain
        title = f"{ADDED} over {over.seeds} seeds"
        found.append(Comparison(title, how, over.words, over.against, over))
    return found


def _steps(arms: Sequence[Arm], taught: Arm, against: str) -> tuple[str, str]:
    """What an arm and the distilled one have in common: their steps, or after an early stop the schedule alone."""
    other = next((arm for arm in arms if arm.name == against), taught)
    if other.steps == taught.steps:
        return STEPS, ""
    return SCHEDULE, f" (early stop: {taught.steps:,} steps, {against} {other.steps:,})"


def gains_over(arms: Sequence[Arm]) -> dict[str, Gain]:
    """What the distilled arm gained over each arm, by name."""
    taught = taught_arm(arms)
    if taught is None:
        return {}
    return {gain.against: gain for gain in (*taught.gains, *([taught.gain] if taught.gain else []))}


def not_at_equal_seconds(arms: Sequence[Arm]) -> str:
    """Why nothing is said of equal seconds: what each arm took, and how to compare them."""
    taught = taught_arm(arms)
    plain = next((arm for arm in arms if arm.name == PLAIN), None)
    if taught is None or plain is None:
        return f"not compared; {HOW}"
    return (
        f"not compared. Distillation took {figures.duration(taught.seconds)} in all, "
        f"{figures.duration(own_seconds(taught))} of them without the teacher, plain training "
        f"{figures.duration(plain.seconds)}; {HOW}"
    )


def _took(arms: Sequence[Arm], taught: Arm) -> str:
    """How equal the seconds were."""
    longer = next((arm for arm in arms if arm.name == LONGER), None)
    if longer is None:
        return ""
    took = figures.duration(longer.seconds)
    return f"; plain training took {took}, distillation {figures.duration(taught.seconds)} in all"


def own_seconds(arm: Arm) -> float:
    """Seconds of an arm without the teacher's preparation and the storing of its outputs, which serve many students."""
    return arm.seconds - sum(s for part, s in arm.seconds_parts.items() if "teacher" in part)


def costs(arms: Sequence[Arm]) -> str:
    """What distillation took with and without the teacher, beside every other arm; empty when nothing was compared."""
    taught = taught_arm(arms)
    if taught is None:
        return ""
    others = ", ".join(
        f"{figures.short(arm.name)} {figures.duration(arm.seconds)}"
        for arm in arms
        if arm is not taught
    )
    return (
        f"Distillation took {figures.duration(taught.seconds)}, the teacher and storing counted, and "
        f"{figures.duration(own_seconds(taught))} not counted, as they serve many students. "
        f"The other arms: {others or 'none'}."
    )


def cost_parts(arms: Sequence[Arm]) -> list[str]:
    """Names of the parts of the work of which seconds or operations are known."""
    return list(dict.fromkeys(p for arm in arms for p in (*arm.seconds_parts, *arm.flops_parts)))


def seed_rows(arms: Sequence[Arm]) -> list[tuple[int, list[SeedTop1 | None]]]:
    """Each seed with what every arm reached with it; empty where there was one seed only."""
    seeds = dict.fromkeys(found.seed for arm in arms for found in arm.seeds)
    return [
        (seed, [next((s for s in arm.seeds if s.seed == seed), None) for arm in arms])
        for seed in seeds
    ]


def notes(arms: Sequence[Arm]) -> list[str]:
    """What happened while the arms trained: a loss that ran away, a batch that did not fit, a stage that began."""
    return [f"{arm.name}: {note}" for arm in arms for note in arm.notes]


def arm_remarks(arms: Sequence[Arm]) -> list[str]:
    """All of it as remarks of the verdict."""
    made = comparisons(arms)
    words = [
        f"{c.title}{c.more}: {c.words}"
        if c.title.startswith(ADDED)
        else f"{ABOUT}{c.title[0].lower()}{c.title[1:]}{c.more}: {c.words}"
        for c in made
    ]
    return words + notes(arms)


def other_remarks(result: Result) -> list[str]:
    """The remarks of the verdict that a view does not say beside the arms already."""
    said, made = set(notes(result.arms)), bool(comparisons(result.arms))
    return [
        remark
        for remark in result.verdict.remarks
        if remark not in said and not (made and remark.startswith((ABOUT, ADDED)))
    ]
