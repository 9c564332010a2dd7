"""How wide a band is: what rows that were left out were off by, and wider where the two models disagree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from benchmarks.pooled import Problem
from edgedistill.target.latency import MOST_APART

Floats = npt.NDArray[np.float64]
COVERAGE = 0.9
WIDENING = 2.0
"""A band is twice as wide, in logarithms, where the two models are a factor of 1.65 apart."""
POOL_WEIGHT = 10
"""Networks that a pool's spread counts for, beside those of the data set itself, in its band."""


@dataclass
class Held:
    """What was predicted without being seen, of one data set: network, and logarithm of predicted by measured.

    `apart` is how far the two models were from each other, in logarithms as well.
    """

    nets: list[int] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    apart: list[float] = field(default_factory=list)

    def errors(self, which: str) -> Floats:
        """Absolute relative errors."""
        logs = np.array(getattr(self, which))
        result: Floats = np.abs(np.expm1(np.clip(logs, -5, 5)))
        return result

    def widths(self) -> Floats:
        """What a band is multiplied by for each row."""
        result: Floats = 1 + WIDENING * np.minimum(self.apart, MOST_APART)
        return result


def half_bands(data: Problem, held: Sequence[Held]) -> tuple[Floats, list[Floats]]:
    """Half the width of each set's band where its models agree, in logarithms, (S,), and that of each held row.

    A row's own network is left out of what its width is made of.
    """
    logs = [np.abs(np.array(h.ours)) / h.widths() for h in held]
    pools = data.pool
    spread = {}
    for pool in np.unique(pools):
        parts = [logs[i] for i in np.flatnonzero(pools == pool) if len(logs[i])]
        spread[int(pool)] = (
            float(np.quantile(np.concatenate(parts), COVERAGE)) if parts else math.nan
        )
    whole = np.full(len(held), math.nan)
    without: list[Floats] = []
    for i, one in enumerate(held):
        nets = np.array(one.nets)
        each = np.full(len(nets), math.nan)
        if len(nets):
            whole[i] = _shrunk(logs[i], len(set(nets)), spread[int(pools[i])])
            for net in set(one.nets):
                rest = logs[i][nets != net]
                if len(rest):
                    each[nets == net] = _shrunk(rest, len(set(nets)) - 1, spread[int(pools[i])])
        without.append(each)
    return whole, without


def _shrunk(logs: Floats, nets: int, pool: float) -> float:
    own = float(np.quantile(logs, COVERAGE))
    return math.sqrt((nets * own**2 + POOL_WEIGHT * pool**2) / (nets + POOL_WEIGHT))
