"""Rates, weights and sides over a run."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.distill.schedules import rate, side, teaching


def test_the_rate_climbs_in_equal_steps_to_the_peak_and_then_falls_as_a_rate() -> None:
    got = [rate(step, 12, 0.25) for step in range(12)]
    assert got[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    want = [0.5 * (1 + math.cos(math.pi * k / 9)) for k in range(9)]
    assert got[3:] == pytest.approx(want)


def test_without_warm_up_the_first_step_is_at_the_peak() -> None:
    assert rate(0, 10, 0.0) == 1.0
    assert rate(5, 9, 0.0) == pytest.approx(0.5)


def test_a_run_of_one_step_trains_at_the_peak() -> None:
    assert rate(0, 1, 0.15) == 1.0


@given(st.integers(1, 500), st.floats(0, 0.99))
def test_every_step_trains_and_none_passes_the_peak(steps: int, warmup: float) -> None:
    values = [rate(step, steps, warmup) for step in range(steps)]
    assert all(0 < value <= 1 for value in values)
    assert max(values) == 1.0
    top = values.index(1.0)
    assert values[: top + 1] == sorted(values[: top + 1])
    assert values[top:] == sorted(values[top:], reverse=True)


def test_a_plateau_stays_at_the_peak_and_falls_in_a_line_over_the_last_tenth() -> None:
    got = [rate(step, 100, 0.1, "wsd") for step in range(100)]
    assert got[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert got[10:90] == [1.0] * 80
    assert got[90:] == pytest.approx([(10 - k) / 10 for k in range(10)])


@pytest.mark.parametrize(
    ("kind", "at", "value"),
    [
        ("constant", 0.7, 1.0),
        ("linear", 0.25, 0.75),
        ("cosine", 0.5, 0.5),
        ("wsd", 0.05, 0.5),
        ("wsd", 0.5, 1.0),
        ("wsd", 0.995, 0.5),
        ("warmup", 1 / 24, 0.5),
        ("warmup", 0.5, 1.0),
    ],
)
def test_the_teachers_weight_moves_as_its_schedule_says(kind: str, at: float, value: float) -> None:
    assert teaching(at, kind) == pytest.approx(value)


def test_a_constant_rate_stays_at_the_peak_after_the_warm_up() -> None:
    got = [rate(step, 100, 0.1, "constant") for step in range(100)]
    assert got[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert set(got[10:]) == {1.0}


@given(st.integers(1, 100), st.sampled_from([32, 64, 96, 128, 224]), st.floats(0.25, 1.0))
def test_views_never_shrink_and_end_at_their_full_side(
    epochs: int, full: int, first: float
) -> None:
    sides = [side(epoch, epochs, full, first) for epoch in range(epochs)]
    assert sides == sorted(sides)
    assert sides[-1] == full
    assert all(32 <= value <= full and value % 16 == 0 for value in sides)
    assert side(0, epochs, full, 1.0) == full
