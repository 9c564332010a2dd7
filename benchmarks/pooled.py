"""Latency models of many boards at once: what one table is too short to tell, boards with the same runtime tell.

Two models are fitted for each data set, and blended in `benchmarks/blend.py`:

    plain   overhead * kernels + MACs / rate + bytes / bandwidth, non-negative least squares on the relative error,
            from the rows of that data set alone
    typed   overhead, a rate for each of three kinds of MACs, and bandwidth, all positive. The logarithm of each term
            is drawn to what it is on other boards of the same runtime, as strongly as those agree; the loss is
            Huber's on the logarithm of the latency, so that a wrong row pulls with a bounded force. What a network or
            its family deviates on other boards is an offset, shrunk by how few boards show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from benchmarks.published import (
    Costs,
    DataSet,
    family,
    plain_features,
    typed_features,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NOISE = 0.12
HUBER = 1.5
PRIOR_SPREAD = 0.7
SPREADS = (0.2, 1.5)
NET_SHRINK = 2.0
FAMILY_SHRINK = 2.0
LARGEST_OFFSET = 0.6
POOL_ROUNDS = 4
STEPS = 7
OFFSET_ROUNDS = 3


@dataclass(frozen=True)
class Problem:
    """All data sets as padded arrays: S sets of at most N rows."""

    sets: tuple[DataSet, ...]
    nets: tuple[str, ...]
    families: tuple[str, ...]
    plain: Floats
    typed: Floats
    logs: Floats
    there: Mask
    net: Ints
    family: Ints
    board: Ints
    pool: Ints
    group: Ints

    @property
    def shape(self) -> tuple[int, int]:
        """(S, N)."""
        return self.logs.shape[0], self.logs.shape[1]


def problem(sets: Sequence[DataSet], costs: Costs) -> Problem:
    """Lay the data sets out side by side."""
    nets = tuple(sorted({net for s in sets for net in s.nets}))
    families = tuple(sorted({family(net) for net in nets}))
    boards = sorted({s.board for s in sets})
    pools = sorted({s.pool for s in sets})
    groups = sorted({(s.pool, s.width) for s in sets})
    shape = (len(sets), max(len(s.nets) for s in sets))
    plain, typed = np.zeros((*shape, 3)), np.zeros((*shape, 5))
    plain[..., 0] = typed[..., 0] = 1.0
    logs, there = np.zeros(shape), np.zeros(shape, bool)
    net, kin = np.full(shape, -1), np.full(shape, -1)
    for i, one in enumerate(sets):
        n = len(one.nets)
        plain[i, :n] = [plain_features(costs[k], one.width) for k in one.nets]
        typed[i, :n] = [typed_features(costs[k], one.width) for k in one.nets]
        logs[i, :n], there[i, :n] = np.log(one.seconds), True
        net[i, :n] = [nets.index(k) for k in one.nets]
        kin[i, :n] = [families.index(family(k)) for k in one.nets]
    return Problem(
        tuple(sets), nets, families, plain, typed, logs, there, net, kin,
        np.array([boards.index(s.board) for s in sets]),
        np.array([pools.index(s.pool) for s in sets]),
        np.array([groups.index((s.pool, s.width)) for s in sets]),
    )  # fmt: skip


def fit_plain(data: Problem, known: Mask) -> Floats:
    """Terms of the plain model, shape (S, 3); NaN where a set has too few known rows."""
    terms = np.full((len(data.sets), 3), np.nan)
    for i in range(len(data.sets)):
        rows = known[i] & data.there[i]
        if rows.sum() >= 3:
            design, seconds = data.plain[i][rows], np.exp(data.logs[i][rows])
            scale = np.maximum(design.max(0), 1e-12)
            solved, _ = nnls(design / scale / seconds[:, None], np.ones(len(seconds)))
            terms[i] = solved / scale
    return terms


@dataclass(frozen=True)
class Typed:
    """Terms (S, 5) in seconds a unit, and offsets (S, N) of the logarithm."""

    terms: Floats
    offsets: Floats
    by_group: Floats


def fit_typed(data: Problem, known: Mask) -> Typed:
    """The typed model, its terms and offsets in turn."""
    rows = known & data.there
    offsets = np.zeros(data.shape)
    by_group = np.zeros((int(data.group.max()) + 1, len(data.nets) + len(data.families)))
    for turn in range(OFFSET_ROUNDS):
        terms = _pooled_terms(data, rows, data.logs - offsets)
        if turn < OFFSET_ROUNDS - 1:
            residual = data.logs - log_sum(data.typed, terms)
            offsets, by_group = _offsets(data, rows, residual)
    return Typed(terms, offsets, by_group)


def log_sum(features: Floats, terms: Floats) -> Floats:
    """Logarithm of the summed terms of every row, (S, N)."""
    total: Floats = np.log(np.maximum((features * terms[:, None, :]).sum(2), 1e-12))
    return total


def _pooled_terms(data: Problem, rows: Mask, logs: Floats) -> Floats:
    """Maximum a posteriori of the logarithm of each term; the prior is learnt from the sets of each pool."""
    mask = rows.astype(float)
    reference = (data.typed * mask[..., None]).sum((0, 1)) / mask.sum()
    scaled = data.typed / reference
    k = scaled.shape[2]
    pools = int(data.pool.max()) + 1
    mean, spread = np.full((pools, k), -np.log(k)), np.full((pools, k), PRIOR_SPREAD)
    speed = np.array([
        np.median(logs[i][rows[i]] - np.log(scaled[i][rows[i]].mean(1))) if rows[i].any() else 0.0
        for i in range(len(logs))
    ])  # fmt: skip
    terms = mean[data.pool] + speed[:, None]
    damping = np.full(len(logs), 1e-3)
    for turn in range(POOL_ROUNDS):
        for _ in range(STEPS):
            terms, speed, damping = _step(
                scaled,
                logs,
                mask,
                mean[data.pool],
                1 / spread[data.pool] ** 2,
                terms,
                speed,
                damping,
            )
        if turn < POOL_ROUNDS - 1:
            mean, spread = _prior(terms - speed[:, None], data.pool, pools)
    found: Floats = np.exp(terms) / reference
    return found


def _objective(
    scaled: Floats,
    logs: Floats,
    mask: Floats,
    mean: Floats,
    weight: Floats,
    terms: Floats,
    speed: Floats,
) -> Floats:
    z = np.abs(log_sum(scaled, np.exp(terms)) - logs) / NOISE
    loss = np.where(z > HUBER, HUBER * (2 * z - HUBER), z**2)
    total: Floats = (mask * loss).sum(1) + (weight * (terms - mean - speed[:, None]) ** 2).sum(1)
    return total


def _step(
    scaled: Floats, logs: Floats, mask: Floats, mean: Floats, weight: Floats,
    terms: Floats, speed: Floats, damping: Floats,
) -> tuple[Floats, Floats, Floats]:  # fmt: skip
    """One damped Gauss-Newton step for all sets at once; a step that does not help is taken back."""
    k = terms.shape[1]
    parts = scaled * np.exp(terms)[:, None, :]
    total = parts.sum(2)
    slope = parts / total[..., None]
    residual = np.log(np.maximum(total, 1e-300)) - logs
    z = np.abs(residual) / NOISE
    robust = mask * np.where(z > HUBER, HUBER / np.maximum(z, 1e-9), 1.0) / NOISE**2
    away = terms - mean - speed[:, None]
    hessian = np.zeros((len(terms), k + 1, k + 1))
    hessian[:, :k, :k] = np.einsum("snk,sn,snl->skl", slope, robust, slope)
    hessian[:, np.arange(k), np.arange(k)] += weight
    hessian[:, :k, k] = hessian[:, k, :k] = -weight
    hessian[:, k, k] = weight.sum(1)
    gradient = np.concatenate(
        [np.einsum("snk,sn->sk", slope, robust * residual) + weight * away, -(weight * away).sum(1)[:, None]],
        axis=1,
    )  # fmt: skip
    diagonal = np.einsum("skk->sk", hessian).copy()
    hessian[:, np.arange(k + 1), np.arange(k + 1)] += damping[:, None] * diagonal + 1e-6
    move = np.clip(np.linalg.solve(hessian, gradient[..., None])[..., 0], -2, 2)
    tried, tried_speed = terms - move[:, :k], speed - move[:, k]
    before = _objective(scaled, logs, mask, mean, weight, terms, speed)
    better = _objective(scaled, logs, mask, mean, weight, tried, tried_speed) < before
    return (
        np.where(better[:, None], tried, terms),
        np.where(better, tried_speed, speed),
        np.clip(np.where(better, damping / 3, damping * 5), 1e-6, 1e6),
    )


def _prior(away: Floats, pool: Ints, pools: int) -> tuple[Floats, Floats]:
    """Mean and spread of each term in each pool; a pool of few boards leans on all pools."""
    medians = np.array([np.median(away[pool == p], axis=0) for p in range(pools)])
    everywhere = medians.mean(0)
    mean, spread = np.zeros_like(medians), np.zeros_like(medians)
    for p in range(pools):
        own = away[pool == p]
        mean[p] = (own.sum(0) + everywhere) / (len(own) + 1)
        variance = ((own - mean[p]) ** 2).sum(0)
        spread[p] = np.clip(np.sqrt((variance + 2 * 0.5**2) / (len(own) + 2)), *SPREADS)
    return mean, spread


def _offsets(data: Problem, rows: Mask, residual: Floats) -> tuple[Floats, Floats]:
    """What networks and families deviate on the boards of a runtime and precision, each board counted once."""
    boards, nets, kins = int(data.board.max()) + 1, len(data.nets), len(data.families)
    kin_of = np.array([data.families.index(family(net)) for net in data.nets])
    found = np.zeros(data.shape)
    by_group = np.zeros((int(data.group.max()) + 1, nets + kins))
    for group in range(by_group.shape[0]):
        sums, counts = np.zeros((boards, nets)), np.zeros((boards, nets))
        members = np.flatnonzero(data.group == group)
        for i in members:
            at = np.flatnonzero(rows[i])
            np.add.at(sums, (data.board[i], data.net[i, at]), residual[i, at])
            np.add.at(counts, (data.board[i], data.net[i, at]), 1)
        seen = counts > 0
        each = np.clip(
            np.where(seen, sums / np.maximum(counts, 1), 0), -LARGEST_OFFSET, LARGEST_OFFSET
        )
        number, total = seen.sum(0), (each * seen).sum(0)
        kin = np.zeros(kins)
        for f in range(kins):
            of = (kin_of == f) & (number > 0)
            if of.any():
                kin[f] = total[of].sum() / (number[of].sum() + FAMILY_SHRINK * of.sum())
        own = (total - number * kin[kin_of]) / (number + NET_SHRINK) + kin[kin_of]
        by_group[group] = np.concatenate([own, kin])
        for i in members:
            at = data.there[i]
            found[i, at] = own[data.net[i, at]]
    return found, by_group
