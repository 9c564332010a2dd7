"""Differences over seeds, held to scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgedistill.seeds import seed_gain, student_t


@pytest.mark.parametrize("degrees", [*range(1, 41), 60, 100, 1000, 10**6])
def test_students_t_is_that_of_scipy(degrees: int) -> None:
    assert student_t(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=3e-5)


def test_students_t_needs_a_degree_of_freedom() -> None:
    with pytest.raises(ValueError, match="at least one"):
        student_t(0)


tops = st.integers(0, 1000).map(lambda k: k / 1000)


@settings(max_examples=100)
@given(st.lists(st.tuples(tops, tops), min_size=2, max_size=30))
def test_a_gain_over_seeds_is_scipys_paired_t_interval(pairs: list[tuple[float, float]]) -> None:
    new, old = zip(*pairs, strict=True)
    gain = seed_gain(new, old, "plain")
    gaps = np.subtract(new, old)
    assert gain.value == pytest.approx(gaps.mean(), abs=1e-12)
    assert gain.seeds == len(pairs) and gain.against == "plain"
    if gain.ci95 is None:
        assert np.ptp(gaps) < 1e-9 and "too alike for an interval" in gain.words
        return
    assert np.ptp(gaps) > 1e-12
    expected = stats.ttest_rel(new, old).confidence_interval(0.95)
    assert gain.ci95[0] == pytest.approx(max(-1.0, expected.low), abs=5e-4)
    assert gain.ci95[1] == pytest.approx(min(1.0, expected.high), abs=5e-4)
    low, high = gain.ci95
    assert low <= gain.value + 1e-12 and gain.value <= high + 1e-12
    assert gain.words.startswith("no gain or loss") == (low <= 0 <= high)


def test_words_of_a_gain_over_seeds_say_gain_loss_or_neither() -> None:
    plain = [0.80, 0.81, 0.79]
    assert seed_gain([0.84, 0.851, 0.829], plain, "plain").words.startswith("a gain of 4.0")
    assert seed_gain([0.76, 0.771, 0.749], plain, "plain").words.startswith("a loss of 4.0")
    alike = seed_gain([0.84, 0.85, 0.83], plain, "plain")
    assert alike.ci95 is None and alike.words.startswith("+4.0 points with each of 3 seeds")
    unsure = seed_gain([0.90, 0.70, 0.85], plain, "plain").words
    assert unsure.startswith("no gain or loss that 3 seeds can show")
    one = seed_gain([0.9], [0.8], "plain")
    assert one.ci95 is None and "one seed" in one.words
    with pytest.raises(ValueError, match="each seed"):
        seed_gain([], [], "plain")
