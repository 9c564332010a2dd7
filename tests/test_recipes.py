"""The shipped recipes and studies: each holds, is short, says what it is, and names what exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedistill.recipe import Layered, compose, read_yaml
from edgedistill.studyfile import load_study
from edgedistill.target.device import load_device
from edgedistill.target.students import find_student
from edgedistill.teacher.bundled import BUNDLED

RECIPES = Path(__file__).parent.parent / "recipes"
CLAIMS = sorted((RECIPES / "claims").glob("*.yaml"))
"""What studies claim, each in a file that its study names."""
FILES = sorted(set(RECIPES.rglob("*.y*ml")) - set(CLAIMS))
STUDIES = [file for file in FILES if {"arms", "factors"} & set(read_yaml(file))]
MOST_LINES = 40


def _named(file: Path) -> str:
    return file.relative_to(RECIPES).as_posix()


def _names_what_exists(layered: Layered) -> None:
    load_device(layered.recipe.device)
    if layered.recipe.student.model != "auto":
        find_student(layered.recipe.student.model)
    teacher = layered.recipe.teacher
    for model in (teacher.model, *teacher.others):
        kind, _, name = model.partition(":")
        assert kind != "bundled" or name in BUNDLED


def test_there_are_recipes_and_studies_and_nothing_else() -> None:
    assert len(STUDIES) >= 2
    assert len(FILES) > len(STUDIES)
    assert [p for p in RECIPES.rglob("*") if p.is_file() and p not in [*FILES, *CLAIMS]] == []


@pytest.mark.parametrize("file", CLAIMS, ids=_named)
def test_claims_are_short_name_their_source_and_belong_to_a_study(file: Path) -> None:
    lines = file.read_text("utf-8").splitlines()
    assert len(lines) <= MOST_LINES and lines[0].startswith("# ")
    study = load_study(RECIPES / f"study-{file.name}")
    assert len(study.claims) == len(read_yaml(file)["claims"]) > 0
    assert all(claim.source for claim in study.claims)


@pytest.mark.parametrize("file", [f for f in FILES if f not in STUDIES], ids=_named)
def test_a_recipe_holds_and_names_what_exists(file: Path) -> None:
    layered = compose(file, {}, {})
    assert layered.reasons, "an empty recipe says nothing"
    _names_what_exists(layered)


@pytest.mark.parametrize("file", STUDIES, ids=_named)
def test_a_study_holds_and_every_arm_names_what_exists_and_differs(file: Path) -> None:
    study = load_study(file)
    assert len(study.arms) >= 2
    for arm in study.arms:
        _names_what_exists(arm.layered)
    recipes = {(arm.kind, arm.layered.recipe.model_dump_json()) for arm in study.arms}
    assert len(recipes) == len(study.arms), "two arms are the same"
    assert file.name.startswith("study-")


@pytest.mark.parametrize("file", FILES, ids=_named)
def test_a_recipe_is_short_and_begins_with_what_it_is_and_its_command(file: Path) -> None:
    lines = file.read_text("utf-8").splitlines()
    assert len(lines) <= MOST_LINES
    header = [line for line in lines if line.startswith("#")]
    assert lines[0].startswith("# ")
    assert len(lines[0]) > 20
    command = f"edgedistill study recipes/{file.name}" if file in STUDIES else "edgedistill build"
    assert any(command in line for line in header)
