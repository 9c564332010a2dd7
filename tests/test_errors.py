"""The tree of errors: what its docstring draws is what it is, and the texts name the nearest."""

from __future__ import annotations

import inspect
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill import errors
from edgedistill.errors import (
    MOST_SHOWN,
    EdgedistillError,
    MissingExtraError,
    RecipeError,
    nearest,
    unknown,
)

LINE = re.compile(r"^    (?P<lead>[| `-]*)(?P<name>\w+Error) +exit (?P<code>\d)   \S")


def _drawn() -> dict[str, tuple[str | None, int]]:
    """Name -> (parent, exit code), as the docstring draws them."""
    found: dict[str, tuple[str | None, int]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = LINE.match(line)
        if match:
            depth = len(match["lead"]) // 4
            path = [*path[:depth], match["name"]]
            found[match["name"]] = (path[-2] if depth else None, int(match["code"]))
    return found


def _real() -> dict[str, type[EdgedistillError]]:
    classes = inspect.getmembers(errors, inspect.isclass)
    return {name: c for name, c in classes if issubclass(c, EdgedistillError)}


def test_the_docstring_draws_every_class_with_its_parent_and_exit_code() -> None:
    real = {
        name: (None if c is EdgedistillError else c.__bases__[0].__name__, c.exit_code)
        for name, c in _real().items()
    }
    assert _drawn() == real
    assert len(real) >= 10


def test_every_exit_code_of_an_error_is_one_of_the_house() -> None:
    assert {c.exit_code for c in _real().values()} == {1, 2, 3}


def test_every_error_class_has_a_docstring() -> None:
    assert all(c.__doc__ for c in _real().values())


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temprature", '; did you mean "temperature"?'),
        ("temperature", '; did you mean "temperature"?'),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_is_offered_only_when_one_is_near(name: str, hint: str) -> None:
    assert nearest(name, ["temperature", "epochs"]) == hint


def test_a_name_that_was_begun_is_finished() -> None:
    assert nearest("lcnet_05", ["lcnet_075", "lcnet_050"]) == '; did you mean "lcnet_050"?'


def test_an_unknown_name_says_what_was_got_the_nearest_and_all_that_is_allowed() -> None:
    text = unknown("device", "jetsn", ["pi5", "jetson"])
    assert text == 'unknown device "jetsn"; did you mean "jetson"? Known: jetson, pi5.'
    assert unknown("device", "xyz", ["jetson"]) == 'unknown device "xyz". Known: jetson.'


@given(st.text(max_size=30), st.lists(st.text(max_size=10), max_size=5))
@settings(max_examples=50)
def test_any_name_against_any_vocabulary_gives_a_text(name: str, known: list[str]) -> None:
    hint = nearest(name, known)
    assert hint == "" or any(f'"{k}"' in hint for k in known)


def test_a_recipe_error_counts_its_problems_and_lists_each() -> None:
    assert str(RecipeError("a.yaml", ["x  bad"])) == "a.yaml has 1 problem\n  x  bad"
    many = RecipeError("a.yaml", [f"k{i}  bad" for i in range(MOST_SHOWN + 7)])
    lines = str(many).splitlines()
    assert lines[0] == f"a.yaml has {MOST_SHOWN + 7} problems"
    assert len(lines) == MOST_SHOWN + 2
    assert lines[-1] == "  and 7 more"
    assert len(many.problems) == MOST_SHOWN + 7


def test_a_missing_extra_names_the_command_that_installs_it() -> None:
    assert 'pip install "edgedistill[train]"' in str(MissingExtraError("torch", "train"))
