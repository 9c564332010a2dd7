"""What accuracy to expect of a student before it is trained: a prior that ranks, and promises nothing.

It rests on the published ImageNet accuracy of the student's weights, the input size and the start, and, where the user
has runs to show, on what students reached in them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgedistill.errors import DocumentError, UsageError
from edgedistill.result import Precision, Result, load
from edgedistill.target.students import Student, load_students

LOSS_PER_HALVING = 0.08
"""Top-1 that halving the input costs: MobileNetV2 1.0 has 71.8 % at 224, 65.3 % at 128 and 60.3 %
at 96 pixels (table in the Keras documentation of MobileNetV2), which is 0.08 to 0.09 a halving."""
RANDOM_START_LOSS = 0.10
"""What training from random weights costs on small data: on 10,000 images of Fashion-MNIST at 96
px a fine-tuned tf_efficientnet_lite0 reaches 0.921, mobilenetv4_conv_small from random weights
0.825, at nearly equal ImageNet top-1."""
INT8_LOSS = 0.02
"""What planning holds against a candidate that only fits as INT8: that file can still be refused
for its accuracy."""
STUDENT_SHRINK, FAMILY_SHRINK = 1.0, 2.0
"""Runs that "nothing special" counts for, beside those of a student or of its family."""
MOST_RUNS = 500


@dataclass(frozen=True)
class Earlier:
    """What students reached in earlier runs, beyond what the prior expected, against the mean of all runs."""

    students: Mapping[str, float] = field(default_factory=dict)
    families: Mapping[str, float] = field(default_factory=dict)
    runs: int = 0

    def of(self, student: Student) -> float:
        """What to add for a student, in fractions of top-1: its own runs, else those of its family."""
        return self.students.get(student.name, self.families.get(student.family, 0.0))


NOTHING = Earlier()


def expected_top1(
    student: Student,
    input_size: int,
    precision: Precision,
    *,
    pretrained: bool,
    earlier: Earlier = NOTHING,
) -> float:
    """Expected top-1, a fraction in 0..1, by which candidates are ranked.

    ImageNet top-1 of the published weights, less `LOSS_PER_HALVING` for each halving of their
    input size, less `RANDOM_START_LOSS` from random weights, less `INT8_LOSS` in INT8, plus what
    the student or its family reached beyond that in `earlier` runs.
    """
    prior = student.imagenet_top1 + earlier.of(student)
    prior -= LOSS_PER_HALVING * max(0.0, math.log2(student.native_size / input_size))
    prior -= 0.0 if pretrained else RANDOM_START_LOSS
    prior -= INT8_LOSS if precision == "int8" else 0.0
    return min(max(prior, 0.0), 1.0)


def read_earlier(folder: Path) -> Earlier:
    """The runs (`*/result.json`) of a folder. Raises `UsageError` when it holds none that can be read."""
    results = []
    for path in sorted(folder.glob("*/result.json"))[:MOST_RUNS]:
        try:
            results.append(load(path))
        except DocumentError:
            continue
    if not results:
        raise UsageError(
            f"plan.earlier names {folder}, and no folder in it holds a result.json that can be read: give the folder "
            "that holds your run folders, such as runs, or leave it out."
        )
    return earlier_from(results)


def earlier_from(results: Sequence[Result]) -> Earlier:
    """Deviations by student and family, of the validation top-1 of each run's chosen arm."""
    known = {student.name: student for student in load_students()}
    away: list[tuple[Student, float]] = []
    for result in results:
        student = known.get(result.student.model)
        arm = next((a for a in result.arms if a.name == result.chosen_arm), None)
        if student is None or arm is None or arm.val_top1 is None:
            continue
        pretrained = result.student.weights == "pretrained"
        size = min(result.student.input_size, max(student.sizes))
        expected = expected_top1(student, size, "float32", pretrained=pretrained)
        away.append((student, arm.val_top1 - expected))
    if len({student.name for student, _ in away}) < 2:
        return Earlier(runs=len(away))
    mean = sum(value for _, value in away) / len(away)
    students: dict[str, list[float]] = defaultdict(list)
    families: dict[str, list[float]] = defaultdict(list)
    for student, value in away:
        students[student.name].append(value - mean)
        families[student.family].append(value - mean)
    return Earlier(
        {name: sum(v) / (len(v) + STUDENT_SHRINK) for name, v in students.items()},
        {name: sum(v) / (len(v) + FAMILY_SHRINK) for name, v in families.items()},
        len(away),
    )
