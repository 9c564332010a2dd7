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


TRAINED, ASKED, PREPARED = "training", "teacher's outputs", "teacher preparation"
"""Parts of what a student costs."""


def bill(
    scenario: Scenario, training: float, outputs: float = 0.0, preparation: float = 0.0
) -> dict[str, float]:
    """What is paid for of each part: equation 9 of Busbridge et al. 2025, in operations or in seconds.

    3 F_S D_S + F_T (delta_logits D_S + 3 delta_teacher D_T), where F is two operations for each multiply-accumulate:
    `training` of the student, `outputs` of the teacher for its sake (fewer where views are stored and seen again), and
    `preparation` of the teacher.
    """
    parts = {TRAINED: training}
    if scenario.logits:
        parts[ASKED] = outputs
    if scenario.teacher:
        parts[PREPARED] = preparation
    return parts
