"""What the arms turned out to be: accuracy with intervals, gains, and what each part of the work cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from edgedistill import metrics
from edgedistill.arms import DISTILLED, FINETUNE, PLAIN, PROBE, SYNTH, TAUGHT, WORDS, Arm
from edgedistill.compute.flops import training_flops
from edgedistill.findings import Outcome
from edgedistill.result import Arm as ArmResult
from edgedistill.result import CurvePoint, SeedGain, SeedTop1
from edgedistill.seeds import seed_gain
from edgedistill.target.students import find_student, load_students
from edgedistill.teaching import is_live

if TYPE_CHECKING:
    from edgedistill.learning import Build


def arms_of(learn: Build, outcome: Outcome) -> list[ArmResult]:
    """Every arm with intervals, seeds and costs by part; the distilled one with its gains over the others, the one with
    synthetic images with its gains over plain and over distilled.
    """
    return [_arm(learn, arm, outcome) for arm in learn.arms if arm.first]


def _arm(learn: Build, arm: Arm, outcome: Outcome) -> ArmResult:
    facts = learn.arm(arm).facts
    predictions = metrics.predictions(outcome.networks[arm.key])
    others = [other.name for other in learn.arms if other.first and other.name not in TAUGHT]
    compared = {DISTILLED: others, SYNTH: [PLAIN, DISTILLED]}.get(arm.name, [])
    gains = [
        metrics.paired_gain(outcome.right(arm.key), outcome.right(other), other)
        for other in compared
    ]
    seconds, flops = seconds_of(learn, arm), flops_of(learn, arm)
    return ArmResult(
        name=arm.name,
        what=WORDS[arm.name],
        top1=metrics.proportion(outcome.right(arm.key)),
        val_top1=facts["val_top1"],
        balanced_accuracy=metrics.balanced_accuracy(
            predictions, outcome.labels, learn.spec.classes
        ),
        steps=facts["steps"],
        epochs=facts["epochs"],
        seconds=sum(seconds.values()),
        seconds_parts=seconds,
        flops_parts=flops,
        flops=sum(flops.values()) if flops else None,
        weights_sha256=facts["weights_sha256"],
        gain=next((gain for gain in gains if gain.against == PLAIN), None),
        gains=gains,
        seeds=_seeds(learn, arm.name, outcome),
        seed_gain=_seed_gain(learn, arm.name, outcome),
        notes=facts["notes"],
        curve=[CurvePoint.model_validate(p) for p in facts["curve"]],
    )


def _seeds(learn: Build, name: str, outcome: Outcome) -> list[SeedTop1]:
    """Test top-1 of every seed of an arm; empty where there is one seed only."""
    if learn.recipe.proof.seeds == 1:
        return []
    return [
        SeedTop1(
            seed=arm.seed,
            top1=float(outcome.right(arm.key).mean()),
            val_top1=learn.arm(arm).facts["val_top1"],
        )
        for arm in learn.arms
        if arm.name == name
    ]


def _seed_gain(learn: Build, name: str, outcome: Outcome) -> SeedGain | None:
    """Over seeds: the distilled arm against plain, the one with synthetic images against distilled."""
    against = {DISTILLED: PLAIN, SYNTH: DISTILLED}.get(name)
    if against is None or learn.recipe.proof.seeds == 1:
        return None
    mine, theirs = ([s.top1 for s in _seeds(learn, n, outcome)] for n in (name, against))
    return seed_gain(mine, theirs, against)


def seconds_of(learn: Build, arm: Arm) -> dict[str, float]:
    """Seconds of each part of an arm's work."""
    parts = {"training": float(learn.arm(arm).facts["training_seconds"])}
    if arm.name in TAUGHT:
        parts["teacher preparation"] = learn.teacher_seconds
        parts["storing teacher outputs"] = sum(done.seconds for done in learn.stored_of(arm))
    if arm.name == SYNTH:
        facts = learn.pixels_of(arm).facts
        parts["synthetic images"] = facts["making_seconds"] + facts["judging_seconds"]
    return parts


def flops_of(learn: Build, arm: Arm) -> dict[str, float]:
    """Operations of each part of the work that can be counted; a student that is cut out of a wider one is as wide as
    that one in every step.
    """
    facts, spec = learn.arm(arm).facts, learn.spec
    known = {student.name for student in load_students()}
    trained = spec.model
    if spec.prune_from in known and arm.name not in (PROBE, FINETUNE):
        trained = str(spec.prune_from)
    macs = find_student(trained).macs(spec.size, spec.classes)
    parts = {} if arm.name == PROBE else {"training": training_flops(macs, facts["passes"])}
    if arm.name not in TAUGHT:
        return parts
    prepared, once = _preparation(learn, training_flops(macs, 1)), pass_flops(learn.teacher.facts)
    if prepared is not None:
        parts["teacher preparation"] = prepared
    if once is not None and is_live(learn.recipe):
        parts["teacher at each step"] = once * facts["passes"]
    elif once is not None:
        stored = sum(done.facts["passes"] for done in learn.stored_of(arm))
        parts["storing teacher outputs"] = once * stored
    return parts


def _preparation(learn: Build, step: float) -> float | None:
    """Operations until the teacher was there; `step` are those of the student's training on an image.

    A selected teacher costs what every candidate did, and the short trainings beside each of them.
    """
    if learn.selection is None:
        known = learn.teacher.facts.get("preparation_flops")
        return None if known is None else float(known)
    total = 0.0
    for candidate, tried in zip(learn.candidates, learn.selection.facts["candidates"], strict=True):
        prepared, once = candidate.facts.get("preparation_flops"), pass_flops(candidate.facts)
        if prepared is None or once is None or "passes" not in tried:
            return None
        total += prepared + tried["passes"] * (step + once)
    return total


def pass_flops(teacher: Mapping[str, Any]) -> float | None:
    """Operations of a teacher's pass; their mean where several speak one after the other, as many images each."""
    if teacher["combine"] not in ("ladder", "checkpoints"):
        return cast("float | None", teacher["flops"])
    each = [member["flops"] for member in teacher["members"]]
    return None if None in each else sum(each) / len(each)
