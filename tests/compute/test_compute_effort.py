"""A budget is what a person meant, or one clear paragraph."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.compute.effort import Effort, parse_effort
from edgedistill.errors import UsageError


@pytest.mark.parametrize(
    ("text", "effort"),
    [
        ("30min", Effort(seconds=1800)),
        ("2h", Effort(seconds=7200)),
        (" 1.5 h ", Effort(seconds=5400)),
        ("90S", Effort(seconds=90)),
        ("1d", Effort(seconds=86_400)),
        ("1e16FLOP", Effort(flops=1e16)),
        ("5 PFLOPs", Effort(flops=5e15)),
        ("1E+3 gflop", Effort(flops=1e12)),
    ],
)
def test_times_and_operations_are_read(text: str, effort: Effort) -> None:
    assert parse_effort(text) == effort


@pytest.mark.parametrize(
    "text",
    ["0h", "-1", "-1h", "1e999FLOP", "1e30FLOP", "0.1s", "400d", "2", "h", "", "2 hours of it", "1e5", "1.2.3h",
     "nan h", "inf h", ".h", "1h30min", "1e-400s", "²h", "2h\x00"],
)  # fmt: skip
def test_anything_else_is_told_with_what_is_allowed(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_effort(text)
    assert f'--compute "{text}"' in str(caught.value)
    assert "30min, 2h" in str(caught.value)


@given(st.text(max_size=30))
def test_no_text_ends_in_a_traceback_or_in_a_budget_of_nothing(text: str) -> None:
    try:
        found = parse_effort(text)
    except UsageError:
        return
    value = found.seconds if found.seconds is not None else found.flops
    assert value is not None and math.isfinite(value) and value >= 1
