"""A law is learned from rows, says what it can, and is silent where it knows nothing."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from compute_parts import STUDENTS, TEACHERS, made, plain_loss, rows, taught_loss

from edgedistill.compute.predict import FEWEST, Asked, Law, learn, way_of


@cache
def plain(what: str = "loss") -> Law:
    found = learn(rows(40, taught=False), "loss" if what == "loss" else "error", bootstrap=30)
    assert found is not None
    return found


def asked(student: str, unique: int, epochs: int, teacher: float | None = None) -> Asked:
    params, macs = STUDENTS[student]
    return Asked(student, params, macs, unique * epochs, unique, teacher)


def test_dearer_trainings_than_any_row_are_said_within_a_few_per_cent() -> None:
    law = plain()
    assert law.held_out < 0.03
    for student in STUDENTS:
        truth = plain_loss(STUDENTS[student][1], 8000, 8000 * 120)
        said = law.say(asked(student, 8000, 120))
        assert said.value == pytest.approx(truth, rel=0.04)
        assert said.low < truth < said.high
        assert said.outside == ()


def test_the_error_has_a_law_of_its_own() -> None:
    said = plain("error").say(asked("middle", 2000, 20))
    assert said.value == pytest.approx(
        plain_loss(STUDENTS["middle"][1], 2000, 40_000) / 3, rel=0.04
    )


def test_a_taught_student_is_said_beside_the_one_without_a_teacher() -> None:
    law = learn(rows(40, taught=True, seed=1), "loss", plain(), bootstrap=20)
    assert law is not None and law.way.taught
    assert law.held_out < 0.03
    for teacher, loss in TEACHERS.items():
        question = plain().beside([asked("large", 8000, 60, loss)])[0]
        truth = taught_loss(STUDENTS["large"][1], 8000, 480_000, loss)
        assert law.say(question).value == pytest.approx(truth, rel=0.05), teacher


def test_without_a_law_of_plain_students_a_taught_one_is_said_by_its_teacher_and_data() -> None:
    law = learn(rows(40, taught=True, seed=1), "loss", None, bootstrap=0)
    assert law is not None and "alone" not in law.fitted.form.reads
    assert law.held_out < 0.06


def test_far_from_every_row_the_law_says_that_it_lies_outside() -> None:
    said = plain().say(asked("large", 4_000_000, 1))
    assert any("images shown" in words or "different images" in words for words in said.outside)
    assert plain().say(asked("large", 8000, 60)).outside == ()


def test_too_few_rows_make_no_law() -> None:
    assert learn(rows(FEWEST - 1, taught=False), "loss") is None
    assert learn([], "loss") is None


def test_a_student_that_is_better_than_its_size_keeps_its_distance() -> None:
    rng = np.random.default_rng(3)
    found = []
    for one in rows(60, taught=False, seed=3):
        lift = {"small": -0.15, "middle": 0.15, "large": 0.0}[one.student.model]
        epochs = one.seen // one.data.train
        found.append(made(one.student.model, one.data.train, epochs, None, lift + rng.normal(0, 0.01)))  # fmt: skip
    law = learn(found, "loss", bootstrap=0)
    assert law is not None
    better, worse = (
        law.say(asked(s, 8000, 60)).value / plain_loss(STUDENTS[s][1], 8000, 480_000)
        for s in ("small", "middle")
    )
    assert better == pytest.approx(np.exp(-0.15), rel=0.04)
    assert worse == pytest.approx(np.exp(0.15), rel=0.04)


def test_ways_are_told_apart_by_arm_method_settings_and_start() -> None:
    first = made("small", 500, 2, None)
    student = first.student.model_copy(update={"start": "pretrained"})
    others = [
        made("small", 500, 2, "good"),
        first.model_copy(update={"student": student}),
        first.model_copy(update={"settings_sha256": "e" * 64}),
    ]
    assert len({way_of(one) for one in [first, *others]}) == 4
    assert way_of(made("large", 8000, 60, None)) == way_of(first)
