"""The shipped recipes: each holds, is short, says what it is, and names what exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedistill.recipe import compose
from edgedistill.target.device import load_device
from edgedistill.target.students import find_student

RECIPES = Path(__file__).parent.parent / "recipes"
FILES = sorted(RECIPES.rglob("*.y*ml"))
MOST_LINES = 40


def test_there_are_recipes_and_nothing_else() -> None:
    assert FILES
    assert [p for p in RECIPES.rglob("*") if p.is_file() and p not in FILES] == []


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.relative_to(RECIPES).as_posix())
def test_a_recipe_holds_and_names_what_exists(file: Path) -> None:
    layered = compose(file, {}, {})
    assert layered.reasons, "an empty recipe says nothing"
    load_device(layered.recipe.device)
    if layered.recipe.student.model != "auto":
        find_student(layered.recipe.student.model)


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.relative_to(RECIPES).as_posix())
def test_a_recipe_is_short_and_begins_with_what_it_is_and_its_command(file: Path) -> None:
    lines = file.read_text("utf-8").splitlines()
    assert len(lines) <= MOST_LINES
    header = [line for line in lines if line.startswith("#")]
    assert lines[0].startswith("# ")
    assert len(lines[0]) > 20
    assert any("edgedistill build" in line for line in header)
