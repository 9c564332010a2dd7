"""Of several teachers, the one whose students a short training says are best; and what that choice cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgedistill.result import load
from tests.build_parts import SMALL, make_images, tool, worked

OTHER = (
    "--set",
    'teacher.others=["bundled:efficientnet_lite2"]',
    "--set",
    "teacher.combine=select",
)


def done(run: Path, stage: str) -> dict[str, object]:
    """What a finished stage left behind."""
    found: dict[str, object] = json.loads((run / "stages" / stage / "done.json").read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("select")
    data = make_images(folder / "data", per_class=24)
    ran = tool("build", *SMALL, *OTHER, "--data", data, "--out", folder / "run")
    assert ran.code == 0, ran.err
    assert "of 2 teachers, by the validation top-1 of students" in ran.text
    again = tool("build", *SMALL, *OTHER, "--data", data, "--out", folder / "run")
    assert again.code == 0 and worked(folder / "run") == []
    return folder / "run"


def test_the_teacher_whose_student_is_best_after_a_short_training_is_taken(run: Path) -> None:
    facts = done(run, "04-teacher@select")["facts"]
    assert isinstance(facts, dict)
    tried = facts["candidates"]
    assert [one["model"] for one in tried] == [
        "bundled:efficientnet_lite0", "bundled:efficientnet_lite2",
    ]  # fmt: skip
    scores = [one["student_val_top1"] for one in tried]
    assert facts["chosen"] == scores.index(max(scores))
    assert load(run).teacher.model == tried[facts["chosen"]]["model"]
    assert not (run / "stages" / "04-teacher").exists(), "a teacher beside the candidates"


def test_every_candidate_and_the_short_trainings_count_as_the_cost_of_the_teacher(
    run: Path,
) -> None:
    parts = ("04-teacher@candidate1", "04-teacher@candidate2", "04-teacher@select")
    seconds = sum(float(str(done(run, part)["seconds"])) for part in parts)
    arm = next(arm for arm in load(run).arms if arm.name == "distilled")
    assert arm.seconds_parts["teacher preparation"] == pytest.approx(seconds)
    facts = [done(run, part)["facts"] for part in parts]
    alone = sum(one["preparation_flops"] for one in facts[:2])  # type: ignore[index]
    assert arm.flops_parts is not None and arm.flops_parts["teacher preparation"] > alone
