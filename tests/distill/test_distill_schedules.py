"""The learning rate over a run."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.distill.schedules import cosine


def test_the_rate_climbs_in_equal_steps_to_the_peak_and_then_falls_as_a_cosine() -> None:
    got = [cosine(step, 12, 0.25) for step in range(12)]
    assert got[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    want = [0.5 * (1 + math.cos(math.pi * k / 9)) for k in range(9)]
    assert got[3:] == pytest.approx(want)


def test_without_warm_up_the_first_step_is_at_the_peak() -> None:
    assert cosine(0, 10, 0.0) == 1.0
    assert cosine(5, 9, 0.0) == pytest.approx(0.5)


def test_a_run_of_one_step_trains_at_the_peak() -> None:
    assert cosine(0, 1, 0.15) == 1.0


@given(st.integers(1, 500), st.floats(0, 0.99))
def test_every_step_trains_and_none_passes_the_peak(steps: int, warmup: float) -> None:
    values = [cosine(step, steps, warmup) for step in range(steps)]
    assert all(0 < value <= 1 for value in values)
    assert max(values) == 1.0
    top = values.index(1.0)
    assert values[: top + 1] == sorted(values[: top + 1])
    assert values[top:] == sorted(values[top:], reverse=True)
