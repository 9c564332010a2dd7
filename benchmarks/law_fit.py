"""How laws are fitted: two minimisers of the published objective from the same starts, and how well the distillation
law is found from 200 noisy runs.

    python -m benchmarks.law_fit

The runs follow the published coefficients (Busbridge et al. 2025, table 6) with 1 % of noise: sizes of 1e8 to 1e10, 2e9
to 5e11 tokens, teachers of the same sizes on 20 tokens a parameter.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from edgedistill.compute import fit as fitting
from edgedistill.compute.law import Array, Form, Runs, distillation, runs_of, supervised

SUPERVISED = {
    "log_e": np.log(1.220), "log_a": np.log(3355), "log_b": np.log(18186), "alpha": 0.408, "beta": 0.431,
    "gamma": 0.452,
}  # fmt: skip
DISTILLATION = {
    "log_a": np.log(2243), "log_b": np.log(24181), "alpha": 0.321, "beta": 0.637, "gamma": 0.764,
    "c0": 2.549, "c1": 522.6, "f1": 0.090, "log_d1": np.log(1.315),
}  # fmt: skip
STARTS, DRAWS, SEEDS, FURTHER = 32, 60, 6, 4.0
AGAIN = 6
"""Starts of each resampled fit."""


def main() -> None:
    """Print both tables."""
    _minimisers()
    _coefficients()


def _runs(seed: int, count: int = 200) -> Runs:
    rng = np.random.default_rng(seed)

    def drawn(low: float, high: float) -> Array:
        return np.exp(rng.uniform(np.log(low), np.log(high), count))

    size, seen, teachers = drawn(1e8, 1e10), drawn(2e9, 5e11), drawn(1e8, 1e10)
    return _beside(size, seen, _alone(teachers, 20 * teachers))


def _alone(size: Array, seen: Array) -> Array:
    form = supervised()
    return form.loss(form.array(SUPERVISED), runs_of(size, seen))


def _beside(size: Array, seen: Array, teacher: Array) -> Runs:
    return runs_of(size, seen, None, teacher, _alone(size, seen))


def _noisy(loss: Array, seed: int) -> Array:
    noise: Array = loss * np.exp(np.random.default_rng(seed + 100).normal(0, 0.01, len(loss)))
    return noise


def _minimisers() -> None:
    runs, form = _runs(0), supervised()
    seen = np.log(_noisy(runs.alone, 0))
    grid = fitting.starts_of(form)
    first = np.abs(form.log_loss(grid, runs)[0] - seen).mean(axis=-1)
    starts = grid[np.argsort(first, kind="stable")[:STARTS]]
    print(f"supervised law, {STARTS} starts: objective (Huber, delta 1e-4, mean) at the end\n")
    print("| minimiser | least | median | seconds |")
    print("|---|---|---|---|")
    ways: dict[str, Callable[[Array], float]] = {
        "trust region": lambda s: fitting._descend(form, s, runs, seen, (*fitting.SOFTER, fitting.DELTA))[0],
        "L-BFGS-B": lambda s: _by_lbfgs(form, s, runs, seen),
    }  # fmt: skip
    for name, way in ways.items():
        began = time.perf_counter()
        ends = [way(start) for start in starts]
        spent = time.perf_counter() - began
        print(f"| {name} | {min(ends):.7f} | {np.median(ends):.7f} | {spent:.2f} |")


def _by_lbfgs(form: Form, start: Array, runs: Runs, seen: Array) -> float:
    bounds = [(p.low, p.high) for p in form.parameters]

    def by(values: Array, delta: float) -> tuple[float, Array]:
        said, slope = form.log_loss(values, runs)
        off = said - seen
        huber = np.where(np.abs(off) <= delta, off * off / (2 * delta), np.abs(off) - delta / 2)
        return float(huber.mean()), np.clip(off / delta, -1, 1) @ slope / len(off)

    values, objective = start, np.inf
    for delta in (*fitting.SOFTER, fitting.DELTA):
        found = minimize(
            by, values, args=(delta,), jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-11, "gtol": 1e-8, "maxcor": 20},
        )  # fmt: skip
        values, objective = found.x, float(found.fun)
    return objective


def _coefficients() -> None:
    form = distillation()
    truth = form.array({name: float(value) for name, value in DISTILLATION.items()})
    names = ("alpha", "beta", "gamma", "c0", "f1")
    print(
        f"\ndistillation law, 200 runs: 95 % intervals, and what it says at {FURTHER:g} times size and data\n"
    )
    print(
        "| draw | " + " | ".join(f"{n} ({DISTILLATION[n]:g})" for n in names) + " | largest error |"
    )
    print("|---" * (len(names) + 2) + "|")
    for seed in range(SEEDS):
        runs = _runs(seed)
        law = fitting.fit(
            form,
            runs,
            _noisy(form.loss(truth, runs), seed),
            bootstrap=DRAWS,
            followed=16,
            starts=AGAIN,
        )
        far = _beside(FURTHER * runs.size, FURTHER * runs.seen, runs.teacher)
        off = float(np.abs(law.loss(far) / form.loss(truth, far) - 1).max())
        bounds = {name: law.interval(name, 0.95) for name in names}
        cells = [
            f"{low:.2f} to {high:.2f}" + ("" if low <= DISTILLATION[name] <= high else " (not)")
            for name, (low, high) in bounds.items()
        ]
        print(f"| {seed} | " + " | ".join(cells) + f" | {100 * off:.2f} % |", flush=True)


if __name__ == "__main__":
    main()
