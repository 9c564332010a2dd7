"""Honest timing: warm up, run until both a time and a count are reached, print only what the
samples carry.

No sample is clipped. A percentile is the conservative order statistic of MLPerf's early stopping
(MLCommons inference rules, appendix "early stopping", with d = 0 and a confidence of 0.99): an
upper bound, or nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.99
MAX_CV = 0.025
TICK_S = 1e-9
"""Of the clock: what is shorter was not measured, and nothing is compared with it."""
MAX_DRIFT = 0.05
WARMUP_RUNS = 10
WARMUP_SECONDS = 0.2


def _log_tail(n: int, p: float) -> np.ndarray:
    """log P(Binom(n, 1 - p) <= k) for k = 0 .. floor(n (1 - p)) + 1 at most n, in log space."""
    q = 1.0 - p
    top = min(n, math.floor(n * q) + 1)
    k = np.arange(top, dtype=np.float64)
    steps = np.log((n - k) / (k + 1.0)) + (math.log(q) - math.log(p))
    log_pmf = np.concatenate(([n * math.log(p)], n * math.log(p) + np.cumsum(steps)))
    return np.asarray(np.logaddexp.accumulate(log_pmf))


def slowest_rank(n: int, p: float, confidence: float = CONFIDENCE) -> int:
    """Which of the slowest samples bounds the percentile `p` of `n`: 1 is the slowest, 0 is not
    enough samples.

    The largest t with P(Binom(n, 1 - p) <= t) <= 1 - confidence. For n = 1000: p90 -> 78, p95 ->
    34, p99 -> 2. Raises ValueError unless 0 < p < 1 and 0 < confidence < 1.
    """
    if not 0 < p < 1 or not 0 < confidence < 1:
        raise ValueError(f"p and confidence must be between 0 and 1, got {p} and {confidence}")
    if n < 1:
        return 0
    fits = np.nonzero(_log_tail(n, p) <= math.log(1.0 - confidence))[0]
    return int(fits[-1]) if len(fits) else 0


def smallest_n(p: float, confidence: float = CONFIDENCE) -> int:
    """The fewest samples with which the percentile `p` can be printed: 11, 64, 130, 662 for p50,
    p90, p95, p99.
    """
    low, high = 0, 1
    while slowest_rank(high, p, confidence) < 1:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if slowest_rank(middle, p, confidence) >= 1:
            high = middle
        else:
            low = middle
    return high


def upper_percentile(
    samples: Sequence[float] | np.ndarray, p: float, confidence: float = CONFIDENCE
) -> float | None:
    """An upper bound of the percentile `p` (a fraction, 0.9 for p90) that holds with `confidence`,
    or None.

    Drops the t - 1 slowest samples and gives the slowest that is left, t from `slowest_rank`. None
    when the samples are too few for it (`smallest_n`).
    """
    values = np.asarray(samples, dtype=np.float64)
    rank = slowest_rank(len(values), p, confidence)
    if rank < 1:
        return None
    place = len(values) - rank
    return float(np.partition(values, place)[place])


@dataclass(frozen=True)
class Measurement:
    """Times of single runs in seconds, in the order in which they ran, and what they allow to say.

    A percentile is None when there are too few samples; `cv` (deviation by mean) and `drift`
    (median of the last third by that of the first, less 1) are None below 2 and 6 samples; `stable`
    is None when either is. `load_s` is None when the model was opened elsewhere.
    """

    samples_s: tuple[float, ...]
    first_run_s: float
    warmup_runs: int
    load_s: float | None
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    mean_s: float
    max_s: float
    cv: float | None
    drift: float | None
    stable: bool | None
    warnings: tuple[str, ...]

    @property
    def n(self) -> int:
        """How many runs were timed."""
        return len(self.samples_s)


def summarise(
    samples_s: Sequence[float],
    first_run_s: float,
    warmup_runs: int = 0,
    load_s: float | None = None,
    warnings: Sequence[str] = (),
) -> Measurement:
    """The measurement that these samples carry. Raises ValueError without a sample."""
    values = np.asarray(samples_s, dtype=np.float64)
    n = len(values)
    if not n:
        raise ValueError("a measurement needs at least one sample")
    mean = float(values.mean())
    cv = float(values.std(ddof=1) / mean) if n >= 2 and mean >= TICK_S else None
    third = n // 3
    first = float(np.median(values[:third])) if third >= 2 else 0.0
    drift = float(np.median(values[-third:])) / first - 1 if first >= TICK_S else None
    notes = list(warnings)
    if cv is not None and cv > MAX_CV:
        notes.append(
            f"times vary by {cv:.1%} of their mean (over {MAX_CV:.1%}): the machine was not quiet"
        )
    if drift is not None and abs(drift) > MAX_DRIFT:
        word = "slower" if drift > 0 else "faster"
        notes.append(
            f"the last third ran {abs(drift):.1%} {word} than the first: clocks or heat moved"
        )
    stable = None
    if cv is not None and drift is not None:
        stable = cv <= MAX_CV and abs(drift) <= MAX_DRIFT
    return Measurement(
        samples_s=tuple(float(v) for v in values),
        first_run_s=first_run_s,
        warmup_runs=warmup_runs,
        load_s=load_s,
        p50_s=upper_percentile(values, 0.5),
        p90_s=upper_percentile(values, 0.9),
        p99_s=upper_percentile(values, 0.99),
        mean_s=mean,
        max_s=float(values.max()),
        cv=cv,
        drift=drift,
        stable=stable,
        warnings=tuple(notes),
    )


def measure(
    run: Callable[[], object],
    min_seconds: float = 3.0,
    min_runs: int = 662,
    warmup_seconds: float = WARMUP_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
    max_seconds: float = 120.0,
    load_s: float | None = None,
) -> Measurement:
    """Time `run`, one call after the other (MLPerf single stream).

    The first call stands alone. Then at least 10 calls and `warmup_seconds` of warm-up, then timed
    calls until both `min_seconds` and `min_runs` are reached. Warm-up and timing together end after
    `max_seconds`, with a warning when that cuts them short; at least one call is timed.
    """
    started = clock()
    run()
    begun = clock()
    first_run_s = begun - started
    warmups = 0
    now = begun
    while (warmups < WARMUP_RUNS or now - begun < warmup_seconds) and now - begun < max_seconds:
        run()
        warmups += 1
        now = clock()
    notes: list[str] = []
    if warmups < WARMUP_RUNS:
        notes.append(
            f"the warm-up ended after {warmups} of {WARMUP_RUNS} runs: the limit of "
            f"{max_seconds:g} s"
        )
    samples: list[float] = []
    timed_from = clock()
    while True:
        before = clock()
        run()
        after = clock()
        samples.append(after - before)
        if after - timed_from >= min_seconds and len(samples) >= min_runs:
            break
        if after - begun >= max_seconds:
            notes.append(
                f"stopped by the limit of {max_seconds:g} s after {len(samples)} of {min_runs} runs"
            )
            break
    return summarise(samples, first_run_s, warmups, load_s, notes)
