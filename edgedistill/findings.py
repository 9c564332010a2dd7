"""What the arms, the teacher, the student and the data turned out to be, for the result document."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ontarget.machine import machine

from edgedistill import metrics
from edgedistill.result import (
    Artifact,
    Calibration,
    Data,
    Environment,
    Gain,
    Member,
    Student,
    Teacher,
)
from edgedistill.rundir import git_commit, python_version, versions
from edgedistill.target.students import find_student

if TYPE_CHECKING:
    from edgedistill.learning import Build

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
FEW_TEST_IMAGES = 100
"""Under this many, the 95 % interval of an accuracy is wider than 10 points on each side at worst."""


@dataclass(frozen=True)
class Outcome:
    """Logits on the test images (N, C) of each network and each file, with labels (N,)."""

    networks: Mapping[str, Floats]
    files: Mapping[str, Floats]
    labels: Ints

    def right(self, name: str) -> npt.NDArray[np.bool_]:
        """Which images a network or file gets right (N,)."""
        logits = self.networks[name] if name in self.networks else self.files[name]
        return metrics.correct(logits, self.labels)


def teacher_of(learn: Build, outcome: Outcome, gain: Gain) -> Teacher:
    """The teacher, its members, how soft it is on test, and in words whether it is better than the plain student."""
    facts = learn.teacher.facts
    student = metrics.predictions(outcome.networks[learn.chosen_arm])
    agreement = float(np.mean(student == metrics.predictions(outcome.networks["teacher"])))
    return Teacher(
        model=facts["model"],
        source=facts["source"],
        revision=facts["revision"],
        adaptation=facts["adaptation"],
        adaptation_reason=facts["reason"],
        params=facts["params"],
        input_size=facts["look"]["size"],
        top1=metrics.proportion(outcome.right("teacher")),
        val_top1=facts["val_top1"],
        calibration=Calibration.model_validate(
            metrics.calibration(outcome.networks["teacher"], outcome.labels).model_dump()
        ),
        entropy=metrics.entropy(outcome.networks["teacher"]),
        entropy_unknowing=math.log(outcome.networks["teacher"].shape[1]),
        student_agreement=agreement,
        combine=facts["combine"],
        members=[_member(member) for member in facts["members"]],
        members_agreement=facts["softness"]["agreement"],
        seconds=learn.teacher_seconds,
        licence=facts["licence"],
        words=teacher_words(outcome.right("teacher"), outcome.right("plain"), gain),
    )


def _member(facts: Mapping[str, Any]) -> Member:
    """One teacher of several; its figures are of the validation split."""
    return Member(
        model=facts["name"],
        adaptation=facts["adaptation"],
        adaptation_reason=facts["reason"],
        params=facts["params"],
        flops=facts["flops"],
        input_size=facts["look"]["size"],
        val_top1=facts["val_top1"],
        calibration=Calibration.model_validate(facts["calibration"]),
        entropy=facts["softness"]["entropy"],
        licence=facts["licence"],
    )


def teacher_words(teacher: Bools, plain: Bools, gain: Gain) -> str:
    """Whether the teacher is better than the plain student, from which images each has right (N,).

    What it can give is not judged against what it gave: `gain` is the distilled arm's.
    """
    if teacher.all() and plain.all():
        return "Teacher and plain student are right on every test image: nothing is left to learn"
    against = metrics.paired_gain(teacher, plain, "plain")
    if metrics.measurable(against) and against.value > 0:
        return f"The teacher is better than the plain student: {against.words}"
    how = "worse than" if metrics.measurable(against) else "not measurably better than"
    words = f"The teacher is {how} the plain student ({against.words})"
    if metrics.measurable(gain) and gain.value > 0:
        return f"{words}; the distilled arm gained from it all the same"
    return f"{words}, and the distilled arm shows no gain from it: a stronger teacher may help"


def student_of(learn: Build) -> Student:
    """The student and where its weights came from."""
    spec, facts = learn.spec, learn.start.facts
    return Student(
        model=spec.model,
        input_size=spec.size,
        params=facts["params"],
        macs=find_student(spec.model).macs(spec.size, spec.classes),
        weights="pretrained" if spec.pretrained or spec.prune_from else "random",
        weights_source=facts["source"],
        weights_reason=(
            f"cut out of {spec.prune_from} while it learned"
            if spec.prune_from
            else learn.resolved.reasons.get("student.weights", "asked for")
        ),
        licence=facts["licence"],
        reason=learn.plan.chosen.reason,
    )


def data_of(learn: Build, labels: Ints) -> Data:
    """The data as stage 01 left it; `labels` (N,) are those of the test images."""
    facts = {k: v for k, v in learn.data.facts.items() if k != "image_side"}
    each = np.bincount(labels, minlength=len(facts["classes"])).tolist()
    licence = learn.licences["data"]
    return Data.model_validate({**facts, "per_class_test": each, "licence": licence})


def remarks_of(learn: Build, teacher: Teacher, artifacts: list[Artifact]) -> list[str]:
    """What a reader must know beside the limits and the arms."""
    remarks = [teacher.words]
    early = learn.recipe.distill.curriculum == "teacher_checkpoints"
    if early and len(learn.teacher.facts["members"]) == 1:
        remarks.append(
            "The curriculum of early teacher states had none: the teacher was not fine-tuned over several epochs."
        )
    for member in learn.teacher.facts["members"]:
        remarks += [f"Teacher {member['model']}: {note}" for note in member["notes"]]
    if learn.selection is not None:
        remarks.append(f"Teacher chosen {learn.selection.facts['words']}")
    recipe = learn.recipe
    views, epochs = int(str(recipe.distill.views)), int(str(recipe.distill.epochs))
    if views == 1 and epochs > 2:
        remarks.append(
            f"One stored view was shown in all {epochs} epochs, which overfits: "
            "give more with --set distill.views=..."
        )
    unstable = [a.name for a in artifacts if any(row.stable is False for row in a.latency)]
    if unstable:
        remarks.append(f"Latency measured here was unstable for {', '.join(unstable)}.")
    return remarks


def warnings_of(chosen: Artifact, labels: Ints) -> list[str]:
    """What makes the accuracy worth little: a file no better than a constant answer, or few test images."""
    top1 = chosen.top1
    assert top1 is not None and top1.ci95 is not None
    low, high = (100 * edge for edge in top1.ci95)
    remarks = []
    constant = float(np.bincount(labels).max()) / len(labels)
    if top1.ci95[0] <= constant:
        remarks.append(
            f"The file that ships ({100 * top1.value:.1f} %) is not measurably better than always "
            f"answering the most frequent class ({100 * constant:.1f} %): it has learned too little. "
            "Give more images or more epochs (--set distill.epochs=...)."
        )
    if top1.n < FEW_TEST_IMAGES:
        remarks.append(
            f"The test split has {top1.n} images only: the true top-1 lies between {low:.0f} and "
            f"{high:.0f} %. Give more images for a number to rely on."
        )
    return remarks


def environment() -> Environment:
    """This machine and what is installed on it."""
    here = machine()
    gpu = None
    try:
        import torch

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    except ImportError:
        gpu = None
    return Environment(
        cpu=str(here.get("cpu") or "unknown processor"),
        cores=int(here.get("cores") or 0),
        memory_bytes=here.get("memory_bytes"),
        gpu=gpu,
        os=str(here.get("os") or "unknown"),
        python=python_version(),
        packages=versions(),
        git=git_commit(),
    )
