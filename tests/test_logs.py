"""Event files are read back by TensorBoard's own reader: every point once, whatever was killed or repeated."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from build_parts import SMALL, make_images, tool
from engine_parts import Killed, Killing, make, work
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from edgedistill.distill.objectives import Plain
from edgedistill.errors import MissingExtraError
from edgedistill.logs import EventFile, Logs, require_log
from edgedistill.progress import Face, silent
from edgedistill.result import CurvePoint


def points(epochs: int, loss: float = 2.0) -> list[CurvePoint]:
    return [
        CurvePoint(
            epoch=e, loss=loss / e, val_top1=1 - 0.5 / e, parts={"kd": loss / e / 2},
            seconds=40.0 * e, lr=0.001 / e,
        )
        for e in range(1, epochs + 1)
    ]  # fmt: skip


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def steps(folder: Path, tag: str = "loss/total") -> list[int]:
    return [event.step for event in read(folder).Scalars(tag)]


def values(folder: Path, tag: str) -> list[float]:
    return [event.value for event in read(folder).Scalars(tag)]


def test_every_figure_of_a_curve_is_read_back(tmp_path: Path) -> None:
    curve = points(3)
    EventFile(tmp_path / "a")(curve)
    for tag, expected in {
        "loss/total": [p.loss for p in curve],
        "loss/kd": [p.parts["kd"] for p in curve],
        "learning_rate": [p.lr for p in curve],
        "validation/top1": [p.val_top1 for p in curve],
        "by_seconds/loss": [p.loss for p in curve],
        "by_seconds/validation_top1": [p.val_top1 for p in curve],
    }.items():
        assert values(tmp_path / "a", tag) == pytest.approx(expected, rel=1e-6), tag
    assert steps(tmp_path / "a") == [1, 2, 3]
    assert steps(tmp_path / "a", "by_seconds/validation_top1") == [40, 80, 120]


def test_relative_time_is_seconds_of_training(tmp_path: Path) -> None:
    EventFile(tmp_path)(points(4))
    times = [event.wall_time for event in read(tmp_path).Scalars("validation/top1")]
    assert [t - times[0] for t in times] == pytest.approx([0, 40, 80, 120], abs=1e-3)


def test_what_is_not_known_has_no_point(tmp_path: Path) -> None:
    EventFile(tmp_path)([CurvePoint(epoch=1, loss=0.5)])
    assert read(tmp_path).Tags()["scalars"] == ["loss/total"]


def test_points_appear_while_it_trains_and_each_is_written_once(tmp_path: Path) -> None:
    sink, viewer = EventFile(tmp_path), EventAccumulator(str(tmp_path))
    curve = points(5)
    for epoch in range(1, 6):
        sink(curve[:epoch])
        viewer.Reload()
        assert [e.step for e in viewer.Scalars("loss/total")] == list(range(1, epoch + 1))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_resumed_training_says_every_epoch_once(tmp_path: Path) -> None:
    EventFile(tmp_path)(points(4, loss=9.0))  # epoch 4 was killed before its checkpoint
    EventFile(tmp_path)(points(4, loss=3.0))
    assert steps(tmp_path) == [1, 2, 3, 4]
    assert values(tmp_path, "loss/total")[3] == pytest.approx(0.75)


def test_a_training_that_went_back_takes_back_what_it_said(tmp_path: Path) -> None:
    """A viewer that looks on forgets it too."""
    sink = EventFile(tmp_path)
    sink(points(3))
    viewer = EventAccumulator(str(tmp_path))
    viewer.Reload()
    assert [e.step for e in viewer.Scalars("loss/total")] == [1, 2, 3]
    sink([*points(1), *points(2, loss=7.0)[1:]])
    assert steps(tmp_path) == [1, 2]
    viewer.Reload()
    assert [e.value for e in viewer.Scalars("loss/total")] == pytest.approx([2.0, 3.5])
    for loss in (5.0, 6.0, 7.0):
        sink(points(1, loss))
    viewer.Reload()
    assert [e.value for e in viewer.Scalars("loss/total")] == [7.0]
    assert sum(path.stat().st_size > 0 for path in tmp_path.iterdir()) == 1
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    sink(points(1, 8.0))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_finished_stage_is_written_from_its_facts_and_several_teachers_each(
    tmp_path: Path,
) -> None:
    curve = [point.model_dump() for point in points(2)]
    logs = Logs(tmp_path)
    logs.fill("08-plain@seed1", {"curve": curve})
    logs.fill("04-teacher", {"curve": [], "members": [{"curve": curve}, {"curve": curve[:1]}]})
    logs.fill("06-targets", {"views": 2})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "04-teacher@1", "04-teacher@2", "08-plain@seed1",
    ]  # fmt: skip
    assert steps(tmp_path / "08-plain@seed1") == [1, 2]
    assert steps(tmp_path / "04-teacher@2") == [1]


def test_without_the_option_nothing_is_written(tmp_path: Path) -> None:
    logs = Logs(None)
    assert logs.sink("08-plain") is None
    logs.fill("08-plain", {"curve": [points(1)[0].model_dump()]})
    assert list(tmp_path.iterdir()) == []


class _DiesTelling(Face):
    """The process dies after an epoch's point was written, before its checkpoint."""

    def __init__(self, epoch: int) -> None:
        super().__init__(verbosity=0)
        self.epoch = epoch

    def curve(self, title: str, points: Sequence[CurvePoint], epochs: int) -> None:
        super().curve(title, points, epochs)
        if len(points) == self.epoch:
            raise Killed


@pytest.mark.parametrize("face", [Killing(7), _DiesTelling(2)], ids=["in an epoch", "at its end"])
def test_a_killed_training_that_goes_on_leaves_one_point_an_epoch(
    tmp_path: Path, face: Face
) -> None:
    folder, logs = work(tmp_path / "stage"), Logs(tmp_path / "logs")
    with pytest.raises(Killed), face.following(logs.sink("08-plain")):
        make(Plain()).run(folder, face)
    again = silent()
    with again.following(logs.sink("08-plain")):
        fitted = make(Plain()).run(folder, again)
    assert steps(tmp_path / "logs" / "08-plain") == [1, 2, 3]
    assert values(tmp_path / "logs" / "08-plain", "loss/total") == pytest.approx(
        [p.loss for p in fitted.curve], rel=1e-6
    )
    rates = values(tmp_path / "logs" / "08-plain", "learning_rate")
    assert rates[0] > rates[1] > rates[2] >= 0


def _not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def missing(name: str, *rest: Any) -> Any:
        return None if name == "tensorboard" else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", missing)


def test_without_tensorboard_the_build_ends_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _not_installed(monkeypatch)
    with pytest.raises(MissingExtraError, match=r"edgedistill\[log\]"):
        require_log("tensorboard")
    require_log("none")
    ran = tool("build", *SMALL, "--out", tmp_path / "run", "--log", "tensorboard")
    assert ran.code == 2
    assert "--log tensorboard" in ran.text and 'pip install "edgedistill[log]"' in ran.text
    assert not (tmp_path / "run").exists()


def test_another_viewer_is_refused_with_those_that_are_known() -> None:
    ran = tool("build", "--log", "wandb")
    assert ran.code == 2
    assert "none" in ran.text and "tensorboard" in ran.text


def test_a_build_leaves_a_curve_for_each_arm_and_fresh_removes_it(tmp_path: Path) -> None:
    run, data = tmp_path / "run", make_images(tmp_path / "images", 12)
    asked = ("build", *SMALL, "--data", data, "--out", run, "--until", "distilled")
    assert tool(*asked, "--log", "tensorboard").code == 0
    logs = run / "logs"
    assert {p.name for p in logs.iterdir()} >= {"08-plain", "09-distilled"}
    assert steps(logs / "09-distilled") == [1]
    assert {t for t in read(logs / "09-distilled").Tags()["scalars"] if t.startswith("loss/")} > {
        "loss/total"
    }
    assert tool(*asked, "--log", "tensorboard").code == 0  # all was done before
    assert steps(logs / "08-plain") == [1]
    recipe = (run / "recipe.yaml").read_text("utf-8")
    assert "tensorboard" not in recipe
    assert tool(*asked, "--fresh", "--until", "data").code == 0
    assert not logs.exists()
