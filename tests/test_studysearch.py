"""A search over factors: so many trials whoever does them, hopeless ones cut short, the best one an arm."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgedistill.errors import UsageError
from edgedistill.progress import silent
from edgedistill.rundir import RunDir
from edgedistill.searchresult import SearchResult, Trial, load
from edgedistill.studyfile import Study, load_study
from edgedistill.studyresult import load as load_result
from edgedistill.studysearch import (
    SEARCHED,
    Hopeless,
    Search,
    _Watch,
    space_of,
    with_searched,
)
from tests.build_parts import events, make_images, tool
from tests.test_study import study_file

FACTORS: dict[str, Any] = {
    "temperature": {"distill.temperature": [1, 2]},
    "loss": {"plain": {"arm": "plain"}, "distill.method": ["kd", "dist"]},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images") / "data")


def factored(folder: Path, data: Path, **more: object) -> Path:
    return study_file(folder, data, arms={}, factors=FACTORS, seeds=1, **more)


@pytest.fixture
def study(tmp_path: Path, data: Path) -> Iterator[Study]:
    yield load_study(factored(tmp_path, data))


def test_a_trial_has_one_level_of_each_factor_that_has_a_teacher(study: Study) -> None:
    space = space_of(study)
    assert space.levels == {
        "temperature": ["default", "temperature=1", "temperature=2"],
        "loss": ["default", "method=kd", "method=dist"],
    }
    arm = space.arm("trial3", {"temperature": "temperature=2", "loss": "method=dist"})
    assert arm.changes == {"distill.temperature": 2, "distill.method": "dist"}
    section = arm.layered.recipe.distill
    assert (section.temperature, section.method, section.epochs) == (2, "dist", 4)
    assert space.arm("trial0", dict.fromkeys(space.levels, "default")).changes == {}


def test_a_study_without_factors_cannot_be_searched(tmp_path: Path, data: Path) -> None:
    file = study_file(tmp_path, data)
    with pytest.raises(UsageError, match="has no factors to search over"):
        space_of(load_study(file))
    ran = tool("study", file, "--out", tmp_path / "out", "--search", 3)
    assert ran.code == 2 and "has no factors" in ran.text and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_search_ends_with_its_best_trial_as_an_arm_and_goes_on_where_it_was(
    tmp_path: Path, data: Path
) -> None:
    file, out = factored(tmp_path, data), tmp_path / "out"
    only = ("--only", "default")
    ran = tool("study", file, "--out", out, *only, "--search", 3)
    assert ran.code == 0, ran.err
    found = load(out)
    assert [trial.number for trial in found.trials] == [0, 1, 2]
    best = found.best
    assert best is not None and best.state == "whole"
    arms = {arm.name: arm for arm in load_result(out).arms}
    assert len(arms[SEARCHED].runs) == 1 and arms[SEARCHED].top1 is not None
    shown = space_of(load_study(file)).arm("x", best.levels).changes
    assert arms[SEARCHED].changes == shown
    again = tool("study", file, "--out", out, *only, "--search", 4)
    assert again.code == 0 and [t.number for t in load(out).trials] == [0, 1, 2, 3]
    assert load(out).trials[:3] == found.trials
    without = tool("study", file, "--out", out, *only)
    assert without.code == 0 and SEARCHED in without.text
    other = study_file(tmp_path, data, arms={}, factors={"t": {"distill.temperature": [3]}}, seeds=1)  # fmt: skip
    refused = tool("study", other, "--out", out, *only, "--search", 5)
    assert refused.code == 2 and "is a search over other factors" in refused.text
    elsewhere = factored(tmp_path, shutil.copytree(data, tmp_path / "others"))
    refused = tool("study", elsewhere, "--out", out, *only, "--search", 5)
    assert refused.code == 2 and "is a search over other images" in refused.text


@pytest.mark.slow
def test_two_processes_share_the_trials_though_one_is_killed(tmp_path: Path, data: Path) -> None:
    file, out = factored(tmp_path, data), tmp_path / "out"
    command = [sys.executable, "-m", "edgedistill", "study", str(file), "--out", str(out)]
    command += ["--only", "default", "--search", "6"]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as first,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as second,
    ):
        end = time.monotonic() + 150
        while not (out / "search.log").exists() and first.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        first.kill()
        said = second.communicate(timeout=250)[0].decode()
    assert second.returncode == 0, said
    assert [trial.number for trial in load(out).trials] == list(range(6))
    assert {trial.state for trial in load(out).trials} <= {"whole", "stopped"}
    assert [trial.levels for trial in load(out).trials] == asked_alone(file, tmp_path / "alone", 6)
    names = [str(e["stage"]) for e in events(out) if e["event"] == "stage_done"]
    assert len(names) == len(set(names)), "no training was done twice"


def asked_alone(file: Path, out: Path, count: int) -> list[dict[str, str]]:
    """The levels of the first trials of a search that one process does; nothing is trained."""
    search, found = Search(load_study(file), out, "edgedistill study", count), []
    with RunDir(out, shared=True) as run:
        journal = search._journal()
        for _ in range(count):
            with search._next(journal, run) as trial:
                found.append(dict(trial.params))
                journal.tell(trial, 0.5)
        with search._next(journal, run) as trial:
            assert trial is None
    return found


@pytest.mark.parametrize("chosen", [0, 1])
def test_a_trial_whose_process_was_lost_while_it_was_chosen_gets_the_levels_it_lacks(
    tmp_path: Path, data: Path, chosen: int
) -> None:
    file = factored(tmp_path, data)
    alone = asked_alone(file, tmp_path / "alone", 3)
    search = Search(load_study(file), tmp_path / "out", "edgedistill study", 3)
    with RunDir(search.out, shared=True) as run:
        journal = search._journal()
        lost = journal.ask()
        for factor in list(search.space.levels)[:chosen]:
            lost.suggest_categorical(factor, search.space.levels[factor])
        half = dict(lost.params)
        with search._next(journal, run) as trial:
            assert trial.number == 0 and half.items() <= trial.params.items()
            assert trial.params == alone[0] | half
            journal.tell(trial, 0.5)
        with search._next(journal, run) as trial:
            assert trial.number == 1 and trial.params == alone[1]


class Counted:
    """What Optuna is told of a trial."""

    def __init__(self, prune_at: int) -> None:
        self.reports: list[tuple[float, int]] = []
        self.prune_at = prune_at

    def report(self, value: float, step: int) -> None:
        self.reports.append((value, step))

    def should_prune(self) -> bool:
        return len(self.reports) >= self.prune_at


def test_a_hopeless_training_ends_after_the_epoch_and_its_teacher_never() -> None:
    from edgedistill.result import CurvePoint

    points = [CurvePoint(epoch=e, loss=1.0, val_top1=v) for e, v in ((1, 0.5), (2, 0.4), (3, 0.6))]
    trial = Counted(prune_at=3)
    watch = _Watch(trial)
    watch("teacher", points)
    watch("distilled", points[:1])
    watch("distilled", points[:2])
    with pytest.raises(Hopeless):
        watch("distilled", points)
    assert trial.reports == [(0.5, 1), (0.5, 2), (0.6, 3)]


def test_a_damaged_search_is_left_out_with_a_warning(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert with_searched(study, tmp_path, silent()) is study
    (tmp_path / "search.json").write_text("{}")
    from edgedistill.progress import Face

    assert with_searched(study, tmp_path, Face(1)) is study
    assert "is left out" in capsys.readouterr().err
    levels = {"temperature": "temperature=2", "loss": "method=gone"}
    found = SearchResult(
        study="tiny", factors={}, trials=[Trial(number=0, levels=levels, state="whole", val_top1=0.5)]
    )  # fmt: skip
    (tmp_path / "search.json").write_text(found.dumps())
    assert with_searched(study, tmp_path, silent()) is study
