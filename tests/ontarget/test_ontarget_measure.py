"""Timing warms up until it is steady, stops when it should, keeps a camera's pace, and clips nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ontarget import measure as module
from ontarget.fake import FakeClock, FakeSession
from ontarget.measure import STEADY, TIERS, WINDOWS, Measurement, Timing, measure, summarise
from ontarget.percentiles import PERCENTILES, smallest_n


def timed(durations: list[float], timing: Timing) -> tuple[Measurement, FakeSession]:
    """A measurement of runs that take so long, on a clock that moves with them alone."""
    clock = FakeClock()
    session = FakeSession([0.0], durations, clock)
    got = measure(lambda: session.run(np.zeros((1, 1))), timing, clock, clock.advance)
    return got, session


def test_each_tier_has_the_runs_for_its_percentile() -> None:
    wanted = {"quick": "p90", "default": "p99", "thorough": "p999"}
    for name, tier in TIERS.items():
        assert tier.tier == name
        assert tier.min_runs == smallest_n(dict(PERCENTILES)[wanted[name]])
        assert tier.max_seconds > tier.min_seconds


def test_the_first_run_stands_alone_and_the_warm_up_is_not_timed() -> None:
    got, session = timed([5.0] + [1.0] * 12 + [0.01], Timing(0.0, 20, 0.2, 1000.0))
    assert (got.first_run_s, got.warmup_runs, got.n) == (5.0, 12, 20)
    assert got.warmup_s == pytest.approx(12.0)
    assert got.samples_s == pytest.approx([0.01] * 20)
    assert session.calls == 33
    assert got.warnings == ()


def test_the_warm_up_lasts_its_time_when_ten_runs_are_shorter() -> None:
    got, _ = timed([0.001], Timing(0.0, 1, 0.2))
    assert got.warmup_s == pytest.approx(0.2, abs=0.01)
    assert 196 <= got.warmup_runs <= 204


def test_the_warm_up_goes_on_while_the_machine_still_speeds_up() -> None:
    slow = [0.01 * 0.97**k for k in range(120)]
    got, _ = timed([0.01, *slow, 0.0001], Timing(0.0, 50, 0.2))
    assert got.warmup_runs > 120
    assert max(got.samples_s) <= (1 + STEADY) * min(got.samples_s)


def test_a_machine_that_never_gets_steady_is_measured_and_told() -> None:
    got, _ = timed([0.001 * (1 + k % 7) for k in range(5000)], Timing(0.0, 50, 0.2 / WINDOWS))
    restless, _ = timed([0.01 * 1.01 ** (k % 200) for k in range(5000)], Timing(0.0, 50, 0.2))
    assert got.n == restless.n == 50
    assert any("not steady after a warm-up of" in w for w in restless.warnings)


def test_timing_goes_on_until_both_the_time_and_the_count_are_reached() -> None:
    by_time, _ = timed([0.125], Timing(10.0, 5, 0.0))
    assert by_time.n == 80
    by_count, _ = timed([0.125], Timing(0.25, 30, 0.0))
    assert by_count.n == 30


def test_the_hard_limit_ends_a_slow_model_with_a_warning_and_at_least_one_sample() -> None:
    got, _ = timed([4.0], Timing(3.0, 100, 0.2, 10.0))
    assert got.n == 1
    assert got.upper == got.lower == {}
    assert any("warm-up ended after 3 of 10" in w for w in got.warnings)
    assert any("after 1 of 100 runs" in w for w in got.warnings)


def test_of_very_many_runs_every_second_is_kept_and_the_time_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_SAMPLES", 100)
    durations = [0.001 * (k % 100 + 1) for k in range(5000)]
    got, session = timed([1.0, *durations], Timing(10.0, 20, 0.0))
    assert 50 <= got.n < 100
    assert session.calls > 200
    assert np.diff(np.array(got.samples_s)[: got.n // 4]) == pytest.approx(
        [np.diff(got.samples_s)[0]] * (got.n // 4 - 1)
    )


def test_a_paced_run_begins_when_its_frame_is_due() -> None:
    clock = FakeClock()
    session = FakeSession([0.0], [0.25], clock)
    begun: list[float] = []

    def run() -> None:
        begun.append(clock())
        session.run(np.zeros((1, 1)))

    got = measure(run, Timing(2.0, 8, 0.0, fps=2.0), clock, clock.advance)
    assert np.diff(begun[-8:]) == pytest.approx([0.5] * 7)
    assert got.samples_s == pytest.approx([0.25] * got.n)
    assert (got.late, got.warnings) == (0, ())


def test_a_model_that_does_not_keep_up_loses_frames_and_says_how_many() -> None:
    got, _ = timed([0.75], Timing(0.0, 20, 0.0, fps=2.0))
    # frames come at 0, 0.5, 1 ...; runs begin at 0, 0.75, 1.5, 2.25: each third frame is lost
    assert got.late == 10
    assert any("10 of 30 frames were lost" in w for w in got.warnings)
    assert timed([0.75], Timing(0.0, 20, 0.0))[0].late is None


def test_nothing_is_clipped_and_an_outlier_makes_it_unstable() -> None:
    samples = [0.001] * 99 + [0.1]
    got = summarise(samples, 0.002)
    assert got.max_s == 0.1
    assert len(got.samples_s) == 100
    assert "p99" not in got.upper and "p99" not in got.lower
    assert got.upper["p90"] == 0.001
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
    assert got.upper == {"p50": 1.01, "p90": 1.01, "p95": 1.01, "p99": 1.01}
    assert got.lower == {"p50": 1.0, "p90": 1.01, "p95": 1.01, "p99": 1.01}


def test_what_too_few_samples_cannot_say_is_none() -> None:
    got = summarise([0.5], 1.0)
    assert (got.cv, got.drift, got.stable, got.upper) == (None, None, None, {})
    assert got.mean_s == 0.5
    with pytest.raises(ValueError, match="at least one sample"):
        summarise([], 1.0)


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1e3, allow_nan=False), min_size=1, max_size=80))
@example([0.0, 1.0, 5e-324, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
def test_every_summary_is_plain_numbers_and_ordered(samples: list[float]) -> None:
    got = summarise(samples, 0.0)
    json.dumps([got.upper, got.lower, got.cv, got.drift, got.stable], allow_nan=False)
    for bounds in (got.upper, got.lower):
        assert list(bounds.values()) == sorted(bounds.values())
        assert all(min(samples) <= v <= max(samples) for v in bounds.values())
    assert all(got.lower[name] <= got.upper[name] for name in got.upper)
