"""A budget goes where the laws say that it brings most, and never further than it reaches."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from compute_parts import STUDENTS, TEACHERS, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.compute.allocate import Advice, Choice, Images, Laws, Master, Pupil, advise, ranked
from edgedistill.compute.effort import Effort
from edgedistill.compute.fit import Fitted
from edgedistill.compute.flops import SCENARIOS
from edgedistill.compute.images import ALONE
from edgedistill.compute.law import runs_of
from edgedistill.compute.learn import learn
from edgedistill.compute.predict import BEYOND, Way, way_of

IMAGES = Images(8000, 900, lambda epochs: min(epochs, 3))
PUPILS = tuple(
    Pupil(name, params, macs, "random", macs / 1e10, 1.1 * macs / 1e10, macs / 3e10)
    for name, (params, macs) in STUDENTS.items()
)
MASTERS = tuple(
    Master(name, loss, loss / 3, prepare_s, prepare_s * 1e11, 0.002, 2e8)
    for (name, loss), prepare_s in zip(TEACHERS.items(), (0.0, 60.0, 400.0), strict=True)
)


@cache
def laws() -> dict[Way, Laws]:
    """Laws of plain and taught students, from rows."""
    plain, taught = rows(40, taught=False), rows(40, taught=True, seed=1)
    error, loss = (learn(plain, what, bootstrap=10) for what in ("error", "loss"))
    assert error is not None and loss is not None
    found = {way_of(plain[0]): Laws(error, loss)}
    more = [learn(taught, law.what, law, bootstrap=10) for law in (error, loss)]
    assert more[0] is not None
    found[way_of(taught[0])] = Laws(more[0], more[1])
    return found


def advice(effort: Effort, masters: tuple[Master, ...] = MASTERS) -> Advice:
    return advise(effort, PUPILS, masters, IMAGES, laws())


def spent(choice: Choice) -> float:
    return sum(choice.seconds.values())


@settings(max_examples=10)
@given(seconds=st.floats(1, 1e5))
def test_no_choice_costs_more_than_the_budget_and_one_more_epoch_would(seconds: float) -> None:
    for choice in ranked(Effort(seconds=seconds), PUPILS, MASTERS, IMAGES, laws()):
        assert spent(choice) <= seconds
        step = choice.pupil.taught_s if choice.master else choice.pupil.train_s
        epoch = IMAGES.train * step + IMAGES.val * choice.pupil.validate_s
        views = IMAGES.train * 0.002 if choice.master else 0.0
        assert choice.epochs == 300 or choice.why_shorter or spent(choice) + epoch + views > seconds


def test_the_best_choice_comes_first_and_what_lies_outside_the_laws_is_no_choice() -> None:
    found = advice(Effort(seconds=900))
    assert found.choices and not any(choice.outside for choice in found.choices)
    errors = [choice.error.value for choice in found.choices]
    assert errors == sorted(errors)
    assert all(choice.outside for choice in found.beyond)


def test_of_a_budget_beyond_the_runs_the_longest_training_inside_them_is_said() -> None:
    found = advice(Effort(seconds=1e6))
    assert found.choices
    most = 60 * 8000 * BEYOND
    for choice in found.choices:
        assert choice.epochs * IMAGES.train <= most
        assert choice.why_shorter is not None and spent(choice) < 1e6
    far = Images(500_000, 900, lambda epochs: 1)
    lost = advise(Effort(seconds=1e6), PUPILS, MASTERS, far, laws())
    assert not lost.choices and lost.beyond and not lost.others and not lost.scenarios


def test_fewer_epochs_are_chosen_where_more_do_harm() -> None:
    error = learn(rows(40, taught=False), "error", bootstrap=4)
    assert error is not None
    form = next(form for form in ALONE if "by heart" in form.name)
    values = dict.fromkeys(form.names, 0.5) | {
        "log_floor": -2.0, "log_size": 0.0, "log_unique": 0.0, "log_seen": 3.0, "log_by_heart": -2.0,
        "by_heart_by_repeats": 1.5,
    }  # fmt: skip
    fitted = replace(
        error.fitted, form=form, values=form.array(values), draws=form.array(values)[None]
    )
    harmed = {error.way: Laws(replace(error, fitted=fitted))}
    few = replace(IMAGES, train=1000)
    found = ranked(Effort(seconds=1000), PUPILS[:1], (), few, harmed)[0]
    assert found.why_shorter == "more epochs are said to do harm"
    at = {
        e: float(error_of(fitted, e)) for e in (found.epochs, 2 * found.epochs, found.epochs // 2)
    }
    assert at[found.epochs] < 1.02 * min(at.values())


def error_of(fitted: Fitted, epochs: int) -> float:
    """What a law says of the smallest student on 1,000 images."""
    return float(fitted.loss(runs_of(PUPILS[0].macs, 1000 * epochs, 1000))[0])


def test_a_short_budget_pays_for_no_teacher_and_a_long_one_for_the_best() -> None:
    short, long = advice(Effort(seconds=20)), advice(Effort(seconds=20_000))
    assert short.choices[0].master is None
    best = long.choices[0]
    assert best.master is not None and best.master.name == "good"
    assert best.pupil.model == "large"
    assert best.seconds["teacher preparation"] == 400.0


def test_a_teacher_that_is_there_already_is_told_where_it_changes_the_choice() -> None:
    found = advice(Effort(seconds=300))
    free = found.scenarios["free"]
    assert free.master is not None and set(free.seconds) == {"training"}
    assert free.error.value < found.choices[0].error.value
    there = ranked(Effort(seconds=300), PUPILS, MASTERS, IMAGES, laws(), SCENARIOS["exists"])
    assert all("teacher preparation" not in choice.seconds for choice in there)
    assert any("teacher's outputs" in choice.seconds for choice in there)


def test_other_budgets_are_told_where_their_best_choice_is_another() -> None:
    found = advice(Effort(seconds=300))
    assert found.others
    for share, other in found.others.items():
        assert spent(other) <= 300 * share
        assert (other.pupil, other.master, other.targets) != (
            found.choices[0].pupil, found.choices[0].master, found.choices[0].targets,
        )  # fmt: skip


def test_a_budget_of_operations_is_spent_in_operations() -> None:
    found = ranked(Effort(flops=1e14), PUPILS, MASTERS, IMAGES, laws())
    assert found
    assert all(sum(choice.flops.values()) <= 1e14 for choice in found)
    assert max(sum(choice.flops.values()) for choice in found) > 0.8e14


def test_a_budget_that_pays_for_no_epoch_has_no_choice() -> None:
    assert advice(Effort(seconds=1e-3)).choices == ()
    assert advise(Effort(seconds=900), (), MASTERS, IMAGES, laws()).choices == ()
    assert advise(Effort(seconds=900), PUPILS, MASTERS, IMAGES, {}).choices == ()


def test_without_teachers_only_plain_students_are_left() -> None:
    found = advice(Effort(seconds=900), ()).choices
    assert found and all(choice.master is None for choice in found)


def test_live_outputs_are_paid_for_at_each_step_and_stored_ones_once_for_each_view() -> None:
    found = ranked(Effort(seconds=5000), PUPILS[2:], MASTERS[:1], IMAGES, laws())
    live, stored = (next(c for c in found if c.targets == t) for t in ("live", "stored"))
    seen = live.epochs * IMAGES.train
    assert live.seconds["teacher's outputs"] == pytest.approx(seen * 0.002)
    assert stored.seconds["teacher's outputs"] == pytest.approx(3 * IMAGES.train * 0.002)
    assert stored.epochs > live.epochs
