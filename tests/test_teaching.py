"""From a recipe to the teacher's outputs: stored once, or asked at each step, and what each depends on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgedistill.recipe import Recipe, compose
from edgedistill.rundir import Done
from edgedistill.teaching import course_of, targets_key, view_count
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
