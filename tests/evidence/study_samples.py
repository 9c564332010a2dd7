"""Studies for the tests of their views: documents of any size, made up, with every part that a view shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgedistill import metrics
from edgedistill.result import Environment
from edgedistill.seeds import image_gain, seed_gain
from edgedistill.studyproof import headline, mean_of
from edgedistill.studyresult import (
    SeedRun,
    StudyArm,
    StudyClaim,
    StudyData,
    StudyResult,
    StudyTeacher,
)

TEST = 2000
CROWD = (
    ("plain", "plain", 0.862, 61.0, 0.0), ("kd", "distilled", 0.868, 66.0, 150.0),
    ("align_uniform", "distilled", 0.871, 72.0, 150.0), ("dist", "distilled", 0.8705, 67.0, 150.0),
    ("dkd", "distilled", 0.869, 67.0, 150.0), ("linear_probe", "linear_probe", 0.852, 9.0, 0.0),
    ("finetune", "finetune", 0.882, 95.0, 0.0), ("finetune+distill", "distilled", 0.886, 108.0, 150.0),
)  # fmt: skip
"""Arms as they come out in life: name, kind, top-1, seconds of training, seconds of the teacher."""


def teacher(top1: float = 0.894, key: str = "a" * 12, seconds: float = 120.0) -> StudyTeacher:
    """A teacher that is right on a share of the test images."""
    right = np.arange(TEST) < round(top1 * TEST)
    return StudyTeacher(
        key=key, model="bundled:efficientnet_lite2", adaptation="fine-tuned", val_top1=0.908,
        top1=metrics.proportion(right), seconds=seconds,
    )  # fmt: skip


def _rights(top1: float, seeds: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.random(TEST) < top1 + 0.002 * s for s in range(seeds)])


def make_arm(
    name: str, kind: str, top1: float, training: float, taught: float, seeds: int = 3, index: int = 0,
    against: np.ndarray | None = None, by: StudyTeacher | None = None,
) -> StudyArm:  # fmt: skip
    """An arm whose runs are right at random on a share of the images."""
    rights = _rights(top1, seeds, index)
    shares = [float(right.mean()) for right in rights]
    gain, by_image = None, None
    if against is not None:
        gain = seed_gain(shares, [float(a.mean()) for a in against], "plain")
        by_image = image_gain(rights, against, "plain")
    parts = {"training": training, "start": 0.2}
    if taught:
        parts |= {"teacher preparation": taught - 30, "storing teacher outputs": 30.0}
    runs = [
        SeedRun(
            seed=s, top1=metrics.proportion(rights[s]), val_top1=min(1.0, top1 + 0.01), seconds=training,
            gain=None if against is None else metrics.paired_gain(rights[s], against[s], "plain"),
            steps=375, epochs=2, passes=12_000, weights_sha256=f"{index * 64 + s:064x}",
        )
        for s in range(seeds)
    ]  # fmt: skip
    return StudyArm(
        name=name, kind=kind, what="labels and the teacher" if taught else "labels alone",
        changes={"distill.method": name, "distill.epochs": 2} if taught else {},
        student="mobilenetv4_conv_small", input_size=64, start="random", train_images=6000, runs=runs,
        top1=mean_of(shares), val_top1=mean_of([min(1.0, top1 + 0.01)] * seeds), seed_gain=gain, image_gain=by_image,
        passes=12_000, seconds=training, seconds_total=sum(parts.values()), seconds_parts=parts,
        flops_parts={"training": 2.4e14}, teacher=(by or teacher()) if taught else None,
    )  # fmt: skip


def _claim(arms: Sequence[StudyArm], place: int) -> StudyClaim:
    """A claim about an arm and the baseline."""
    arm = arms[place]
    return StudyClaim(
        says=f"Better is {arm.name}", source="Hinton et al. 2015" if place else None, better=arm.name, than="plain",
        by=-0.005 * place, seed_gain=arm.seed_gain, image_gain=arm.image_gain,
        verdict="holds here" if place else "cannot be told",
    )  # fmt: skip


def make_study(
    arms: Sequence[tuple[str, str, float, float, float]] = CROWD, seeds: int = 3, **facts: Any
) -> StudyResult:
    """A study whose first arm is the baseline."""
    base = _rights(arms[0][2], seeds, 0)
    made = [
        make_arm(*arm, seeds=seeds, index=i, against=None if i == 0 else base)
        for i, arm in enumerate(arms)
    ]
    found: dict[str, Any] = {
        "study": "which-loss", "created_utc": "2026-11-22T10:00:00Z", "version": "0.1.0",
        "command": "edgedistill study recipes/study-losses.yaml --seeds 3", "seeds": list(range(seeds)),
        "baseline": arms[0][0],
        "environment": Environment(
            cpu="AMD EPYC", cores=2, os="Linux", python="3.11.9", packages={"torch": "2.15.0"}
        ),
        "data": StudyData(
            name="fashion-mnist-sample", source="builtin:fashion-mnist", classes=10, val=1000, test=TEST,
            test_sha256="0" * 64,
        ),
        "arms": made, "seconds_spent": 1234.5, "headline": headline(made, arms[0][0]),
        "claims": [_claim(made[1:], place) for place in range(min(2, len(made) - 1))],
        "remarks": ["The arm that is best of several on the same test images is flattered by that choice."],
    }  # fmt: skip
    return StudyResult(**(found | facts))


def unrun(study: StudyResult, *names: str) -> StudyResult:
    """The same study with some arms not run yet."""
    arms = [
        StudyArm(name=arm.name, kind=arm.kind, what=arm.what, changes=arm.changes)
        if arm.name in names
        else arm
        for arm in study.arms
    ]
    return study.model_copy(update={"arms": arms, "headline": headline(arms, study.baseline)})
