"""A fitted law finds what made the runs, and says how sure it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from edgedistill.compute.fit import DELTA, fit, starts_of
from edgedistill.compute.images import ALONE
from edgedistill.compute.law import (
    REPEATED,
    Runs,
    distillation,
    fixed,
    runs_of,
    supervised,
)

TRUTH = {"log_e": 0.2, "log_a": 8.1, "log_b": 9.8, "alpha": 0.41, "beta": 0.43, "gamma": 0.45}
TAUGHT = {
    "log_a": 7.7, "log_b": 10.1, "alpha": 0.32, "beta": 0.64, "gamma": 0.76,
    "c0": 2.5, "c1": 500.0, "f1": 0.09, "log_d1": 0.27,
}  # fmt: skip
COUNT, NOISE = 200, 0.01


def spread(seed: int, count: int = COUNT) -> Runs:
    """Runs of many sizes, amounts of data and teachers."""
    rng = np.random.default_rng(seed)

    def between_(low: float, high: float) -> np.ndarray:
        return np.exp(rng.uniform(np.log(low), np.log(high), count))

    size, seen = between_(1e8, 1e10), between_(2e9, 5e11)
    form = supervised()
    values = form.array(TRUTH)
    teacher = form.loss(values, runs_of(teachers := between_(1e8, 1e10), 20 * teachers))
    return runs_of(size, seen, None, teacher, form.loss(values, runs_of(size, seen)))


def noisy(loss: np.ndarray, seed: int) -> np.ndarray:
    """Losses with 1 % of noise."""
    return loss * np.exp(np.random.default_rng(seed + 100).normal(0, NOISE, len(loss)))


def further(runs: Runs) -> Runs:
    """Students four times as large on four times the data: sixteen times the compute."""
    size, seen = 4 * runs.size, 4 * runs.seen
    alone = supervised().loss(supervised().array(TRUTH), runs_of(size, seen))
    return runs_of(size, seen, None, runs.teacher, alone)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_supervised_law_is_found_from_200_noisy_runs(seed: int) -> None:
    runs, form = spread(seed), supervised()
    law = fit(form, runs, noisy(runs.alone, seed), bootstrap=60, seed=seed)
    for name in ("alpha", "beta", "gamma"):
        low, high = law.interval(name, 0.95)
        assert low <= TRUTH[name] <= high, name
        assert high - low < 0.4
    far = further(runs)
    np.testing.assert_allclose(law.loss(far), far.alone, rtol=0.02)


def test_the_distillation_law_is_found_from_200_noisy_runs() -> None:
    runs, form = spread(1), distillation()
    truth = form.array(TAUGHT)
    law = fit(form, runs, noisy(form.loss(truth, runs), 1), bootstrap=20, followed=16, starts=4)
    for name in ("alpha", "beta", "gamma"):
        low, high = law.interval(name, 0.95)
        assert low <= TAUGHT[name] <= high, name
    far = further(runs)
    np.testing.assert_allclose(law.loss(far), form.loss(truth, far), rtol=0.02)


def test_no_descent_by_the_published_method_ends_lower() -> None:
    runs, form = spread(0), supervised()
    loss = noisy(runs.alone, 0)
    law = fit(form, runs, loss, bootstrap=0)

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        said, slope = form.log_loss(values, runs)
        off = said - np.log(loss)
        huber = np.where(np.abs(off) <= DELTA, off**2 / (2 * DELTA), np.abs(off) - DELTA / 2)
        return float(huber.mean()), np.clip(off / DELTA, -1, 1) @ slope / len(off)

    bounds = [(p.low, p.high) for p in form.parameters]
    grid = starts_of(form)
    assert len(grid) == 9600
    for start in grid[np.random.default_rng(0).permutation(len(grid))[:40]]:
        found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds)
        assert found.fun >= law.objective - 1e-9
    assert objective(law.values)[0] == pytest.approx(law.objective)


def test_what_repeated_images_are_worth_is_found() -> None:
    rng = np.random.default_rng(0)
    unique = np.exp(rng.uniform(7, 12, 150))
    runs = runs_of(
        np.exp(rng.uniform(11, 16, 150)), unique * np.exp(rng.uniform(0, 5, 150)), unique
    )
    form = supervised(REPEATED)
    truth = form.array({**TRUTH, "log_e": -2.0, "log_a": 3.0, "log_b": 4.0, "log_repeats": 2.7})
    law = fit(form, runs, noisy(form.loss(truth, runs), 0), bootstrap=40)
    low, high = law.interval("log_repeats", 0.95)
    assert low <= 2.7 <= high
    assert high - low < 2
    plain = fit(supervised(), runs, form.loss(truth, runs), bootstrap=0)
    assert plain.objective > 2 * law.objective


def test_the_band_holds_as_many_further_runs_as_it_says() -> None:
    runs, form = spread(5, 80), fixed(supervised(), gamma=0.45)
    law = fit(form, runs, noisy(runs.alone, 5), bootstrap=100)
    more = spread(6, 400)
    seen = noisy(more.alone, 6)
    low, high = law.band(more)
    inside = np.mean((low <= seen) & (seen <= high))
    assert 0.85 <= inside <= 0.96
    wider_low, wider_high = law.band(more, 0.99)
    assert (wider_low < low).all() and (wider_high > high).all()


def test_an_exponent_that_no_run_tells_of_stays_where_exponents_are() -> None:
    rng = np.random.default_rng(0)
    unique = np.exp(rng.uniform(6, 10, 24))
    size = 1e7 * np.exp(rng.uniform(-0.05, 0.05, 24))
    runs = runs_of(size, unique * np.exp(rng.uniform(0, 4, 24)), unique)
    form = next(form for form in ALONE if form.name == "size, different images and images shown")
    truth = dict.fromkeys(form.names, 0.4) | {
        "log_floor": -3.0, "log_size": -9.0, "log_unique": 1.0, "log_seen": 2.5,
    }  # fmt: skip
    law = fit(form, runs, noisy(form.loss(form.array(truth), runs), 0), bootstrap=20)
    assert 0.2 <= law.coefficients["size_by_size"] <= 0.8
    low, high = law.interval("size_by_size", 0.9)
    assert low >= 0.1 and high <= 1.0
    more = runs_of(2e7, 4 * runs.seen, runs.unique)
    np.testing.assert_allclose(law.loss(more), form.loss(form.array(truth), more), rtol=0.1)


def test_one_run_that_went_wrong_moves_nothing() -> None:
    runs, form = spread(7, 60), supervised()
    loss = noisy(runs.alone, 7)
    spoilt = loss.copy()
    spoilt[3] *= 10
    one, other = (fit(form, runs, given, bootstrap=0).loss(runs) for given in (loss, spoilt))
    np.testing.assert_allclose(one, other, rtol=0.01)


def test_too_few_runs_and_impossible_losses_are_refused() -> None:
    runs = spread(0, 6)
    with pytest.raises(ValueError, match="6 parameters and takes more runs than that, not 6"):
        fit(supervised(), runs, runs.alone)
    more = spread(0, 9)
    with pytest.raises(ValueError, match="above 0"):
        fit(supervised(), more, np.zeros(9))


def test_the_same_seed_gives_the_same_law() -> None:
    runs = spread(1, 40)
    loss = noisy(runs.alone, 1)
    laws = [fit(fixed(supervised(), gamma=1.0), runs, loss, bootstrap=5, seed=4) for _ in range(2)]
    np.testing.assert_array_equal(laws[0].draws, laws[1].draws)
