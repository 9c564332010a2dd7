"""Percentiles are exact, refused when the samples are too few, and timing stops when it should."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ontarget.measure import measure, slowest_rank, smallest_n, summarise, upper_percentile
from ontarget.session import FakeClock, FakeSession


@pytest.mark.parametrize(
    ("p", "n"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)]
)
def test_the_smallest_count_for_each_percentile_is_that_of_the_early_stopping_rule(
    p: float, n: int
) -> None:
    assert smallest_n(p) == n
    assert upper_percentile([1.0] * (n - 1), p) is None
    assert upper_percentile([1.0] * n, p) == 1.0


@pytest.mark.parametrize(("p", "rank"), [(0.9, 78), (0.95, 34), (0.99, 2)])
def test_of_a_thousand_samples_the_published_rank_is_printed(p: float, rank: int) -> None:
    assert slowest_rank(1000, p) == rank
    shuffled = np.random.default_rng(0).permutation(np.arange(1, 1001, dtype=float))
    assert upper_percentile(shuffled, p) == 1000 - rank + 1


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


def test_the_bound_really_covers_the_percentile_in_99_of_100_samples() -> None:
    rng = np.random.default_rng(1)
    truth = -math.log(1 - 0.9)
    bounds = [upper_percentile(rng.exponential(size=100), 0.9) for _ in range(2000)]
    covered = sum(bound is not None and bound >= truth for bound in bounds) / 2000
    assert covered >= 0.985


@pytest.mark.parametrize("p", [0.0, 1.0, -1.0, 2.0])
def test_a_percentile_outside_0_and_1_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        slowest_rank(10, p)


def _session(durations: list[float]) -> tuple[FakeSession, FakeClock]:
    clock = FakeClock()
    return FakeSession([0.0], durations, clock), clock


def test_the_first_run_stands_alone_and_the_warm_up_is_not_timed() -> None:
    session, clock = _session([5.0] + [1.0] * 10 + [0.01])
    got = measure(lambda: session.run(np.zeros((1, 1))), 0.0, 20, 0.2, clock, load_s=0.5)
    assert (got.first_run_s, got.warmup_runs, got.n, got.load_s) == (5.0, 10, 20, 0.5)
    assert got.samples_s == pytest.approx([0.01] * 20)
    assert session.calls == 31


def test_the_warm_up_lasts_its_time_when_ten_runs_are_shorter() -> None:
    session, clock = _session([0.01])
    got = measure(lambda: session.run(np.zeros((1, 1))), 0.0, 1, 0.205, clock)
    assert got.warmup_runs == 21


def test_timing_goes_on_until_both_the_time_and_the_count_are_reached() -> None:
    session, clock = _session([0.125])
    by_time = measure(lambda: session.run(np.zeros((1, 1))), 10.0, 5, 0.0, clock)
    assert by_time.n == 80
    session, clock = _session([0.125])
    by_count = measure(lambda: session.run(np.zeros((1, 1))), 0.25, 30, 0.0, clock)
    assert by_count.n == 30


def test_the_hard_limit_ends_a_slow_model_with_a_warning_and_at_least_one_sample() -> None:
    session, clock = _session([4.0])
    got = measure(lambda: session.run(np.zeros((1, 1))), 3.0, 100, 0.2, clock, max_seconds=10.0)
    assert got.n == 1
    assert got.p50_s is None
    assert any("warm-up ended after 3 of 10" in w for w in got.warnings)
    assert any("after 1 of 100 runs" in w for w in got.warnings)


def test_nothing_is_clipped_and_an_outlier_makes_it_unstable() -> None:
    samples = [0.001] * 99 + [0.1]
    got = summarise(samples, 0.002)
    assert got.max_s == 0.1
    assert len(got.samples_s) == 100
    assert got.p99_s is None
    assert got.p90_s == 0.001
    assert got.stable is False
    assert any("not quiet" in w for w in got.warnings)


def test_a_machine_that_slows_down_is_called_unstable_and_the_drift_is_signed() -> None:
    got = summarise([1.0] * 30 + [1.05] * 30 + [1.1] * 30, 1.0)
    assert got.drift == pytest.approx(0.1)
    assert got.stable is False
    assert any("10.0% slower" in w for w in got.warnings)
    assert summarise([1.1] * 9 + [1.0] * 9, 1.0).drift == pytest.approx(-1 / 11)


def test_quiet_samples_are_stable_and_without_a_warning() -> None:
    got = summarise([1.0, 1.01] * 350, 1.0)
    assert got.stable is True
    assert got.warnings == ()
    assert (got.p50_s, got.p90_s, got.p99_s) == (1.01, 1.01, 1.01)


def test_what_too_few_samples_cannot_say_is_none() -> None:
    got = summarise([0.5], 1.0)
    assert (got.cv, got.drift, got.stable, got.p50_s) == (None, None, None, None)
    assert got.mean_s == 0.5
    with pytest.raises(ValueError, match="at least one sample"):
        summarise([], 1.0)


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1e3, allow_nan=False), min_size=1, max_size=80))
@example([0.0, 1.0, 5e-324, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
def test_every_summary_is_plain_numbers_and_ordered(samples: list[float]) -> None:
    got = summarise(samples, 0.0)
    json.dumps([got.p50_s, got.p90_s, got.cv, got.drift, got.stable], allow_nan=False)
    known = [v for v in (got.p50_s, got.p90_s, got.p99_s) if v is not None]
    assert known == sorted(known)
    assert all(min(samples) <= v <= max(samples) for v in known)
