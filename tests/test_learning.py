"""Which of several teachers is taken and what that cost; which arm ships."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgedistill.arms import DISTILLED, FINETUNE, LONGER, PLAIN, Arm
from edgedistill.learning import Build
from edgedistill.result import load
from edgedistill.rundir import Done
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


def build_of(**top1: float) -> Build:
    """A build whose arms are trained, with validation top-1 by name; a second seed is always better."""
    build = object.__new__(Build)
    build.__dict__["trained"] = {
        Arm(name, seed, seed == 0): Done(name, Path(name), "", {"val_top1": value + seed}, 0.0)
        for seed in (0, 1)
        for name, value in top1.items()
    }
    return build


@pytest.mark.parametrize(
    ("top1", "ships"),
    [
        ({PLAIN: 0.8, DISTILLED: 0.7}, PLAIN),
        ({PLAIN: 0.7, DISTILLED: 0.7}, DISTILLED),
        ({PLAIN: 0.7, DISTILLED: 0.7, LONGER: 0.7}, DISTILLED),
        ({PLAIN: 0.7, DISTILLED: 0.6, LONGER: 0.7}, PLAIN),
        ({PLAIN: 0.7, DISTILLED: 0.8, LONGER: 0.9}, LONGER),
        ({PLAIN: 0.7, DISTILLED: 0.8, FINETUNE: 0.9}, DISTILLED),
    ],
)
def test_the_best_arm_on_validation_ships_if_it_begins_where_the_recipe_says(
    top1: dict[str, float], ships: str
) -> None:
    assert build_of(**top1).chosen_arm == ships


def test_labels_for_as_long_as_distillation_took_may_ship(tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", per_class=24)
    longer = ("--set", "proof.equal_seconds=true", "--until", "09-export")
    ran = tool("build", *SMALL, *longer, "--data", data, "--out", tmp_path / "run")
    assert ran.code == 0, ran.err
    stages = ("07-plain", "08-distilled", "07-plain@plain_longer")
    facts = [done(tmp_path / "run", stage)["facts"] for stage in stages]
    epochs = [one["epochs"] for one in facts]  # type: ignore[index]
    assert epochs[0] == epochs[1] < epochs[2]
    scores = {stage: one["val_top1"] for stage, one in zip(stages, facts, strict=True)}  # type: ignore[index]
    ships = done(tmp_path / "run", "09-export")["inputs"]
    (arm,) = {*stages} & {*ships}  # type: ignore[misc]
    assert scores[arm] == max(scores.values())
