"""The plain and the typed model as one, and what is left out to find out how far to trust either.

The blend is the geometric mean. The typed model's weight is the plain model's share of both errors on rows left out,
squared, and nothing where its own error is the clearly larger one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.pooled import Floats, Ints, Mask, Problem, fit_plain, fit_typed, log_sum

INNER_FOLDS = 5
LEAST_ROWS = 4
CAUTION = 2
"""Power of the typed model's weight: the error on a dozen rows is a rough guide, and the plain model the safe one."""
LEAST_SHARE = 0.45
"""The typed model counts for nothing where its error on rows left out is more than 1.2 times the plain model's."""


@dataclass(frozen=True)
class Guesses:
    """Logarithm of the latency of every row by either model, (S, N)."""

    plain: Floats
    typed: Floats

    @property
    def apart(self) -> Floats:
        """How far the two are from each other, in logarithms."""
        result: Floats = np.abs(self.plain - self.typed)
        return result

    def blended(self, weight: Floats) -> Floats:
        """The geometric mean; `weight` of the typed model, (S,)."""
        mixed: Floats = self.plain * (1 - weight)[:, None] + self.typed * weight[:, None]
        return mixed


def guesses(data: Problem, known: Mask) -> Guesses:
    """Both models, fitted on the known rows."""
    plain = log_sum(data.plain, np.nan_to_num(fit_plain(data, known)))
    typed = fit_typed(data, known)
    return Guesses(plain, log_sum(data.typed, typed.terms) + typed.offsets)


def blend_weights(data: Problem, known: Mask, seed: int) -> Floats:
    """Weight of the typed model for each (device, runtime, precision), from rows left out of the known ones, (S,)."""
    rng = np.random.default_rng(seed)
    fold = folds(data, known, INNER_FOLDS, rng)
    plain, typed = np.full(data.shape, np.nan), np.full(data.shape, np.nan)
    for number in range(INNER_FOLDS):
        out = fold == number
        found = guesses(data, known & ~out)
        plain[out], typed[out] = found.plain[out], found.typed[out]
    weights = np.zeros(len(data.sets))
    keys = [s.key for s in data.sets]
    for key in set(keys):
        members = [i for i, k in enumerate(keys) if k == key]
        errors = [_error(guess[members] - data.logs[members]) for guess in (plain, typed)]
        share = errors[0] / (errors[0] + errors[1])
        weights[members] = share**CAUTION if share >= LEAST_SHARE else 0.0
    return weights


def _error(logs: Floats) -> float:
    """Half the median and half the mean of the relative error, at least 3 % and at most 100 %."""
    known = np.minimum(np.abs(np.expm1(np.clip(logs[np.isfinite(logs)], -3, 3))), 1.0)
    return max(0.03, float(np.median(known) + known.mean()) / 2) if len(known) else 1.0


def folds(data: Problem, known: Mask, count: int, rng: np.random.Generator) -> Ints:
    """A fold for each known row, -1 elsewhere. A network is in one fold on all listings of a board."""
    fold = np.full(data.shape, -1)
    for board in range(int(data.board.max()) + 1):
        members = np.flatnonzero(data.board == board)
        nets = np.unique(np.concatenate([data.net[i][known[i] & data.there[i]] for i in members]))
        drawn = dict(
            zip(nets, (rng.permutation(len(nets)) + rng.integers(count)) % count, strict=True)
        )
        for i in members:
            for j in np.flatnonzero(known[i] & data.there[i]):
                fold[i, j] = drawn[data.net[i, j]]
    return fold


def family_folds(data: Problem, rng: np.random.Generator) -> Ints:
    """Rounds of leaving one family out of each board, in an order of its own."""
    fold = np.full(data.shape, -1)
    for board in range(int(data.board.max()) + 1):
        members = np.flatnonzero(data.board == board)
        kins = np.unique(np.concatenate([data.family[i][data.there[i]] for i in members]))
        drawn = dict(zip(kins, rng.permutation(len(kins)), strict=True))
        for i in members:
            for j in np.flatnonzero(data.there[i]):
                fold[i, j] = drawn[data.family[i, j]]
    return fold
