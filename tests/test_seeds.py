"""Differences over seeds and over images, held to scipy, to McNemar's test and to resampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgedistill import metrics
from edgedistill.seeds import image_gain, seed_gain, student_t


@pytest.mark.parametrize("degrees", [*range(1, 41), 4.5, 60, 100, 1000, 10**6])
def test_students_t_is_that_of_scipy(degrees: float) -> None:
    assert student_t(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-9)


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
    assert gain.ci95[0] == pytest.approx(max(-1.0, expected.low), abs=1e-9)
    assert gain.ci95[1] == pytest.approx(min(1.0, expected.high), abs=1e-9)
    assert gain.p_value == pytest.approx(stats.ttest_rel(new, old).pvalue, rel=1e-6, abs=1e-12)
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


def test_the_gain_by_image_of_one_seed_is_mcnemars_test() -> None:
    rng = np.random.default_rng(0)
    new, old = rng.random((1, 300)) < 0.8, rng.random((1, 300)) < 0.7
    assert image_gain(new, old, "plain") == metrics.paired_gain(new[0], old[0], "plain")


def test_the_same_answers_of_more_seeds_make_nothing_surer() -> None:
    """Pooling all pairs would shrink the interval with every copy of the same images."""
    rng = np.random.default_rng(1)
    new, old = rng.random((1, 400)) < 0.8, rng.random((1, 400)) < 0.7
    twice = image_gain(np.repeat(new, 2, 0), np.repeat(old, 2, 0), "plain")
    often = image_gain(np.repeat(new, 8, 0), np.repeat(old, 8, 0), "plain")
    assert often.ci95 == pytest.approx(twice.ci95)
    assert often.p_value == pytest.approx(twice.p_value)
    once = image_gain(new, old, "plain")
    assert twice.value == once.value
    assert twice.ci95 == pytest.approx(once.ci95, abs=0.01)


def test_the_gain_by_image_finds_its_interval_in_resampled_images() -> None:
    rng = np.random.default_rng(2)
    new, old = rng.random((3, 500)) < 0.85, rng.random((3, 500)) < 0.80
    found = image_gain(new, old, "plain")
    gaps = (new.astype(float) - old).mean(0)
    draws = [gaps[rng.integers(0, 500, 500)].mean() for _ in range(4000)]
    assert found.value == pytest.approx(gaps.mean())
    assert found.ci95 == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.003)


def test_no_difference_at_all_is_no_gain() -> None:
    same = np.ones((2, 50), dtype=bool)
    found = image_gain(same, same, "plain")
    assert (found.value, found.p_value, found.ci95) == (0.0, 1.0, (0.0, 0.0))
    assert found.words.startswith("no measurable gain")
    always = image_gain(same, ~same, "plain")
    assert (always.value, always.p_value) == (1.0, 0.0) and always.words.startswith("a gain of 100")
