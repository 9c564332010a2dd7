"""Which row of a teacher's head speaks of which class of the data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.errors import TeacherError
from edgedistill.teacher.labels import cleaned, match, rows_or_error

IMAGENET = (
    "tench, Tinca tinca",
    "great white shark, white shark",
    "crane",
    "crane, bird",
    "Cairn",
    "Cairn terrier",
)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("tench", 0),
        ("Tinca_tinca", 0),
        ("TENCH, tinca-tinca", 0),
        ("white  shark", 1),
        ("great_white_shark", 1),
        ("cairn_terrier", 5),
        ("cairn", 4),
    ],
)
def test_a_class_is_found_by_its_name_or_a_synonym_in_any_spelling(name: str, row: int) -> None:
    found = match(IMAGENET, [name])
    assert found.rows == (row,) and found.whole


def test_a_whole_label_counts_before_a_synonym_of_another() -> None:
    assert match(IMAGENET, ["crane"]).rows == (2,)
    assert match(("a, b", "c, b"), ["b"]).missing == ('"b" (which 2 of its classes are called)',)
    assert match(("b, a", "b"), ["b"]).rows == (1,)


def test_a_row_serves_one_class_only() -> None:
    found = match(IMAGENET, ["tench", "tinca tinca"])
    assert found.rows == (0, None) and "same class as another" in found.missing[0]


def test_what_is_missing_is_named_with_the_nearest_the_teacher_has() -> None:
    found = match(IMAGENET, ["tenc", "crane", "zebra"])
    with pytest.raises(TeacherError) as caught:
        rows_or_error("net", "teacher.adapt=none", found, IMAGENET)
    text = str(caught.value)
    assert '"tenc" (it has "tench")' in text and '"zebra"' in text and "2 of the 3 classes" in text
    assert "\n" not in text and '"tench, Tinca tinca"' in text
    assert rows_or_error("net", "", match(IMAGENET, ["crane", "tench"]), IMAGENET) == [2, 0]


def test_many_missing_classes_make_one_short_paragraph() -> None:
    with pytest.raises(TeacherError, match=r"and 992 more\.") as caught:
        rows_or_error("net", "x", match(["a"], [f"class number {i}" for i in range(1000)]), ["a"])
    assert len(str(caught.value)) < 900


@given(st.lists(st.text(max_size=12), max_size=6), st.lists(st.text(max_size=12), max_size=6))
def test_any_names_give_rows_that_are_there_and_no_row_twice(
    labels: list[str], names: list[str]
) -> None:
    found = match(labels, names)
    rows = [row for row in found.rows if row is not None]
    assert len(found.rows) == len(names) and len(set(rows)) == len(rows)
    assert len(rows) + len(found.missing) == len(names)
    for name, row in zip(names, found.rows, strict=True):
        if row is not None:
            words = {cleaned(word) for word in [labels[row], *labels[row].split(",")]}
            assert cleaned(name) in words


def test_every_imagenet_class_is_found_under_its_own_description() -> None:
    from timm.data import ImageNetInfo

    labels = ImageNetInfo("imagenet-1k").label_descriptions()
    found = match(labels, labels)
    told_twice = [label for label in labels if labels.count(label) > 1]
    assert len(found.missing) == len(told_twice) < 10
    assert match(labels, ["Egyptian_cat", "tabby"]).rows == (285, 281)
