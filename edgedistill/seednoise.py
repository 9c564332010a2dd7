"""How far another seed moves an arm, judged from all arms like it: an arm has few seeds, a study many arms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgedistill.seeds import Known

FEWEST_ARMS, FEWEST_DEGREES = 6, 10
"""With fewer arms, or fewer degrees of freedom in all, each arm is left to its own seeds."""
LEAST = 1e-3
"""An arm's own variance counts as this share of the mean at least: a few equal results are luck."""
ODD = 0.995
"""An arm whose own variance this share of arms would not reach is like no other, and left to its own seeds."""


@dataclass(frozen=True)
class SeedNoise:
    """Variance of one run's top-1 by arm, the degrees of freedom of every one, and how many arms it was judged from."""

    variances: Mapping[str, float]
    degrees: int
    arms: int

    def known(self, new: str, old: str, seeds: int) -> Known | None:
        """What it tells of the mean difference of two arms over `seeds` pairs; `None` where nothing."""
        if new not in self.variances or old not in self.variances:
            return None
        error = math.sqrt((self.variances[new] + self.variances[old]) / seeds)
        return Known(error, self.degrees, self.arms)


def known_of(noises: Sequence[SeedNoise], new: str, old: str, seeds: int) -> Known | None:
    """What the noise of a group of arms that has both tells; `None` where none has."""
    found = (noise.known(new, old, seeds) for noise in noises)
    return next((known for known in found if known is not None), None)


def seed_noise(tops: Mapping[str, Mapping[int, float]]) -> SeedNoise | None:
    """Noise of arms from their top-1 by arm and seed: arms that a seed moves, and moves alike.

    What a seed does to all arms is taken out first, as it is from pairs of one seed. What is left of an arm is its own
    variance, which is then drawn towards that of all: by how much, the variances themselves tell, since under one
    common noise they would differ by chance alone. An arm far noisier than that is not told of, nor is one that lacks a
    seed that most have. Source: Smyth 2004, "Linear models and empirical Bayes methods for assessing differential
    expression in microarray experiments", section 6.2.

    `None` where arms or seeds are too few, without those that are left out.
    """
    several = {name: runs for name, runs in tops.items() if len(runs) > 1}
    having = Counter(seed for runs in several.values() for seed in runs)
    shared = sorted(seed for seed, count in having.items() if 2 * count > len(several))
    names = [name for name, runs in several.items() if set(shared) <= runs.keys()]
    degrees = len(shared) - 1
    while len(names) >= FEWEST_ARMS and (len(names) - 1) * degrees >= FEWEST_DEGREES:
        own = _own(np.asarray([[tops[name][seed] for seed in shared] for name in names]))
        if not own.any():
            return None
        own = np.maximum(own, LEAST * own.mean())
        common, prior = _common(own, degrees)
        like = own / common <= _largest(degrees, prior)
        if like.all():
            drawn = own + (common - own) / (1 + degrees / prior)
            total = (len(names) - 1) * degrees
            variances = dict(zip(names, drawn.tolist(), strict=True))
            return SeedNoise(variances, int(min(prior + degrees, total)), len(names))
        names = [name for name, kept in zip(names, like, strict=True) if kept]
    return None


def _own(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The variance of each arm in a table (arms, seeds) without what a seed does to all of them."""
    arms, seeds = table.shape
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    found: npt.NDArray[np.float64] = (rest**2).sum(axis=1) / ((seeds - 1) * (1 - 1 / arms))
    return found


def _common(variances: npt.NDArray[np.float64], degrees: int) -> tuple[float, float]:
    """The variance that all arms are drawn towards, and the degrees of freedom that it is worth."""
    from scipy.optimize import brentq
    from scipy.special import polygamma, psi

    logs = np.log(variances) - psi(degrees / 2) + np.log(degrees / 2)
    excess = float(logs.var(ddof=1) - polygamma(1, degrees / 2))
    if excess < 1e-6:
        return float(variances.mean()), np.inf
    half = brentq(lambda y: float(polygamma(1, y)) - excess, 1 / excess, 1 / excess + 1)
    return float(np.exp(logs.mean() + psi(half) - np.log(half))), 2 * half


def _largest(degrees: int, prior: float) -> float:
    """The ratio of an arm's own variance to the common one that is odd."""
    from scipy.special import chdtri, fdtri

    if np.isinf(prior):
        return float(chdtri(degrees, 1 - ODD)) / degrees
    return float(fdtri(degrees, prior, ODD))
