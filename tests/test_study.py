"""A whole small study: what arms share is made once, what is done stays done, and every number can be redone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from edgedistill import metrics
from edgedistill.errors import UsageError
from edgedistill.options import data_name
from edgedistill.seeds import student_t
from edgedistill.studybuild import StudyBuild
from edgedistill.studyproof import Run
from edgedistill.studyresult import StudyResult, load
from tests.build_parts import SMALL, events, make_images, tool

CLAIMS = [{"says": "Softened outputs help", "better": "kd", "than": "plain", "by": -60}]
ARMS = {"plain": {"arm": "plain"}, "kd": {"distill": {"method": "kd"}}, "au": None}


def study_file(folder: Path, data: Path, **facts: object) -> Path:
    """A study of three arms that each train in a second."""
    tree: dict[str, object] = {
        "recipe": {
            "device": "x86-cpu",
            "data": {"source": str(data)},
            "teacher": {"model": "bundled:efficientnet_lite0", "adapt": "probe"},
            "student": {"model": "mobilenetv3_small_050", "weights": "random", "input_size": 64},
            "distill": {"epochs": 4, "views": 2},
        },
        "seeds": 2,
        "arms": ARMS,
        "claims": [] if "arms" in facts else CLAIMS,
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree | facts, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images") / "data")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[tuple[Path, Path]]:
    """A study file and the folder of the finished study."""
    folder = tmp_path_factory.mktemp("study")
    file, out = study_file(folder, data), folder / "out"
    ran = tool("study", file, "--out", out)
    assert ran.code == 0, ran.err
    assert "[6/6] arm au, seed 1: test top-1" in ran.text
    yield file, out


def begun(out: Path) -> list[str]:
    """Stages that the last command began, without their fingerprints."""
    names: list[str] = []
    for event in events(out):
        if event["event"] == "study_started":
            names = []
        elif event["event"] == "stage_started":
            names.append(str(event["stage"]).rpartition("-")[0])
    return names


def stage_folders(out: Path, name: str) -> list[Path]:
    return [p for p in (out / "shared").iterdir() if p.name.rpartition("-")[0] == name]


def labels_of(out: Path) -> np.ndarray:
    lines = (stage_folders(out, "01-data")[0] / "split.tsv").read_text("utf-8").splitlines()
    return np.array([int(line.split("\t")[1]) for line in lines if line.startswith("test\t")])


def rights_of(out: Path, study: StudyResult, arm: str) -> list[np.ndarray]:
    """Which test images each run of an arm has right, by the weights' hash of the run, from what is on disk alone."""
    name = "08-plain" if arm == "plain" else "09-distilled"
    found = {}
    for stage in [*stage_folders(out, name), *stage_folders(out, f"{name}@seed1")]:
        doc = json.loads((stage / "done.json").read_text("utf-8"))
        kind = "plain" if arm == "plain" else "distilled"
        for test in stage_folders(out, f"10-test@{kind}"):
            inputs = json.loads((test / "done.json").read_text("utf-8"))["inputs"]
            if stage.name in inputs:
                logits = np.load(test / "logits.npz")["logits"]
                found[doc["facts"]["weights_sha256"]] = metrics.correct(logits, labels_of(out))
    runs = next(one for one in study.arms if one.name == arm).runs
    return [found[run.weights_sha256] for run in runs]


def test_what_arms_share_is_made_once(done: tuple[Path, Path]) -> None:
    made = begun(done[1])
    for name in ("01-data", "03-pixels", "04-teacher", "06-targets", "10-test@teacher"):
        assert made.count(name) == 1, name
    assert made.count("07-start") == made.count("08-plain") == 1
    assert made.count("07-start@seed1") == made.count("08-plain@seed1") == 1
    assert made.count("09-distilled") == made.count("09-distilled@seed1") == 2
    assert [p for p in (done[1] / "shared").iterdir() if p.name.endswith(".partial")] == []


def test_runs_go_seed_by_seed(done: tuple[Path, Path]) -> None:
    trained = [n for n in begun(done[1]) if n.startswith(("08", "09"))]
    assert trained == [
        "08-plain", "09-distilled", "09-distilled",
        "08-plain@seed1", "09-distilled@seed1", "09-distilled@seed1",
    ]  # fmt: skip


def test_every_number_follows_from_the_stored_logits(done: tuple[Path, Path]) -> None:
    study = load(done[1])
    base = rights_of(done[1], study, "plain")
    assert study.data.test == len(labels_of(done[1])) > 5
    for arm in study.arms:
        rights = rights_of(done[1], study, arm.name)
        shares = [float(right.mean()) for right in rights]
        assert [run.top1 for run in arm.runs] == [metrics.proportion(right) for right in rights]
        assert arm.top1 is not None
        assert arm.top1.value == pytest.approx(sum(shares) / 2)
        half = student_t(1) * abs(shares[0] - shares[1]) / 2
        assert arm.top1.ci95 is not None
        assert arm.top1.ci95[0] == pytest.approx(max(0.0, arm.top1.value - half))
        assert arm.seconds_total == pytest.approx(sum(arm.seconds_parts.values()))
        assert arm.seconds == arm.seconds_parts["training"] > 0
        if arm.name == "plain":
            assert arm.seed_gain is arm.image_gain is arm.teacher is None
            continue
        gaps = [new.mean() - old.mean() for new, old in zip(rights, base, strict=True)]
        assert arm.seed_gain is not None
        assert arm.seed_gain.value == pytest.approx(sum(gaps) / 2)
        for run, new, old in zip(arm.runs, rights, base, strict=True):
            assert run.gain == metrics.paired_gain(new, old, "plain")
        assert arm.teacher is not None
        logits = np.load(stage_folders(done[1], "10-test@teacher")[0] / "logits.npz")["logits"]
        assert arm.teacher.top1.value == metrics.top1(logits, labels_of(done[1]))
        assert "teacher preparation" in arm.seconds_parts
    assert study.arms[1].teacher == study.arms[2].teacher
    (claim,) = study.claims
    assert (claim.better, claim.than, claim.by) == ("kd", "plain", -0.6)
    assert (claim.seed_gain, claim.image_gain) == (
        study.arms[1].seed_gain, study.arms[1].image_gain,
    )  # fmt: skip


def test_the_plain_arm_of_a_study_is_that_of_a_build(
    done: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    words = [word for word in SMALL if word not in ("--quick",)]
    out = tmp_path / "run"
    ran = tool(
        "build", *words, "--data", data, "--set", "distill.epochs=4", "--set", "distill.views=2",
        "--until", "plain", "--out", out,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    built = json.loads((out / "stages" / "08-plain" / "done.json").read_text("utf-8"))
    first = load(done[1]).arms[0].runs[0]
    assert first.weights_sha256 == built["facts"]["weights_sha256"]


def test_a_finished_study_says_so_and_changes_nothing_but_the_views(
    done: tuple[Path, Path],
) -> None:
    file, out = done
    before = (out / "study.json").read_bytes()
    page = (out / "study.html").read_bytes()
    (out / "study.html").unlink()
    ran = tool("study", file, "--out", out)
    assert ran.code == 0, ran.err
    assert "all 6 runs were done before" in ran.err
    assert begun(out) == []
    assert (out / "study.json").read_bytes() == before
    assert (out / "study.html").read_bytes() == page


def test_report_writes_the_views_of_a_study_anew(done: tuple[Path, Path], tmp_path: Path) -> None:
    ran = tool("report", done[1], "--out", tmp_path / "views")
    assert ran.code == 0, ran.err
    assert "Gain over plain, paired by seed." in ran.text
    assert {p.name for p in (tmp_path / "views").iterdir()} == {
        "study.html",
        "study.md",
        "study.svg",
    }
    again = tool("report", done[1] / "study.json", "--out", tmp_path / "views")
    assert again.code == 0, again.err


def test_an_arm_alone_then_another_seed_do_only_what_is_new(data: Path, tmp_path: Path) -> None:
    file, out = study_file(tmp_path, data, seeds=1), tmp_path / "out"
    ran = tool("study", file, "--out", out, "--only", "plain", "-q")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    assert "1 of 3 runs are finished" in ran.text
    assert "not run yet" in ran.text
    assert not any(name.startswith(("04", "06", "09")) for name in begun(out)), "no teacher yet"
    ran = tool("study", file, "--out", out, "--only", "kd", "--only", "plain", "--seeds", "2")
    assert ran.code == 0, ran.err
    assert "1 of 6 runs were done before" in ran.err
    made = begun(out)
    assert "08-plain" not in made
    assert [n for n in made if n.startswith(("08", "09"))] == [
        "09-distilled", "08-plain@seed1", "09-distilled@seed1",
    ]  # fmt: skip
    study = load(out)
    assert [len(arm.runs) for arm in study.arms] == [2, 2, 0]
    assert "4 of 6 runs are finished; the same command goes on." in study.remarks


def test_the_same_study_on_other_images_has_a_folder_of_its_own(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = study_file(tmp_path, tmp_path / "nowhere", seeds=1)
    monkeypatch.chdir(tmp_path)
    ran = tool("study", file, "--data", data, "--only", "plain", "-q")
    assert ran.code == 0, ran.err
    assert [p.name for p in Path("runs").iterdir()] == [f"tiny-{data_name(str(data))}"]
    assert load(next(Path("runs").iterdir())).data.source == str(data)
    gone = tool("study", file, "--only", "plain", "-q")
    assert gone.code == 2 and "nowhere" in gone.text and not Path("runs/tiny").exists()


def test_an_arm_whose_generator_is_not_made_yet_holds_up_no_other(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "generator").mkdir()
    late = {
        "arm": "distilled+synthetic",
        "synth": {"images": 20, "generator": str(tmp_path / "generator")},
    }
    arms = {"plain": {"arm": "plain"}, "au": None, "late": late}
    file, out = study_file(tmp_path, data, arms=arms, seeds=1), tmp_path / "out"
    for done, name in enumerate(("plain", "au"), start=1):
        ran = tool("study", file, "--out", out, "--only", name)
        assert ran.code == 0, ran.err
        assert f"{done} of 3 runs are finished" in ran.text
    ran = tool("study", file, "--out", out)
    assert ran.code == 2
    assert "edgedistill: arm late: " in ran.err
    assert "is no generator" in ran.err
    assert [len(arm.runs) for arm in load(out).arms] == [1, 1, 0]


def test_finished_runs_of_an_arm_that_lost_what_it_needs_are_not_dropped(
    done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = done
    before, finish = (out / "study.json").read_bytes(), StudyBuild.finish

    def lost(build: StudyBuild, seed: int) -> Run:
        if build.entry.name == "au":
            raise UsageError("the folder generator is no generator")
        return finish(build, seed)

    monkeypatch.setattr(StudyBuild, "finish", lost)
    ran = tool("study", file, "--out", out, "--only", "plain")
    assert ran.code == 2
    assert "edgedistill: arm au: the folder generator is no generator" in ran.err
    assert (out / "study.json").read_bytes() == before


def test_a_study_keeps_out_of_the_folder_of_a_build_and_of_anybody_else(
    done: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    file, out = done
    ran = tool("build", *SMALL, "--data", data, "--out", out)
    assert ran.code == 2
    assert "is the folder of a study; give the build one of its own" in ran.text
    run = tmp_path / "run"
    assert tool("build", *SMALL, "--data", data, "--out", run, "--until", "data").code == 0
    ran = tool("study", file, "--out", run)
    assert ran.code == 2
    assert "is the folder of a build; give the study one of its own" in ran.text
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("Dear Sir or Madam")
    ran = tool("study", file, "--out", mine)
    assert ran.code == 2
    assert "holds files that are not those of a study" in ran.text
    assert [p.name for p in mine.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ({"plain": {"arm": "plain"}, "few": {"data": {"test_fraction": 0.4}}},
         "arm few would be tested on other images than arm plain"),
        ({"plain": {"arm": "plain"}, "away": {"data": {"source": "./nowhere"}}}, "arm away: "),
        ({"plain": {"arm": "plain"}, "odd": {"student": {"model": "resnet99"}}}, "arm odd: unknown student"),
        ({"plain": {"arm": "plain"}, "big": {"budget": {"size_bytes": 1000}}}, "arm big: "),
    ],
)  # fmt: skip
def test_what_no_arm_can_do_is_said_before_any_training(
    data: Path, tmp_path: Path, arms: dict[str, object], words: str
) -> None:
    ran = tool("study", study_file(tmp_path, data, arms=arms, seeds=1), "--out", tmp_path / "out")
    assert ran.code == (1 if "big" in arms else 2), ran.err
    assert words in ran.text
    assert "Traceback" not in ran.err
    if (tmp_path / "out" / "events.jsonl").exists():
        assert not any(name.startswith("07") for name in begun(tmp_path / "out"))


def test_a_fault_of_a_run_names_the_arm_and_keeps_what_was_finished(
    data: Path, tmp_path: Path
) -> None:
    import timm
    from safetensors.torch import save_file

    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    state["conv_stem.weight"] = state["conv_stem.weight"] * float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    torn = {"teacher": {"weights": str(tmp_path / "nan.safetensors")}}
    arms = {"plain": {"arm": "plain"}, "torn": torn}
    file, out = study_file(tmp_path, data, arms=arms, seeds=1), tmp_path / "out"
    ran = tool("study", file, "--out", out)
    assert ran.code == 2
    assert "edgedistill: arm torn, seed 0: " in ran.err
    assert "Traceback" not in ran.err
    assert [len(arm.runs) for arm in load(out).arms] == [1, 0]


def test_arms_that_the_study_does_not_have_are_refused(
    done: tuple[Path, Path], tmp_path: Path
) -> None:
    ran = tool("study", done[0], "--out", tmp_path / "out", "--only", "plian")
    assert ran.code == 2
    assert 'unknown arm "plian"; did you mean "plain"?' in ran.text
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_interrupted_and_killed_a_study_goes_on_and_ends_with_the_same_weights(
    done: tuple[Path, Path], tmp_path: Path
) -> None:
    file, out = done[0], tmp_path / "out"
    command = [sys.executable, "-m", "edgedistill", "study", str(file), "--out", str(out)]
    for sign, blow in (
        ("04-teacher-*.partial", signal.SIGINT),
        ("09-distilled-*.partial/distilled.checkpoint", signal.SIGKILL),
    ):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        end = time.monotonic() + 120
        while not list((out / "shared").glob(sign)) and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.001)
        process.send_signal(blow)
        said = process.communicate(timeout=60)[1].decode()
        if blow == signal.SIGINT:
            assert process.returncode == 3, said
            assert "Go on with:  edgedistill study" in said
        else:
            assert process.returncode == -signal.SIGKILL
    ran = tool("study", file, "--out", out)
    assert ran.code == 0, ran.err
    names = [str(e["stage"]) for e in events(out) if e["event"] == "stage_done"]
    assert len(names) == len(set(names)), "no stage was done twice"
    mine, whole = load(out), load(done[1])
    for arm, other in zip(mine.arms, whole.arms, strict=True):
        hashes = [run.weights_sha256 for run in other.runs]
        assert [run.weights_sha256 for run in arm.runs] == hashes
        assert [run.top1 for run in arm.runs] == [run.top1 for run in other.runs]


def at_work(file: Path, out: Path) -> subprocess.Popen[bytes]:
    """A process at work on a study."""
    command = [sys.executable, "-m", "edgedistill", "study", str(file), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def same_weights(out: Path, whole: Path) -> None:
    mine, theirs = load(out), load(whole)
    for arm, other in zip(mine.arms, theirs.arms, strict=True):
        assert [r.weights_sha256 for r in arm.runs] == [r.weights_sha256 for r in other.runs]
    names = [str(e["stage"]) for e in events(out) if e["event"] == "stage_done"]
    assert len(names) == len(set(names)), "no stage was done twice"


@pytest.mark.slow
def test_two_processes_share_the_runs_of_a_study_and_none_is_lost_or_done_twice(
    done: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = at_work(done[0], out)
    wait_for(out, "01-data-*", first)
    second = at_work(done[0], out)
    said = [process.communicate(timeout=200)[0].decode() for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    same_weights(out, done[1])
    ran = [line for text in said for line in text.splitlines() if ": test top-1" in line]
    assert sorted(line.partition("] ")[2].partition(":")[0] for line in ran) == sorted(
        f"arm {name}, seed {seed}" for name in ARMS for seed in (0, 1)
    )
    assert all("arm " in text for text in said), "both did some"


@pytest.mark.slow
def test_what_a_killed_process_had_in_hand_is_done_by_the_other(
    done: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = at_work(done[0], out)
    wait_for(out, "08-plain-*.partial", first)
    second = at_work(done[0], out)
    wait_for(out, "09-distilled-*.partial", second)
    first.kill()
    said = second.communicate(timeout=200)[0].decode()
    first.communicate()
    assert second.returncode == 0, said
    same_weights(out, done[1])


def wait_for(out: Path, pattern: str, process: subprocess.Popen[bytes]) -> None:
    """Until a stage's folder is there."""
    end = time.monotonic() + 120
    while not list((out / "shared").glob(pattern)) and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.001)
