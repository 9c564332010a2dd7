"""What fills every `auto`: epochs, sizes, limits, and which weights can be loaded here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.derive import (
    CLIP,
    EARLY_STATES,
    FIRST_LOOK,
    GPU_FACTOR,
    MOST_EPOCHS,
    MOST_TEACHER_EPOCHS,
    MOST_VIEWS,
    PASSES,
    PASSES_SIDE,
    TeacherShape,
    effort_values,
    fine_tuning,
    known_student,
    limits_from,
    method_values,
    plan_key,
    resolve,
    student_values,
    teacher_size,
)
from edgedistill.errors import UsageError
from edgedistill.recipe import Layered, Recipe, autos, compose, validate
from edgedistill.result import Candidate, Plan
from edgedistill.synthvalues import synth_values
from edgedistill.target.device import device_to_dict, load_device

JETSON = load_device("jetson")


def _plan(pretrained: bool = False, size: int = 96) -> Plan:
    chosen = Candidate(
        model="lcnet_050", input_size=size, precision="float16", pretrained=pretrained, params=1,
        macs=1, size_bytes=1, fits="safe", reason="it fits best",
    )  # fmt: skip
    return Plan(considered=1, chosen=chosen, input_size_reason="the images are small")


def _effort(recipe: Recipe, images: int = 6000, gpu: bool = False, **plan: Any) -> dict[str, Any]:
    shape = TeacherShape(260, False)
    return effort_values(recipe, _plan(**plan), JETSON, images, 28, 10, shape, gpu)


# -- the teacher's size --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "student", "side", "size"),
    [
        (TeacherShape(224, True), 96, 28, 224),
        (TeacherShape(224, True), 256, 600, 224),
        (TeacherShape(260, False), 64, 28, 64),
        (TeacherShape(260, False), 96, 100, 128),
        (TeacherShape(260, False), 224, 600, 260),
        (TeacherShape(260, False), 128, 260, 260),
        (TeacherShape(224, False), 256, 600, 256),
        (TeacherShape(32, False), 64, 28, 64),
        (TeacherShape(518, False), 64, 1, 64),
    ],
)
def test_the_teacher_sees_what_the_images_hold_and_no_less_than_the_student(
    shape: TeacherShape, student: int, side: int, size: int
) -> None:
    found, reason = teacher_size(shape, student, side)
    assert found == size
    assert reason


@given(st.integers(32, 518), st.integers(32, 512), st.integers(1, 5000))
@settings(max_examples=100)
def test_a_teacher_that_takes_any_size_is_never_below_the_student_nor_above_both(
    native: int, student: int, side: int
) -> None:
    size, _ = teacher_size(TeacherShape(native, False), student, side)
    assert student <= size <= max(native, student)


# -- epochs and views ----------------------------------------------------------------------------


def _passes(passes: int, factor: int = 1) -> int:
    return round(passes * PASSES_SIDE / _plan().chosen.input_size * factor)


MINE = validate({"data": {"source": "./mine"}}, "x")


def test_epochs_follow_from_image_passes_which_shrink_with_the_side_of_the_input() -> None:
    assert _plan().chosen.input_size > PASSES_SIDE
    for kind, pretrained in (("random", False), ("pretrained", True)):
        values, passes = _effort(MINE, pretrained=pretrained), PASSES[kind]
        assert values["distill.epochs"][0] == round(_passes(passes.student) / 6000)
        words = f"{_passes(passes.student):,} image passes without a GPU over 6,000"
        assert words in values["distill.epochs"][1]
        assert values["teacher.epochs"][0] == max(1, round(_passes(passes.teacher) / 6000))
    values, gpu = _effort(MINE), _effort(MINE, gpu=True)
    most = round(_passes(PASSES["random"].student, GPU_FACTOR) / 6000)
    assert gpu["distill.epochs"][0] == min(MOST_EPOCHS, most)
    assert gpu["teacher.epochs"][0] > values["teacher.epochs"][0]


@pytest.mark.parametrize(
    ("images", "gpu", "epochs"),
    [(1, False, MOST_EPOCHS), (0, True, MOST_EPOCHS), (10**8, False, 1)],
)
def test_epochs_stay_in_bounds_for_few_and_for_many_images(
    images: int, gpu: bool, epochs: int
) -> None:
    assert _effort(MINE, images, gpu)["distill.epochs"][0] == epochs


def test_a_first_look_at_the_built_in_images_is_short() -> None:
    for kind, pretrained in (("random", False), ("pretrained", True)):
        look = _effort(Recipe(), 2000, pretrained=pretrained)
        mine = _effort(MINE, 2000, pretrained=pretrained)
        student = _passes(FIRST_LOOK[kind].student)
        assert look["distill.epochs"][0] == max(1, round(student / 2000))
        assert look["distill.epochs"][0] < mine["distill.epochs"][0]
        assert look["teacher.epochs"][0] < mine["teacher.epochs"][0]


@pytest.mark.parametrize(
    ("epochs", "views", "seen"),
    [(1, 1, "once"), (2, 1, "at most 2 times"), (3, 2, "at most 2 times"), (6, 3, "at most 2 times"),
     (12, 3, "at most 4 times"), (13, 4, "at most 4 times"), (64, 16, "at most 4 times"),
     (100, MOST_VIEWS, "at most 7 times")],
)  # fmt: skip
def test_views_grow_with_the_epochs_up_to_sixteen_and_how_often_each_is_seen_is_said(
    epochs: int, views: int, seen: str
) -> None:
    found = _effort(validate({"distill": {"epochs": epochs}}, "x"))["distill.views"]
    times = f"{epochs} epoch{'s' * (epochs > 1)}: each stored view is seen {seen}"
    assert found == (views, times)


def test_unlabelled_images_are_part_of_the_students_epochs_and_of_no_teachers() -> None:
    shape = TeacherShape(260, False)
    args = (Recipe(), _plan(), JETSON, 3000, 28, 10, shape, False)
    alone, more = effort_values(*args), effort_values(*args, 3000)
    assert more["distill.epochs"] == _effort(Recipe(), 6000)["distill.epochs"]
    assert more["distill.epochs"][0] < alone["distill.epochs"][0]
    assert more["teacher.epochs"] == alone["teacher.epochs"]


@pytest.mark.parametrize(
    ("images", "gpu", "batch"),
    [(6000, False, 64), (640, False, 64), (639, False, 32), (90, False, 16), (1, False, 16),
     (6000, True, 256), (1300, True, 128)],
)  # fmt: skip
def test_a_batch_is_what_the_machine_does_well_and_smaller_for_few_images(
    images: int, gpu: bool, batch: int
) -> None:
    found, reason = _effort(Recipe(), images, gpu)["distill.batch_size"]
    assert found == batch
    few = batch not in (64, 256)
    assert (f"{images:,} training images" in reason) == few


def test_the_rate_is_that_of_the_start_and_grows_with_the_root_of_the_batch() -> None:
    def rate(batch: int | str, pretrained: bool) -> float:
        recipe = validate({"distill": {"batch_size": batch}}, "x")
        found: float = _effort(recipe, pretrained=pretrained)["distill.lr"][0]
        return found

    assert rate("auto", False) == rate(64, False) == 8e-3
    assert rate(16, False) == 4e-3 and rate(256, False) == 1.6e-2
    assert rate("auto", True) == 1e-3 and rate(32, True) == 7.1e-4


def test_gradients_are_clipped_where_statistics_are_frozen() -> None:
    assert _effort(Recipe(), pretrained=True)["distill.clip"][0] == CLIP
    assert _effort(Recipe())["distill.clip"][0] is None
    pruned = validate({"student": {"prune_from": "mobilenetv3_small_100"}}, "x")
    assert _effort(pruned)["distill.clip"][0] is None
    for frozen, pretrained in ((True, False), (False, True)):
        said = validate({"distill": {"frozen_norm": frozen}}, "x")
        found = _effort(said, pretrained=pretrained)["distill.clip"][0]
        assert found == (CLIP if frozen else None)


@pytest.mark.parametrize(("batch", "lr"), [(64, 1e-3), (16, 5e-4), (256, 2e-3)])
def test_fine_tuning_beside_a_random_student_has_the_rate_of_its_batch(
    batch: int, lr: float
) -> None:
    found = fine_tuning(batch, 0.5)
    assert found == {"lr": lr, "clip": CLIP, "frozen_norm": True, "frozen_share": 0.5}


def test_a_reason_says_what_was_done_where_a_bound_acts() -> None:
    few, many = _effort(MINE, 100), _effort(MINE, 10**7)
    assert few["distill.epochs"] == (
        MOST_EPOCHS,
        f"100 training images: no more than {MOST_EPOCHS}",
    )
    assert few["teacher.epochs"][1] == f"100 training images: no more than {MOST_TEACHER_EPOCHS}"
    assert many["distill.epochs"][0] == 1 and "once is more than" in many["distill.epochs"][1]


def test_a_curriculum_of_early_states_has_epochs_to_keep_them_of() -> None:
    early = validate({"distill": {"curriculum": "teacher_checkpoints"}}, "x")
    values = _effort(early, 50_000)
    assert values["teacher.checkpoints"][0] == EARLY_STATES
    assert values["teacher.epochs"][0] == EARLY_STATES + 1
    own = validate(
        {"distill": {"curriculum": "teacher_checkpoints"}, "teacher": {"checkpoints": 6}}, "x"
    )
    assert _effort(own, 50_000)["teacher.epochs"][0] == 7


def test_early_states_are_of_one_teacher() -> None:
    tree = {"distill": {"curriculum": "teacher_checkpoints"}, "teacher": {"others": ["resnet18"]}}
    with pytest.raises(UsageError, match="early states are kept of one teacher alone"):
        _effort(validate(tree, "x"))
    tree["teacher"]["combine"] = "select"  # type: ignore[assignment]
    assert _effort(validate(tree, "x"))["teacher.checkpoints"][0] == EARLY_STATES


def test_a_pruned_student_and_its_teacher_train_as_a_pretrained_one_does() -> None:
    pruned = validate({"student": {"prune_from": "x"}, "data": {"source": "./mine"}}, "x")
    values, pretrained = _effort(pruned), _effort(MINE, pretrained=True)
    for key in ("distill.epochs", "teacher.epochs", "distill.lr"):
        assert values[key][0] == pretrained[key][0]


def test_weights_that_are_all_zero_are_refused_before_anything_runs() -> None:
    none = {"distill": {"weights": {"ce": 0, "kd": 0, "align_uniform": 0}}}
    with pytest.raises(UsageError, match="nothing to learn from"):
        method_values(validate(none, "x"))
    none["distill"]["weights"]["ce"] = 1
    assert method_values(validate(none, "x"))["distill.temperature"][0] == 4.0


def test_what_was_said_is_not_derived() -> None:
    values = {**student_values(Recipe(), _plan()), **_effort(Recipe())}
    said = resolve(Layered(Recipe()), values).recipe
    assert _effort(said, 17, True, pretrained=True) == {}
    assert student_values(said, _plan(True, 224)) == {}


def test_nothing_but_how_the_teacher_adapts_and_int8_is_made_is_auto_after_resolving() -> None:
    recipe = Recipe()
    values = {
        **student_values(recipe, _plan()), **_effort(recipe), **method_values(recipe, 9_000),
        **synth_values(recipe, 9_000, 10),
    }  # fmt: skip
    resolved = resolve(Layered(recipe, {"seed": "said"}), values)
    assert autos(resolved.recipe) == []
    assert (resolved.recipe.teacher.adapt, resolved.recipe.quantize.method) == ("auto", "auto")
    assert all(reason for _, reason in values.values())
    assert resolved.reasons["seed"] == "said"
    assert resolved.reasons["student.model"] == "planned: it fits best"
    assert resolved.recipe.export.opset == JETSON.opset
    assert resolved.recipe.student.weights == "random"
    assert resolve(Layered(recipe), student_values(recipe, _plan(True))).recipe.student.weights == (
        "pretrained"
    )


# -- limits --------------------------------------------------------------------------------------


def test_limits_that_nobody_gave_come_from_the_profile() -> None:
    values = limits_from(Layered(Recipe()), JETSON)
    for key, limit in JETSON.limits.model_dump().items():
        value, reason = values[f"budget.{key}"]
        assert value == limit
        assert reason == ("no limit" if limit is None else f"default of the profile {JETSON.name}")


def test_a_limit_that_was_given_stays_and_null_is_no_limit(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("budget: {size_bytes: null}\n")
    layered = compose(file, {"budget.latency_s": 0.001}, {"budget.max_top1_drop": None})
    values = limits_from(layered, JETSON)
    for key in ("latency_s", "size_bytes", "max_top1_drop"):
        assert f"budget.{key}" not in values
    recipe = resolve(layered, values).recipe
    assert recipe.budget.latency_s == 0.001
    assert recipe.budget.size_bytes is None


# -- the plan's fingerprint ----------------------------------------------------------------------


def _key(recipe: Recipe, **data: Any) -> dict[str, Any]:
    facts = {"train": 6000, "image_side": 28, "classes": ["a", "b"], **data}
    return plan_key(recipe, device_to_dict(JETSON), facts)


@pytest.mark.parametrize(
    ("tree", "same"),
    [
        ({"name": "other"}, True),
        ({"bench": {"min_runs": 50}}, True),
        ({"distill": {"temperature": 2.0}}, True),
        ({"budget": {"latency_s": 0.001}}, False),
        ({"student": {"model": "lcnet_050"}}, False),
        ({"teacher": {"model": "resnet18"}}, False),
        ({"teacher": {"others": ["resnet18"]}}, False),
        ({"teacher": {"checkpoints": 2}}, False),
        ({"teacher": {"batch_size": 8}}, True),
        ({"distill": {"epochs": 3}}, False),
        ({"export": {"opset": 13}}, False),
    ],
)
def test_planning_runs_again_only_for_what_it_depends_on(tree: dict[str, Any], same: bool) -> None:
    assert (_key(validate(tree, "x")) == _key(Recipe())) is same


def test_planning_runs_again_for_other_data() -> None:
    for change in ({"train": 1}, {"image_side": 30}, {"classes": ["a"]}):
        assert _key(Recipe(), **change) != _key(Recipe())


def test_an_unknown_student_is_named_with_the_nearest() -> None:
    known_student("auto")
    known_student("lcnet_050")
    with pytest.raises(UsageError, match='did you mean "lcnet_050"'):
        known_student("lcnet_05")
