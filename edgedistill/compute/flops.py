"""What a training costs: floating-point operations of each part, in the four cases of who pays for the teacher.

A multiply-accumulate is two operations; a backward pass counts as two forward ones (Busbridge et al. 2025, section 2).
An image stands here for a token there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FORWARD = 2
"""Operations of a forward pass for each multiply-accumulate of it."""
TRAINING = 3 * FORWARD
"""Operations of training on an image for each multiply-accumulate of its forward pass."""


@dataclass(frozen=True)
class Scenario:
    """Who pays for the teacher: its passes over what the student sees (`logits`), and its own training (`teacher`)."""

    name: str
    logits: bool
    teacher: bool
    words: str


SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("free", False, False, "what the teacher says is there: nothing is paid for"),
        Scenario("exists", True, False, "a teacher exists: its passes are paid for"),
        Scenario("many_students", False, True, "one training and storing, for many students"),
        Scenario("one_student", True, True, "a teacher is trained for this student alone"),
    )
}
"""The rows of table 2 of Busbridge et al. 2025, with their delta for logits and for pretraining."""


def training_flops(macs: float, images: float) -> float:
    """Operations of training a network of `macs` on so many images, repeats counted."""
    return TRAINING * macs * images


def forward_flops(macs: float, images: float) -> float:
    """Operations of passing so many images through a network of `macs`."""
    return FORWARD * macs * images


@dataclass(frozen=True)
class Bill:
    """Operations of each part of a student's training; what nobody pays for is 0."""

    training: float
    teacher_passes: float
    teacher_training: float

    @property
    def total(self) -> float:
        """All parts."""
        return self.training + self.teacher_passes + self.teacher_training


def bill(
    scenario: Scenario,
    student_macs: float,
    student_images: float,
    teacher_macs: float,
    teacher_images: float = 0.0,
    passed: float | None = None,
) -> Bill:
    """Equation 9 of Busbridge et al. 2025: 3 F_S D_S + F_T (delta_logits D_S + 3 delta_teacher D_T), F = 2 MACs.

    `teacher_images` are those that the teacher was trained on, `passed` those that go through it for the student's
    sake: as many as the student sees where it is asked at each step, fewer where views are stored and seen again.
    """
    through = student_images if passed is None else passed
    return Bill(
        training_flops(student_macs, student_images),
        forward_flops(teacher_macs, through) if scenario.logits else 0.0,
        training_flops(teacher_macs, teacher_images) if scenario.teacher else 0.0,
    )
