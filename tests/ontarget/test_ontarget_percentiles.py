"""Percentiles are exact and refused when the samples are too few; bounds and intervals hold as often as they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ontarget.percentiles import (
    PERCENTILES,
    centre,
    lower_percentile,
    slowest_rank,
    smallest_n,
    upper_percentile,
)


@pytest.mark.parametrize(
    ("p", "n"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)]
)
def test_the_smallest_count_for_each_percentile_is_that_of_the_early_stopping_rule(
    p: float, n: int
) -> None:
    assert smallest_n(p) == n
    assert upper_percentile([1.0] * (n - 1), p) is None
    assert upper_percentile([1.0] * n, p) == 1.0
    assert p in dict(PERCENTILES).values()


@pytest.mark.parametrize(("p", "rank"), [(0.9, 78), (0.95, 34), (0.99, 2)])
def test_of_a_thousand_samples_the_published_rank_is_printed(p: float, rank: int) -> None:
    assert slowest_rank(1000, p) == rank
    shuffled = np.random.default_rng(0).permutation(np.arange(1, 1001, dtype=float))
    assert upper_percentile(shuffled, p) == 1000 - rank + 1
    assert lower_percentile(-shuffled, 1 - p) == -(1000 - rank + 1)


def _exact_rank(n: int, slow: Fraction) -> int:
    total, best = Fraction(0), 0
    for k in range(n + 1):
        total += math.comb(n, k) * slow**k * (1 - slow) ** (n - k)
        if total > Fraction(1, 100):
            break
        best = k
    return best


@settings(max_examples=60)
@given(st.integers(1, 150), st.sampled_from([50, 80, 90, 95, 99]))
def test_the_rank_in_log_space_is_that_of_exact_fractions(n: int, percent: int) -> None:
    assert slowest_rank(n, percent / 100) == _exact_rank(n, Fraction(100 - percent, 100))


def test_a_large_sample_neither_underflows_nor_loses_its_rank() -> None:
    rank = slowest_rank(200_000, 0.5)
    normal = 100_000 - 2.3263 * math.sqrt(50_000)
    assert abs(rank - normal) < 3


def _bimodal(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.where(rng.random(n) < 0.9, rng.normal(1.0, 0.01, n), rng.normal(4.0, 0.3, n))


SOURCES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "skewed": lambda rng, n: rng.lognormal(0, 0.5, n),
    "heavy": lambda rng, n: 1 + rng.pareto(1.5, n),
    "bimodal": _bimodal,
}


@pytest.mark.parametrize("source", SOURCES)
def test_both_bounds_really_cover_the_percentile_in_99_of_100_runs(source: str) -> None:
    draw = SOURCES[source]
    truth = np.quantile(draw(np.random.default_rng(99), 4_000_000), 0.9)
    rng, above, below = np.random.default_rng(1), 0, 0
    for _ in range(2000):
        samples = draw(rng, 100)
        upper, lower = upper_percentile(samples, 0.9), lower_percentile(samples, 0.9)
        assert upper is not None and lower is not None
        above, below = above + (upper >= truth), below + (lower <= truth)
    assert min(above, below) >= 0.985 * 2000


@pytest.mark.parametrize("p", [0.0, 1.0, -1.0, 2.0])
def test_a_percentile_outside_0_and_1_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        slowest_rank(10, p)


def test_the_centre_is_the_median_of_all_means_of_two_with_wilcoxons_interval() -> None:
    assert centre([1.0, 2.0, 9.0], 0.5) == (3.5, 1.5, 5.5)  # means 1 1.5 2 5 5.5 9
    assert centre(range(9), 0.998) == (4.0, -math.inf, math.inf)
    assert centre(range(10), 0.998) == (4.5, 0.0, 9.0)


def test_the_interval_of_the_centre_is_that_of_every_sign_tried() -> None:
    """Of all 2 ** n ways in which symmetric noise of these sizes can fall, so many leave zero outside."""
    sizes, confidence = [1.0, 2.1, 3.7, 4.4, 5.2, 6.3, 7.9, 9.0], 0.9
    outside = 0
    for signs in product((-1, 1), repeat=len(sizes)):
        _, low, high = centre([s * x for s, x in zip(signs, sizes, strict=True)], confidence)
        outside += low > 0 or high < 0
    assert 0.05 < outside / 2 ** len(sizes) <= 1 - confidence


def test_the_centre_of_heavy_noise_is_missed_as_seldom_as_it_says() -> None:
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(3000):
        _, low, high = centre(list(rng.standard_t(2, 12) + 5), 0.95)
        missed += not low <= 5 <= high
    assert 0.03 < missed / 3000 < 0.06
