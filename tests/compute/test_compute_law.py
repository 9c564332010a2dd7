"""The laws say what their papers say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad, minimize_scalar

from edgedistill.compute.images import ALONE, TAUGHT, TOGETHER
from edgedistill.compute.law import (
    REPEATED,
    SEEN,
    Form,
    between,
    distillation,
    fixed,
    runs_of,
    supervised,
)

SUPERVISED = {"e": 1.220, "a": 3355.0, "b": 18186.0, "alpha": 0.408, "beta": 0.431, "gamma": 0.452}
DISTILLATION = {
    "a": 2243.0, "b": 24181.0, "alpha": 0.321, "beta": 0.637, "gamma": 0.764,
    "c0": 2.549, "c1": 522.6, "f1": 0.090, "d1": 1.315,
}  # fmt: skip
"""Table 6 of Busbridge et al. 2025: of language models, for tests only."""
M, B = 1e6, 1e9


def logged(values: dict[str, float]) -> dict[str, float]:
    """Scales by their logarithm, as they are fitted."""
    return {
        f"log_{k}" if k in "e a b d1" else k: np.log(v) if k in "e a b d1" else v
        for k, v in values.items()
    }


def alone(size: float, seen: float) -> float:
    """The published supervised law."""
    form = supervised()
    return float(form.loss(form.array(logged(SUPERVISED)), runs_of(size, seen))[0])


def taught(size: float, seen: float, teacher: float) -> float:
    """The published distillation law."""
    form = distillation()
    runs = runs_of(size, seen, teacher=teacher, alone=alone(size, seen))
    return float(form.loss(form.array(logged(DISTILLATION)), runs)[0])


@pytest.mark.parametrize(
    ("size", "loss"), [(198 * M, 2.7894), (546 * M, 2.5149), (1.82 * B, 2.2509), (7.75 * B, 2.0036)]
)
def test_the_supervised_law_gives_the_published_losses(size: float, loss: float) -> None:
    assert f"{alone(size, 20 * size):.4f}" == f"{loss:.4f}"


@pytest.mark.parametrize(
    ("size", "teacher", "loss"),
    [(546 * M, 1.82 * B, 2.4238), (198 * M, 7.75 * B, 2.5439), (1.82 * B, 7.75 * B, 2.1833)],
)
def test_the_distillation_law_gives_the_published_losses(
    size: float, teacher: float, loss: float
) -> None:
    assert f"{taught(size, 20 * size, alone(teacher, 20 * teacher)):.4f}" == f"{loss:.4f}"


@pytest.mark.parametrize(
    ("size", "seen", "teacher", "loss", "digits"),
    [
        (198 * M, 20 * 198 * M, 1.876, 2.534, 3),
        (198 * M, 320 * 198 * M, 2.199, 2.4739, 4),
        (546 * M, 20 * 546 * M, 1.776, 2.3541, 4),
        (546 * M, 320 * 546 * M, 2.076, 2.2717, 4),
        (546 * M, 512 * B, 2.072, 2.2428, 4),
        (1 * B, 20 * B, 1.723, 2.2523, 4),
        (1.82 * B, 20 * 1.82 * B, 1.675, 2.156, 3),
    ],
)
def test_the_best_teacher_of_a_student_is_the_published_one(
    size: float, seen: float, teacher: float, loss: float, digits: int
) -> None:
    best = minimize_scalar(
        lambda t: taught(size, seen, t),
        bounds=(1.3, 2.6),
        method="bounded",
        options={"xatol": 1e-7},
    )
    assert f"{best.x:.3f}" == f"{teacher:.3f}"
    assert f"{best.fun:.{digits}f}" == f"{loss:.{digits}f}"


@pytest.mark.parametrize(
    ("size", "seen", "loss"),
    [(546 * M, 320 * 546 * M, 2.295), (546 * M, 512 * B, 2.2542), (1 * B, 20 * B, 2.3747)],
)
def test_the_supervised_loss_beside_the_best_teacher_is_the_published_one(
    size: float, seen: float, loss: float
) -> None:
    digits = 3 if loss == 2.295 else 4
    assert f"{alone(size, seen):.{digits}f}" == f"{loss:.{digits}f}"


FORMS: dict[str, Callable[[], Form]] = {
    "supervised": supervised,
    "supervised, repeated": lambda: supervised(REPEATED),
    "distillation": distillation,
    "distillation, repeated": lambda: distillation(REPEATED),
    "between": between,
    "fixed": lambda: fixed(supervised(REPEATED), gamma=1.0, alpha=0.4),
    **{f"alone, {form.name}": lambda form=form: form for form in ALONE},  # type: ignore[misc]
    **{f"taught, {form.name}": lambda form=form: form for form in TAUGHT},  # type: ignore[misc]
    **{form.name: lambda form=form: form for form in TOGETHER},  # type: ignore[misc]
}


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=30)
@given(data=st.data())
def test_a_gradient_is_that_of_the_loss(name: str, data: st.DataObject) -> None:
    form = FORMS[name]()
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    runs = runs_of(
        np.exp(rng.uniform(10, 18, 7)), np.exp(rng.uniform(8, 15, 7)), np.exp(rng.uniform(6, 12, 7)),
        rng.uniform(0.1, 3, 7), rng.uniform(0.1, 3, 7),
    )  # fmt: skip
    inside = np.array(
        [
            rng.uniform(max(p.low, min(p.starts), 0.2 if p.low > 0 else -9), max(p.starts) + 0.2)
            for p in form.parameters
        ]
    )
    off = check_grad(
        lambda v: float(form.log_loss(v, runs)[0].sum()),
        lambda v: form.log_loss(v, runs)[1].sum(axis=0),
        inside,
    )
    assert off < 1e-3 * (1 + np.abs(form.log_loss(inside, runs)[1].sum(axis=0)).max())


def test_many_sets_of_parameters_are_computed_at_once() -> None:
    runs = runs_of([1e6, 2e6, 4e6], [1e5, 1e5, 1e6], 1e4, 0.3, [0.5, 0.6, 0.7])
    for make in FORMS.values():
        form = make()
        sets = np.stack(
            [
                [p.starts[0] + 0.5 for p in form.parameters],
                [p.starts[-1] + 0.1 for p in form.parameters],
            ]
        )
        loss, slope = form.log_loss(sets, runs)
        assert loss.shape == (2, 3) and slope.shape == (2, 3, len(form.names))
        for k in range(2):
            one, its = form.log_loss(sets[k], runs)
            np.testing.assert_allclose(loss[k], one)
            np.testing.assert_allclose(slope[k], its)


def test_data_seen_once_is_worth_what_it_is_and_repeats_are_worth_less_each_time() -> None:
    unique = np.full(4, 1000.0)
    runs = runs_of(1.0, unique * [1, 2, 11, 1e6], unique)
    worth = np.exp(REPEATED.log_amount(np.array([np.log(15.39)]), runs)[0])
    assert worth[0] == pytest.approx(1000)
    assert 1900 < worth[1] < 2000
    assert worth[2] == pytest.approx(1000 * (1 + 15.39 * (1 - np.exp(-10 / 15.39))))
    assert worth[3] == pytest.approx(1000 * 16.39)
    assert SEEN.log_amount(np.zeros(0), runs)[0] == pytest.approx(np.log(runs.seen))


def test_less_than_one_pass_is_worth_the_images_that_were_shown() -> None:
    half = REPEATED.log_amount(np.array([2.0]), runs_of(1.0, 500.0, 1000.0))[0]
    assert half == pytest.approx(np.log(500))


def test_a_student_that_equation_8_describes_never_ends_below_its_teacher() -> None:
    assert taught(1e12, 1e15, 1.5) >= 1.5


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_run_without_a_positive_number_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="seen must be finite and above 0"):
        runs_of(1.0, [1.0, bad])


def test_values_of_another_form_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="supervised has the parameters log_e"):
        supervised().array({"k0": 1.0})
