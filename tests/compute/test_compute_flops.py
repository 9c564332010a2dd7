"""Operations are those of the published account."""

from __future__ import annotations

import pytest

from edgedistill.compute.flops import SCENARIOS, bill, forward_flops, training_flops

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
    found = bill(SCENARIOS[name], MACS, SEEN, TEACHER, TAUGHT_ON)
    assert found.teacher_passes == passes
    assert found.teacher_training == training
    assert found.training == 6 * MACS * SEEN
    assert found.total == 6 * MACS * SEEN + passes + training


def test_stored_views_that_are_seen_again_cost_one_pass_each() -> None:
    stored = bill(SCENARIOS["exists"], MACS, SEEN, TEACHER, passed=SEEN / 4)
    assert stored.teacher_passes == 2 * TEACHER * SEEN / 4


def test_training_costs_three_forward_passes() -> None:
    assert training_flops(MACS, 7) == 3 * forward_flops(MACS, 7)
