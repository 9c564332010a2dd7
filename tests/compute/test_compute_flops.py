"""Operations are those of the published account."""

from __future__ import annotations

import pytest

from edgedistill.compute.flops import (
    ASKED,
    PREPARED,
    SCENARIOS,
    TRAINED,
    bill,
    forward_flops,
    training_flops,
)

MACS, SEEN, TEACHER, TAUGHT_ON = 50e6, 200_000, 400e6, 1_000_000


@pytest.mark.parametrize(
    ("name", "passes", "training"),
    [
        ("free", 0, 0),
        ("exists", 2 * TEACHER * SEEN, 0),
        ("many_students", 0, 6 * TEACHER * TAUGHT_ON),
        ("one_student", 2 * TEACHER * SEEN, 6 * TEACHER * TAUGHT_ON),
    ],
)
def test_each_scenario_pays_for_what_table_2_says(
    name: str, passes: float, training: float
) -> None:
    found = bill(
        SCENARIOS[name], training_flops(MACS, SEEN), forward_flops(TEACHER, SEEN),
        training_flops(TEACHER, TAUGHT_ON),
    )  # fmt: skip
    assert found.get(ASKED, 0) == passes
    assert found.get(PREPARED, 0) == training
    assert found[TRAINED] == 6 * MACS * SEEN
    assert sum(found.values()) == 6 * MACS * SEEN + passes + training


def test_a_student_without_a_teacher_pays_for_its_training_alone() -> None:
    assert sum(bill(SCENARIOS["one_student"], 7.0).values()) == 7.0


def test_training_costs_three_forward_passes() -> None:
    assert training_flops(MACS, 7) == 3 * forward_flops(MACS, 7)
