"""From a recipe to the teacher's outputs: stored once, or asked at each step, and what each depends on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgedistill.data.stage import ASKED
from edgedistill.recipe import Recipe, compose
from edgedistill.rundir import Done
from edgedistill.teacher.course import Lesson
from edgedistill.teaching import Behind, behind, course_of, lessons_of, targets_key, view_count
from tests.build_parts import SMALL, make_images, tool

TEACHER = Done(
    "04-teacher", Path("t"), "f" * 64, {"classes": 3, "combine": "single", "members": [{}]}, 1.0
)
RESOLVED = {
    "distill.epochs": 6, "distill.views": 4, "distill.targets": "stored", "distill.top_k": None,
    "data.mix": "none",
}  # fmt: skip


def recipe(**settings: object) -> Recipe:
    """A resolved recipe; `distill_views=3` sets distill.views."""
    changed = {key.replace("_", ".", 1): value for key, value in settings.items()}
    return compose(None, {}, RESOLVED | changed).recipe


def test_stored_views_come_round_and_a_live_teacher_sees_another_in_every_epoch() -> None:
    stored, live = recipe(), recipe(distill_targets="live")
    assert view_count(stored) == 4 and view_count(live) == 6
    assert [course_of(stored, TEACHER).lesson(epoch).view for epoch in range(6)] == [
        0,
        1,
        2,
        3,
        0,
        1,
    ]
    assert [course_of(live, TEACHER).lesson(epoch).view for epoch in range(6)] == list(range(6))


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"distill_epochs": 9}, True),
        ({"distill_lr": 0.01}, True),
        ({"distill_epochs": 3}, False),
        ({"distill_views": 5}, False),
        ({"distill_top_k": 2}, False),
        ({"data_mix": "mixup"}, False),
        ({"data_min_crop": 0.5}, False),
        ({"data_erasing": 0.5}, False),
        ({"seed": 1}, False),
        ({"distill_targets": "live"}, False),
    ],
)
def test_what_is_stored_depends_on_the_views_that_are_asked_for_and_on_nothing_else(
    changed: dict[str, object], same: bool
) -> None:
    keys = [json.dumps(targets_key(found, TEACHER)) for found in (recipe(), recipe(**changed))]
    assert (keys[0] == keys[1]) == same


def pixels(folder: Path, own: int, made: int) -> Done:
    """A stage of pixels with synthetic images behind its own."""
    (folder / "test").mkdir(parents=True)
    rows = {"train": own + made, "val": 3, "test/pixels": 3}
    for name, count in rows.items():
        np.save(folder / f"{name}.npy", np.zeros((count, 8, 8, 3), np.uint8))
    for name, count in (("train-labels", own + made), ("val-labels", 3), ("test/labels", 3)):
        np.save(folder / f"{name}.npy", np.zeros(count, np.int64))
    if made:
        np.save(folder / ASKED, np.zeros(made, np.int64))
    return Done("05-synth", folder, "f" * 64, {}, 1.0)


@pytest.mark.parametrize(
    ("made", "share", "few"),
    [(2, 0.5, 4), (5, 0.3, 3), (10, 0.5, 2), (20, 0.5, 1), (500, 0.01, 1)],
)
def test_an_image_that_is_seen_less_often_has_fewer_stored_views(
    made: int, share: float, few: int, tmp_path: Path
) -> None:
    """Ten images with four views each, and as many steps with synthetic ones among them."""
    stage = pixels(tmp_path / "made", 10, made)
    assert behind(recipe(synth_share=share), stage) == Behind(10, made, few)
    live = recipe(synth_share=share, distill_targets="live")
    assert behind(live, stage) == Behind(10, made, 6), "a live teacher sees another in every epoch"
    assert behind(recipe(), pixels(tmp_path / "none", 10, 0)) is None


def test_views_of_synthetic_images_come_round_sooner_with_every_teacher() -> None:
    course = [Lesson(teacher, view) for teacher in (0, 1) for view in range(5)]
    assert Behind(9, 9, 2).lessons(course) == [Lesson(t, v) for t in (0, 1) for v in (0, 1)]
    assert lessons_of(recipe(), TEACHER, Behind(9, 9, 3)) == [Lesson(0, v) for v in range(3)]
    keys = [targets_key(recipe(), TEACHER, b) for b in (None, Behind(9, 9, 3), Behind(9, 9, 4))]
    assert keys[0] != keys[1] and keys[0] == keys[2]


def test_a_live_teacher_leaves_nothing_on_disk_and_teaches_as_a_stored_one(tmp_path: Path) -> None:
    """One epoch, so that both see the same view: what differs is float16 alone."""
    run, data, losses = tmp_path / "run", make_images(tmp_path / "data"), []
    stages = run / "stages"
    for kind in ("stored", "live"):
        ran = tool(
            "build", *SMALL, "--data", data, "--out", run, "--until", "distilled",
            "--set", f"distill.targets={kind}", "--set", "distill.epochs=1",
        )  # fmt: skip
        assert ran.code == 0, ran.err
        taught, stored = (
            json.loads((stages / name / "done.json").read_text("utf-8"))["facts"]
            for name in ("09-distilled", "06-targets")
        )
        losses.append(taught["curve"][0]["loss"])
        assert (stored["passes"] > 0) == (kind == "stored")
        assert bool(list((stages / "06-targets").glob("*.safetensors"))) == (kind == "stored")
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    assert "nothing to verify" in tool("teacher", "verify", run).text
