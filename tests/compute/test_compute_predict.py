"""A law is learned from rows, says what it can, and is silent where it knows nothing."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from compute_parts import STUDENTS, TEACHERS, made, plain_loss, rows, taught_loss

from edgedistill.compute.fit import fit
from edgedistill.compute.images import TOGETHER
from edgedistill.compute.learn import FEWEST, _pick_both, learn, learn_both
from edgedistill.compute.ledger import Row
from edgedistill.compute.predict import Asked, Law, way_of


@cache
def plain(what: str = "loss") -> Law:
    found = learn(rows(40, taught=False), "loss" if what == "loss" else "error", bootstrap=30)
    assert found is not None
    return found


def asked(student: str, unique: int, epochs: int, teacher: float | None = None) -> Asked:
    params, macs = STUDENTS.get(student, STUDENTS["middle"])
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


def test_a_student_that_begins_slower_than_others_of_its_size_is_known_and_catches_up() -> None:
    found: tuple[list[Row], list[Row]] = ([], [])
    for taught in (False, True):
        for one in rows(60, taught=taught, seed=3):
            slower = {"small": -0.1, "middle": 0.1, "large": 0.0}[one.student.model]
            noise = slower * min(3.0, 2e4 / one.seen)
            teacher = one.teacher.model if one.teacher else None
            epochs = one.seen // one.data.train
            found[taught].append(made(one.student.model, one.data.train, epochs, teacher, noise))
    law = learn_both(*found, "loss", bootstrap=0)[0]
    assert law is not None
    own = law.own
    assert own["middle"].begins > 0.05 > -0.05 > own["small"].begins
    assert abs(own["large"].begins) < 0.5 * own["middle"].begins
    assert max(abs(one.stays) for one in own.values()) < 0.01
    early, late = (
        law.say(asked("middle", 8000, e)).value / law.say(asked("other", 8000, e)).value
        for e in (1, 60)
    )
    assert early > 1.05 and late < 1.01
    question = asked("middle", 8000, 1)
    assert law.say(question).value == pytest.approx(law.values([question])[0])


def staying(stays: dict[str, float], seed: int = 4) -> Law:
    """The law without a teacher of students that stay so far from what their size says."""
    found: tuple[list[Row], list[Row]] = ([], [])
    for taught in (False, True):
        for one in rows(80, taught=taught, seed=seed):
            teacher = one.teacher.model if one.teacher else None
            unique, epochs = one.data.train, one.seen // one.data.train
            own = stays[one.student.model]
            found[taught].append(made(one.student.model, unique, epochs, teacher, own))
    law = learn_both(*found, "loss", bootstrap=20)[0]
    assert law is not None
    return law


def test_a_student_that_stays_better_than_its_size_says_is_known() -> None:
    """The middle one is better than both others, which no law of the size says."""
    law = staying({"small": 0.08, "middle": -0.08, "large": 0.08})
    assert law.own["middle"].stays < -0.02 < 0.02 < law.own["large"].stays
    for epochs in (6, 60):
        said = law.say(asked("middle", 8000, epochs)).value
        truth = plain_loss(STUDENTS["middle"][1], 8000, 8000 * epochs) * np.exp(-0.08)
        assert said == pytest.approx(truth, rel=0.04)


def test_little_stays_of_students_that_are_as_their_size_says() -> None:
    law = staying({"small": 0.0, "middle": 0.0, "large": 0.0})
    assert max(abs(one.stays) for one in law.own.values()) < 0.01


def test_of_a_student_that_is_in_no_run_less_is_known() -> None:
    """It may lie as far from the law as the others do."""
    law = staying({"small": 0.08, "middle": -0.08, "large": 0.08})
    known, new = law.say(asked("middle", 8000, 20)), law.say(asked("another", 8000, 20))
    widths = [np.log(said.high / said.low) for said in (known, new)]
    assert widths[1] > 1.3 * widths[0]


def test_students_with_and_without_a_teacher_share_a_law() -> None:
    """What a teacher changes is seen on few runs, as the rest is known from the others."""
    taught = [one for one in rows(60, taught=True, seed=2) if one.data.train == 2000][:14]
    pick = _pick_both(rows(40, taught=False), taught, "error")
    assert pick is not None
    alone, beside = pick.laws("error", 20)
    assert alone.fitted is beside.fitted and alone.way != beside.way
    assert not alone.way.taught and beside.way.taught
    for teacher, loss in TEACHERS.items():
        said = beside.say(asked("large", 4000, 40, loss / 3))
        truth = taught_loss(STUDENTS["large"][1], 4000, 160_000, loss) / 3
        assert said.value == pytest.approx(truth, rel=0.1), teacher
        assert said.low < said.value < said.high


def test_each_way_alone_has_its_law_where_the_other_has_too_few_rows() -> None:
    plain_rows, taught = rows(30, taught=False), rows(FEWEST - 1, taught=True)
    alone, beside = learn_both(plain_rows, taught, "loss", bootstrap=0)
    assert alone is not None and beside is None
    alone, beside = learn_both(plain_rows[:3], rows(30, taught=True), "loss", bootstrap=0)
    assert alone is None and beside is not None


def test_what_is_likely_counts_as_less_than_a_free_coefficient() -> None:
    law = plain()
    free = law.fitted.freedom
    assert 2 < free <= len(law.fitted.values) + 2 * len(law.own)
    few = fit(
        TOGETHER[-1], law.fitted.runs[:12], law.fitted.loss(law.fitted.runs)[:12], bootstrap=0
    )
    assert few.freedom < 12 < len(few.values)


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
