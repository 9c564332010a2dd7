"""What a percentile of few samples can say: an upper and a lower bound that hold with 99 % confidence, or nothing.

Both are order statistics, so they hold whatever the distribution, as long as one sample says nothing of the next. The
upper one is that of MLPerf's early stopping (MLCommons inference rules, appendix "early stopping", with d = 0 and a
confidence of 0.99); the lower one is its mirror image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.99
PERCENTILES = (
    ("p50", 0.5),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p999", 0.999),
)
"""Those that are printed, where the samples carry them, with their fractions."""


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


def lower_percentile(
    samples: Sequence[float] | np.ndarray, p: float, confidence: float = CONFIDENCE
) -> float | None:
    """A lower bound of the percentile `p` that holds with `confidence`, or None: the upper bound of the mirrored
    samples' percentile 1 - p.
    """
    mirrored = upper_percentile(-np.asarray(samples, dtype=np.float64), 1 - p, confidence)
    return None if mirrored is None else -mirrored


def centre(values: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """The centre of symmetric noise from a few values: Hodges and Lehmann's estimate, and Wilcoxon's interval about it.

    Exact for any symmetric distribution: the estimate is the median of the means of all pairs of values (each with
    itself, too), the interval is made of two of these means. So few values that they cannot hold `confidence` give
    infinite ends: 1 - 2 ** (1 - n) is the most that n values carry. (Hodges and Lehmann 1963; Wilcoxon 1945.)
    """
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    rows, columns = np.triu_indices(n)
    means = np.sort((x[rows] + x[columns]) / 2)
    outside = int(np.searchsorted(np.cumsum(_signed_ranks(n)), (1 - confidence) / 2, side="right"))
    ends = (means[outside - 1], means[-outside]) if outside else (-math.inf, math.inf)
    return float(np.median(means)), float(ends[0]), float(ends[1])


def _signed_ranks(n: int) -> np.ndarray:
    """The chance of each sum, 0 to n (n + 1) / 2, of the ranks 1 to n, each of which counts with a chance of 1/2."""
    chance = np.zeros(n * (n + 1) // 2 + 1)
    chance[0] = 1.0
    for rank in range(1, n + 1):
        chance[rank:] = chance[rank:] + chance[:-rank]
        chance = chance / 2
    return chance
