"""How far another seed moves an arm, judged from all arms of a study: an arm has few seeds, a study many arms."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgedistill.seeds import Known

FEWEST_ARMS, FEWEST_DEGREES = 6, 10
"""With fewer arms, or fewer degrees of freedom in all, each arm is left to its own seeds."""
LEAST = 1e-3
"""An arm's own variance counts as this share of the mean at least: a few equal results are luck."""


@dataclass(frozen=True)
class SeedNoise:
    """Variance of one run's top-1 by arm, the degrees of freedom of each, and how many arms it was judged from."""

    variances: Mapping[str, float]
    degrees: int
    arms: int

    def known(self, new: str, old: str, seeds: int) -> Known | None:
        """What it tells of the mean difference of two arms over `seeds` pairs; `None` where nothing."""
        if new not in self.variances or old not in self.variances:
            return None
        error = math.sqrt((self.variances[new] + self.variances[old]) / seeds)
        return Known(error, self.degrees, self.arms)


def seed_noise(
    tops: Mapping[str, Mapping[int, float]], still: Collection[str] = ()
) -> SeedNoise | None:
    """Noise of arms from their top-1 by arm and seed; arms in `still` are those that no seed moves.

    What a seed does to all arms is taken out first, as it is from pairs of one seed. What is left of an arm is its own
    variance, which is then drawn towards that of all: by how much, the variances themselves tell, since under one
    common noise they would differ by chance alone. Source: Smyth 2004, "Linear models and empirical Bayes methods for
    assessing differential expression in microarray experiments", section 6.2.

    `None` where arms or seeds are too few.
    """
    names = [name for name, runs in tops.items() if len(runs) > 1 and name not in still]
    shared = sorted(set.intersection(*(set(tops[name]) for name in names))) if names else []
    count, seeds = len(names), len(shared)
    total = (count - 1) * (seeds - 1)
    if count < FEWEST_ARMS or seeds < 2 or total < FEWEST_DEGREES:
        return None
    table = np.asarray([[tops[name][seed] for seed in shared] for name in names])
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    own = (rest**2).sum(axis=1) / ((seeds - 1) * (1 - 1 / count))
    middle = float(own.mean())
    if middle == 0:
        return None
    common, prior = _common(np.maximum(own, LEAST * middle), seeds - 1)
    pulled = np.full(count, common)
    if np.isfinite(prior):
        pulled = (prior * common + (seeds - 1) * own) / (prior + seeds - 1)
    variances = dict(zip(names, pulled.tolist(), strict=True)) | dict.fromkeys(still, 0.0)
    return SeedNoise(variances, int(min(prior + seeds - 1, total)), count)


def _common(variances: npt.NDArray[np.float64], degrees: int) -> tuple[float, float]:
    """The variance that all arms are drawn towards, and the degrees of freedom that it is worth."""
    from scipy.optimize import brentq
    from scipy.special import polygamma, psi

    logs = np.log(variances) - psi(degrees / 2) + np.log(degrees / 2)
    excess = float(logs.var(ddof=1) - polygamma(1, degrees / 2))
    if excess <= 0:
        return float(variances.mean()), np.inf
    half = brentq(lambda y: float(polygamma(1, y)) - excess, 1 / excess, 1 / excess + 1)
    return float(np.exp(logs.mean() + psi(half) - np.log(half))), 2 * half
