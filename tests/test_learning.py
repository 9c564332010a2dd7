"""Which of several teachers is taken and what that cost; which arm ships."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch

from edgedistill.arms import DISTILLED, FINETUNE, LONGER, PLAIN, Arm
from edgedistill.learning import Build
from edgedistill.nets import state_bytes
from edgedistill.result import load
from edgedistill.rundir import Done
from edgedistill.schema import TeacherSection
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


def test_the_teacher_that_was_taken_is_the_one_that_is_verified(run: Path) -> None:
    ran = tool("teacher", "verify", run, "--sample", "4")
    assert ran.code == 0, ran.text


def test_what_belongs_to_the_first_teachers_file_is_not_said_of_the_others() -> None:
    section = TeacherSection(
        model="a",
        others=["b", "c"],
        combine="select",
        weights="a.pth",
        revision="v1",
        licence="mit",
    )
    assert [one.model for one in section.each()] == ["a", "b", "c"]
    assert [one.weights for one in section.each()] == ["a.pth", None, None]
    assert [(one.revision, one.licence) for one in section.each()] == [
        ("v1", "mit"),
        *[(None, None)] * 2,
    ]
    assert all(one.others == [] and one.combine == "select" for one in section.each())


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
    longer = ("--set", "proof.equal_seconds=true", "--until", "10-export")
    ran = tool("build", *SMALL, *longer, "--data", data, "--out", tmp_path / "run")
    assert ran.code == 0, ran.err
    stages = ("08-plain", "09-distilled", "08-plain@plain_longer")
    facts = [done(tmp_path / "run", stage)["facts"] for stage in stages]
    epochs = [one["epochs"] for one in facts]  # type: ignore[index]
    assert epochs[0] == epochs[1] < epochs[2]
    scores = {stage: one["val_top1"] for stage, one in zip(stages, facts, strict=True)}  # type: ignore[index]
    ships = done(tmp_path / "run", "10-export")["inputs"]
    (arm,) = {*stages} & {*ships}  # type: ignore[misc]
    assert scores[arm] == max(scores.values())


# -- what one word of a recipe sets going, in a real build ---------------------------------------


def test_fine_tuning_of_the_pretrained_student_is_the_same_from_the_resolved_recipe(
    tmp_path: Path,
) -> None:
    data = make_images(tmp_path / "data", per_class=24)
    more = (
        "--student", "tf_efficientnet_lite0", "--set", "proof.seeds=2",
        "--set", 'proof.arms=["linear_probe", "finetune"]',
    )  # fmt: skip
    ran = tool("build", *SMALL, *more, "--data", data, "--out", tmp_path / "run")
    assert ran.code == 0, ran.err
    result = load(tmp_path / "run")
    names = [arm.name for arm in result.arms]
    assert names == [PLAIN, DISTILLED, "linear_probe", FINETUNE]
    assert all(len(arm.seeds) == 2 for arm in result.arms)
    taught = result.arms[1]
    assert {gain.against for gain in taught.gains} == {PLAIN, "linear_probe", FINETUNE}
    assert taught.seed_gain is not None and taught.seed_gain.seeds == 2
    again = tool(
        "build",
        tmp_path / "run" / "recipe.yaml",
        "--out",
        tmp_path / "again",
        "--until",
        "distilled",
    )
    assert again.code == 0, again.err
    stages = ("08-plain", "08-plain@finetune", "08-plain@finetune-seed1", "09-distilled")
    for stage in stages:
        first, second = (done(tmp_path / run, stage)["facts"] for run in ("run", "again"))
        assert first["weights_sha256"] == second["weights_sha256"], stage  # type: ignore[index]


def test_a_student_is_cut_out_of_a_wider_one_in_a_course_of_early_teachers(tmp_path: Path) -> None:
    data, weights = make_images(tmp_path / "data", per_class=24), tmp_path / "wide.safetensors"
    torch.manual_seed(0)
    wide = timm.create_model("mobilenetv3_small_100", num_classes=3)
    weights.write_bytes(state_bytes(wide))
    words = (
        "--student", "mobilenetv3_small_075", "--set", "student.prune_from=mobilenetv3_small_100",
        "--set", f"student.prune_weights={weights}", "--set", "distill.curriculum=teacher_checkpoints",
        "--set", "distill.hard_samples=true", "--set", "distill.epochs=5", "--set", "teacher.epochs=3",
        "--set", "teacher.checkpoints=2", "--set", "teacher.adapt=finetune",
    )  # fmt: skip
    build = ("build", *SMALL, *words, "--data", data, "--out", tmp_path / "run")
    ran = tool(*build)
    assert ran.code == 0, ran.err
    result = load(tmp_path / "run")
    narrow = timm.create_model("mobilenetv3_small_075", num_classes=3)
    assert result.student.params == sum(p.numel() for p in narrow.parameters())
    assert result.student.weights == "pretrained"
    assert result.student.weights_source.startswith("mobilenetv3_small_100, pruned while it learns")
    taught = next(arm for arm in result.arms if arm.name == DISTILLED)
    assert any("hard images" in note for note in taught.notes)
    teacher = done(tmp_path / "run", "04-teacher")["facts"]
    assert [one["epoch"] for one in teacher["members"]] == [1, 2, None]  # type: ignore[index]
    weights.write_bytes(state_bytes(timm.create_model("mobilenetv3_small_100", num_classes=3)))
    assert tool(*build, "--until", "distilled").code == 0
    assert "07-start" in worked(tmp_path / "run"), "another file under the same name"
