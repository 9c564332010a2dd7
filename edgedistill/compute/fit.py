"""Fitting a law to runs, as it is done where the laws come from; scipy, imported inside.

Huber's loss (delta 1e-4) on the logarithm of the loss, minimised from a grid of starts; intervals by fitting resampled
runs again (Busbridge et al. 2025, appendix F). The paper minimises by L-BFGS-B. Huber's loss with so small a delta has
a kink at nearly every run, on which that method stops early; scipy's trust region method for robust least squares
minimises the same sum, and ends at the same place from nearly every start, which no descent by L-BFGS-B came below.
Of the grid, the starts that are nearest to the runs are followed to the end; of the 216,000 starts of the distillation
law every eleventh is looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from edgedistill.compute.law import Array, Form, Runs

DELTA = 1e-4
SOFTER = (1e-2, 1e-3)
"""Deltas of the steps before the published one, without kinks."""
FOLLOWED = 64
"""Starts of the grid that are followed to the end."""
AGAIN, AS_GOOD = 2, 1.02
"""Different ends of them that a resampled fit starts from, whose objective is at most this many times the best."""
CHUNK, LOOKED_AT, MOST_STARTS, ROUGH_STARTS = 2048, 50, 20_000, 4000
"""Starts that are judged at once, by how many of the runs at most, and how many of the grid are judged at most."""
NOISE = 0.03
"""Delta of forms with a likely range of parameters: about the noise of a run, which makes more of a few runs than the
published one, and still lets one that went wrong count little."""
PULL = 0.1
"""How far off a run is, in the logarithm of its loss, that weighs as much as a parameter one spread from its centre."""
INSIDE, MOST_STEPS = 1e-9, 300
"""How far inside its bounds a descent begins, and its steps at most."""


@dataclass(frozen=True)
class Fitted:
    """A law with coefficients: `values` (P,), `draws` (B, P) of resampled fits, and what it was fitted to.

    `residuals` (R,) are the logarithms of seen by said; `objective` is the mean of Huber's loss by delta; `freedom` is
    how many coefficients the runs determine, which is fewer than P where some are held by what is likely.
    """

    form: Form
    values: Array
    draws: Array
    runs: Runs
    residuals: Array
    objective: float
    freedom: float

    @property
    def coefficients(self) -> Mapping[str, float]:
        """Values by name."""
        return dict(zip(self.form.names, self.values.tolist(), strict=True))

    def interval(self, name: str, level: float = 0.9) -> tuple[float, float]:
        """Bootstrap percentiles of a coefficient. Raises `ValueError` for another name."""
        column = self.draws[:, self.form.names.index(name)]
        low, high = np.quantile(column, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def loss(self, runs: Runs) -> Array:
        """Loss (R,) in nats that the law says."""
        return self.form.loss(self.values, runs)

    def band(self, runs: Runs, level: float = 0.9) -> tuple[Array, Array]:
        """Where the loss of a further run falls with probability `level`: lower and upper ends (R,), in nats.

        Each resampled law with each residual: what is not known about the law, and how runs scatter about it. Residuals
        are widened by sqrt(R / (R - P)), as a law with P free coefficients comes nearer to its own runs than to others.
        """
        said = self.form.log_loss(self.draws, runs)[0]
        spread = self.residuals * self._widening
        ends = np.empty((2, len(runs)))
        for k in range(len(runs)):
            every = (said[:, k, None] + spread).ravel()
            ends[:, k] = np.quantile(every, [(1 - level) / 2, (1 + level) / 2])
        low, high = np.exp(ends)
        return low, high

    @cached_property
    def _widening(self) -> float:
        count = len(self.residuals)
        return float(np.sqrt(count / max(1.0, count - self.freedom)))


def fit(
    form: Form,
    runs: Runs,
    loss: Array,
    *,
    bootstrap: int = 200,
    seed: int = 0,
    followed: int = FOLLOWED,
    starts: int = 0,
    rough: bool = False,
) -> Fitted:
    """Fit a form to the losses (R,) of runs; `rough`: with the largest delta alone, to compare forms.

    A resampled fit starts from the end of the first, and from so many `starts` of the grid. What the law says needs
    none of them; an interval of one coefficient does where others can make up for it (alpha for gamma), as a descent
    does not walk the whole valley. Raises `ValueError` with fewer runs than parameters, or a loss that is not above 0.
    """
    if len(runs) < fewest(form):
        raise ValueError(
            f"{form.name} has {fewest(form) - 1} parameters and takes more runs than that, not {len(runs)}"
        )
    if not (np.isfinite(loss).all() and (loss > 0).all()):
        raise ValueError("a loss must be finite and above 0")
    seen = np.log(loss)
    deltas = _deltas(form, rough)
    near = _near(form, runs, seen, ROUGH_STARTS if rough else MOST_STARTS)
    ends = _ends(form, runs, seen, near[:followed], deltas)
    values = ends[0][1]
    good = [end for worth, end in ends if worth <= AS_GOOD * ends[0][0]][:AGAIN]
    good += list(near[:starts])
    steps = deltas if starts else deltas[-2:]
    rng, draws = np.random.default_rng(seed), []
    for _ in range(bootstrap):
        which = rng.integers(0, len(runs), len(runs))
        own = [_descend(form, start, runs[which], seen[which], steps) for start in good]
        draws.append(min(own, key=lambda pair: pair[0])[1])
    said = form.log_loss(values, runs)[0]
    found = np.array(draws) if draws else values[None]
    return Fitted(form, values, found, runs, seen - said, ends[0][0], _freedom(form, values, runs))


def fewest(form: Form) -> int:
    """How many runs a form takes at least: one more than the parameters of which nothing is likely beforehand."""
    return 1 + sum(p.likely is None for p in form.parameters)


def _freedom(form: Form, values: Array, runs: Runs) -> float:
    """Degrees of freedom of a fit with a pull: the trace of J (J'J + W'W)^-1 J'."""
    which, _, weight = _likely(form)
    if not len(which):
        return float(len(values))
    slopes = form.log_loss(values, runs)[1]
    held = np.zeros(len(values))
    held[which] = weight**2
    inner = slopes.T @ slopes
    return float(np.trace(np.linalg.pinv(inner + np.diag(held)) @ inner))


def _deltas(form: Form, rough: bool) -> tuple[float, ...]:
    if any(p.likely is not None for p in form.parameters):
        return (NOISE,)
    return SOFTER[:1] if rough else (*SOFTER, DELTA)


@lru_cache(maxsize=64)
def starts_of(form: Form) -> Array:
    """The grid of starts (G, P), inside the bounds."""
    grid = np.array(list(itertools.product(*(p.starts for p in form.parameters))))
    low, high = _bounds(form)
    inside: Array = np.clip(grid, low, high)
    inside.flags.writeable = False
    return inside


def _bounds(form: Form) -> tuple[Array, Array]:
    return np.array([p.low for p in form.parameters]), np.array([p.high for p in form.parameters])


def _near(form: Form, runs: Runs, seen: Array, most: int) -> Array:
    """At most so many starts of the grid (G, P), those first that say the runs best."""
    grid = starts_of(form)
    grid = grid[:: -(-len(grid) // most)]
    some = slice(None, None, -(-len(runs) // LOOKED_AT))
    first = np.concatenate(
        [
            np.abs(form.log_loss(part, runs[some])[0] - seen[some]).mean(axis=-1)
            for part in (grid[k : k + CHUNK] for k in range(0, len(grid), CHUNK))
        ]
    )
    ordered: Array = grid[np.argsort(first, kind="stable")]
    return ordered


def _ends(
    form: Form, runs: Runs, seen: Array, starts: Array, deltas: Sequence[float]
) -> list[tuple[float, Array]]:
    """Different ends of descents from starts (G, P), the best first."""
    ends = [_descend(form, start, runs, seen, deltas) for start in starts]
    ends.sort(key=lambda pair: pair[0])
    different: list[tuple[float, Array]] = []
    for end in ends:
        if all(not np.allclose(end[1], other[1], atol=1e-2) for other in different):
            different.append(end)
    return different


def _descend(
    form: Form, start: Array, runs: Runs, seen: Array, deltas: Sequence[float]
) -> tuple[float, Array]:
    """The objective with the last delta at the end of a descent, and the end."""
    from scipy.optimize import least_squares

    low, high = _bounds(form)
    which, centre, weight = _likely(form)
    towards = np.zeros((len(which), len(low)))
    towards[np.arange(len(which)), which] = weight

    def residuals(given: Array) -> Array:
        return np.concatenate(
            [form.log_loss(given, runs)[0] - seen, weight * (given[which] - centre)]
        )

    values = start
    for delta in deltas:
        values = least_squares(
            residuals,
            np.clip(values, low + INSIDE, high - INSIDE),
            jac=lambda given: np.concatenate([form.log_loss(given, runs)[1], towards]),
            bounds=(low, high), loss="huber", f_scale=delta, max_nfev=MOST_STEPS,
        ).x  # fmt: skip
    off = np.abs(residuals(values))
    huber = np.where(off <= deltas[-1], off * off / (2 * deltas[-1]), off - deltas[-1] / 2)
    return float(huber.sum()) / len(seen), values


def _likely(form: Form) -> tuple[npt.NDArray[np.int64], Array, Array]:
    """Which parameters are pulled, where to, and by how much: a spread away costs as much as a run that is PULL off."""
    pulled = [(k, p.likely) for k, p in enumerate(form.parameters) if p.likely is not None]
    which = np.array([k for k, _ in pulled], dtype=np.int64)
    centre, spread = np.array([likely for _, likely in pulled]).reshape(-1, 2).T
    return which, centre, PULL / spread
