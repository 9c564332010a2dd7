"""Whether what a kit document says of its samples, or of the ratios of its pairs, follows from them: every figure is
worked out anew, as the kit does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from ontarget.measure import MAX_CV, MAX_DRIFT, TICK_S, Measurement, summarise
from ontarget.percentiles import PERCENTILES, centre

QUANTILES = 101
ROUNDED_S = 1e-9
"""Samples are written to the nanosecond; what is made of them before that differs by as much."""
NEAR = 1e-9
"""By so large a part two ways to compute the same may differ."""


class Figures(Protocol):
    """What a row says of its samples; its percentiles are `p50_s` and so on."""

    @property
    def n(self) -> int:
        """How many there are."""

    @property
    def samples_s(self) -> Sequence[float]:
        """They themselves, in the order in which they were timed."""

    @property
    def low(self) -> Mapping[str, float]:
        """The lower bounds of the percentiles that are known."""

    @property
    def quantiles_s(self) -> Sequence[float]:
        """The 0th to 100th percentile of the samples, or none."""

    @property
    def mean_s(self) -> float | None:
        """Their mean."""

    @property
    def max_s(self) -> float | None:
        """The slowest."""

    @property
    def cv(self) -> float | None:
        """Their deviation by their mean."""

    @property
    def drift(self) -> float | None:
        """The last third by the first, less 1."""

    @property
    def stable(self) -> bool | None:
        """Whether they and the machine were steady."""


def unfounded(row: Figures) -> Iterator[str]:
    """Each figure of a row that does not follow from its samples, as `key  why`."""
    if len(row.samples_s) != row.n:
        yield f"n  is {row.n}, and there are {len(row.samples_s)} samples"
        return
    holds = summarise(row.samples_s, 0.0)
    for key, said, right in (*_bounds(row, holds), *_quantiles(row)):
        if not _same(said, right, 2 * ROUNDED_S):
            shown = "unknown" if said is None else f"{said} s"
            yield f"{key}  {shown} does not follow from its {row.n} samples"
    if strange := sorted(set(row.low) - {name for name, _ in PERCENTILES}):
        yield f"low  {strange[0][:40]!a} is no percentile of a kit"
    if len(row.quantiles_s) not in (0, QUANTILES):
        yield f"quantiles_s  has {len(row.quantiles_s)} values, and 0 or {QUANTILES} are allowed"
    yield from _steadiness(row, holds)


def _same(said: float | None, right: float | None, slack: float) -> bool:
    """Whether a figure is what it must be, unknown where the samples carry none."""
    if said is None or right is None:
        return said is right
    return abs(said - right) <= slack + NEAR * abs(right)


def _bounds(row: Figures, holds: Measurement) -> Iterator[tuple[str, float | None, float | None]]:
    """Percentiles, mean and slowest: name, what is said, what is right."""
    for name, _ in PERCENTILES:
        yield f"{name}_s", getattr(row, f"{name}_s"), holds.upper.get(name)
        yield f"low.{name}", row.low.get(name), holds.lower.get(name)
    yield "mean_s", row.mean_s, holds.mean_s
    yield "max_s", row.max_s, holds.max_s


def _quantiles(row: Figures) -> Iterator[tuple[str, float, float]]:
    """The same of the quantiles, where they are kept."""
    if len(row.quantiles_s) == QUANTILES:
        right = np.quantile(row.samples_s, np.linspace(0, 1, QUANTILES))
        for k, (said, value) in enumerate(zip(row.quantiles_s, right, strict=True)):
            yield f"quantiles_s.{k}", said, float(value)


def _steadiness(row: Figures, holds: Measurement) -> Iterator[str]:
    """Spread, drift, and the word `stable`: it may be false for what went on around the samples, and true only where
    they are.
    """
    tick = 4 * ROUNDED_S / max(min(row.samples_s), TICK_S)
    if tick < 1:  # else the rounding is all that there is
        for key, said, right in (("cv", row.cv, holds.cv), ("drift", row.drift, holds.drift)):
            if not _same(said, right, tick * (1 + abs(right or 0.0))):
                shown = "unknown" if said is None else f"{said}"
                yield f"{key}  {shown} does not follow from its {row.n} samples"
    known = row.cv is not None and row.drift is not None
    steady = (row.cv or 0.0) <= MAX_CV and abs(row.drift or 0.0) <= MAX_DRIFT
    if (row.stable and not (known and steady)) or (row.stable is None and known):
        yield f"stable  {row.stable} does not follow from a spread of {row.cv} and a drift of {row.drift}"


def uncentred(
    said: Mapping[str, float], ratios: Sequence[float], confidence: float
) -> Iterator[str]:
    """Each of `ratio`, `low` and `high` of a comparison that does not follow from the ratios of its pairs."""
    right = centre([math.log(ratio) for ratio in ratios], confidence)
    if not all(math.isfinite(value) for value in right):
        yield f"ratios  {len(ratios)} pairs carry no interval of {confidence}"
        return
    for key, value in zip(("ratio", "low", "high"), right, strict=True):
        if not _same(said[key], math.exp(value), 0.0):
            yield f"{key}  {said[key]} does not follow from its {len(ratios)} ratios"
