"""Is it more than the seed? Differences of arms over runs that differ in their seed alone: numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgedistill.metrics import Z95
from edgedistill.result import SeedGain

T_975 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788,
    2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
)  # fmt: skip
"""0.975 quantiles of Student's t distribution with 1, 2, ... degrees of freedom."""


def seed_gain(new: Sequence[float], old: Sequence[float], against: str) -> SeedGain:
    """Mean difference of two arms' top-1 over paired seeds, its 95 % t interval, and words.

    `None` as the interval where there are fewer than two pairs, or where all pairs differ by the same.
    """
    gaps = np.asarray(new, dtype=np.float64) - np.asarray(old, dtype=np.float64)
    if gaps.ndim != 1 or not len(gaps):
        raise ValueError("needs one top-1 of each arm for each seed")
    mean, n = float(gaps.mean()), len(gaps)
    if n < 2:
        words = f"{100 * mean:+.1f} points with one seed, which tells nothing of others"
        return SeedGain(against=against, value=mean, seeds=n, words=words)
    half = student_t(n - 1) * float(gaps.std(ddof=1)) / math.sqrt(n)
    if half < 1e-12:
        words = f"{100 * mean:+.1f} points with each of {n} seeds: too alike for an interval"
        return SeedGain(against=against, value=mean, seeds=n, words=words)
    low, high = max(-1.0, mean - half), min(1.0, mean + half)
    evidence = f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}, {n} seeds)"
    if low <= 0 <= high:
        words = f"no gain or loss that {n} seeds can show: {100 * mean:+.1f} points {evidence}"
    else:
        words = f"a {'gain' if mean > 0 else 'loss'} of {100 * abs(mean):.1f} points {evidence}"
    return SeedGain(against=against, value=mean, ci95=(low, high), seeds=n, words=words)


def student_t(degrees: int) -> float:
    """0.975 quantile of Student's t distribution; Cornish-Fisher expansion above 20 degrees of freedom.

    Source of the table: Student 1908 in Fisher's form; expansion: Abramowitz & Stegun 26.7.5.
    """
    if degrees < 1:
        raise ValueError("needs at least one degree of freedom")
    if degrees <= len(T_975):
        return T_975[degrees - 1]
    z = Z95
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )
