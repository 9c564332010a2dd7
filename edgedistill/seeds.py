"""Is it more than chance? Differences of arms over runs that differ in their seed alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgedistill import metrics
from edgedistill.metrics import Z95
from edgedistill.result import Gain, SeedGain

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Known:
    """What is known of a difference besides its own pairs: standard error, degrees of freedom, from how many arms."""

    error: float
    degrees: int
    arms: int


def seed_gain(
    new: Sequence[float], old: Sequence[float], against: str, known: Known | None = None
) -> SeedGain:
    """Mean difference of two arms' top-1 over paired seeds, its 95 % t interval, and words.

    The interval is that of the pairs, or of what is `known` from more arms. `None` as the interval where there are
    fewer than two pairs, or where all pairs differ by the same and nothing else is known.
    """
    gaps = np.asarray(new, dtype=np.float64) - np.asarray(old, dtype=np.float64)
    if gaps.ndim != 1 or not len(gaps):
        raise ValueError("needs one top-1 of each arm for each seed")
    mean, n = float(gaps.mean()), len(gaps)
    if n < 2:
        words = f"{100 * mean:+.1f} points with one seed, which tells nothing of others"
        return SeedGain(against=against, value=mean, seeds=n, words=words)
    found = known or Known(float(gaps.std(ddof=1)) / math.sqrt(n), n - 1, 0)
    half = student_t(found.degrees) * found.error
    if half < 1e-12:
        words = f"{100 * mean:+.1f} points with each of {n} seeds: too alike for an interval"
        return SeedGain(against=against, value=mean, seeds=n, words=words)
    low, high = max(-1.0, mean - half), min(1.0, mean + half)
    judged = f", noise judged from {found.arms} arms" if found.arms else ""
    evidence = f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}, {n} seeds{judged})"
    if low <= 0 <= high:
        words = f"no gain or loss that {n} seeds can show: {100 * mean:+.1f} points {evidence}"
    else:
        words = f"a {'gain' if mean > 0 else 'loss'} of {100 * abs(mean):.1f} points {evidence}"
    return SeedGain(
        against=against, value=mean, ci95=(low, high), p_value=_p_of_t(mean / found.error, found.degrees),
        seeds=n, noise_arms=found.arms, words=words,
    )  # fmt: skip


def image_gain(new: Bools, old: Bools, against: str) -> Gain:
    """Gain of an arm over another on the same images and seeds: both arrays are (seeds, images), right or wrong.

    With one seed it is McNemar's test with Newcombe's interval. With more, the answers of several seeds to one image
    are not independent: the difference of an image is its mean over seeds, and interval and p come from the normal
    distribution of the mean over images.
    """
    if len(new) == 1:
        return metrics.paired_gain(new[0], old[0], against)
    gaps = (new.astype(np.float64) - old).mean(axis=0)
    value, n = float(gaps.mean()), gaps.size
    error = float(gaps.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    p_value = math.erfc(abs(value) / error / math.sqrt(2)) if error else float(value == 0)
    half = Z95 * error
    low, high = max(-1.0, value - half), min(1.0, value + half)
    gain = Gain(against=against, value=value, ci95=(low, high), p_value=p_value, words="")
    how = f"95 % interval {100 * low:+.1f} to {100 * high:+.1f}, {n} images, {len(new)} seeds"
    if metrics.measurable(gain):
        words = f"a {'gain' if value > 0 else 'loss'} of {100 * abs(value):.1f} points ({how})"
    else:
        words = f"no measurable gain: {100 * value:+.1f} points ({how})"
    return gain.model_copy(update={"words": words})


def student_t(degrees: float) -> float:
    """0.975 quantile of Student's t distribution."""
    from scipy.special import stdtrit

    if degrees < 1:
        raise ValueError("needs at least one degree of freedom")
    return float(stdtrit(degrees, 0.975))


def _p_of_t(ratio: float, degrees: float) -> float:
    """Two-sided p of a mean that is so many standard errors from 0."""
    from scipy.special import stdtr

    return 2 * float(stdtr(degrees, -abs(ratio)))
