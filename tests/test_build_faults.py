"""What goes wrong in a build: each fault is one paragraph without a traceback, with the exit code of the house."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgedistill import files
from tests.build_parts import SMALL, Ran, make_images, picture, tool, worked

PROGRAM = (sys.executable, "-m", "edgedistill")
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images") / "data", per_class=6)


def refused(ran: Ran, code: int, *words: str) -> None:
    """One paragraph on standard error with these words, and nothing else."""
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    said = ran.err[ran.err.index("edgedistill: ") :].strip()
    assert "\n\n" not in said, "one paragraph"
    for word in words:
        assert word in " ".join(said.split()), said


def build(tmp_path: Path, *arguments: object) -> Ran:
    return tool("build", *SMALL, "--out", tmp_path / "run", *arguments)


def test_a_data_folder_that_is_missing_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    refused(build(tmp_path, "--data", tmp_path / "nowhere"), 2, "nowhere does not exist")
    assert not (tmp_path / "run").exists()


def test_a_data_folder_that_is_empty(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    refused(build(tmp_path, "--data", tmp_path / "data"), 2, "one folder for each class")


def test_a_data_folder_with_one_class(tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", 5, {"bag": 8})
    refused(build(tmp_path, "--data", data), 2, "one class only (bag, 5 images)")


def test_a_data_folder_with_three_images(tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", per_class=1)
    refused(build(tmp_path, "--data", data), 2, "3 in all", "at least 3 different ones")


def test_a_data_folder_with_files_that_no_one_can_decode(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "data" / name / f"{number}.jpg").write_bytes(b"no picture %d" % number)
    refused(build(tmp_path, "--data", tmp_path / "data"), 2, "all 8 files in it fail", "a/0.jpg")


def test_a_data_folder_with_too_many_bad_files_says_how_to_allow_them(tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", per_class=4)
    for number in range(3):
        (data / "bag" / f"bad{number}.png").write_bytes(b"")
    refused(build(tmp_path, "--data", data), 2, "bag/bad0.png", "data.max_bad_fraction=")


def test_an_archive_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(b"PK")
    refused(
        build(tmp_path, "--data", tmp_path / "data.zip"), 2, "is a file that cannot be read as data"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--device", "jetsan"), ('unknown device "jetsan"', 'did you mean "jetson')),
        (("--student", "mobilnetv3_small_050"), ('did you mean "mobilenetv3_small_050"',)),
        (("--teacher", "bundled:efficientnet_lite3"), ("efficientnet_lite2", "Known:")),
        (("--teacher", "mobilnetv3_large_100"), ('did you mean "mobilenetv3_large_100"',)),
        (("--set", "distil.temperature=2"), ("distil.temperature", "temperature")),
        (("--set", "distill.temprature=2"), ('did you mean "distill.temperature"',)),
        (("--set", "distill.temperature=hot"), ("distill.temperature", "'hot'")),
        (("--until", "teech"), ('unknown stage "teech"', '"teacher"')),
        (("--latency-ms", "0"), ("--latency-ms", "above 0; got 0")),
        (("--size-mb", "-3"), ("--size-mb", "above 0; got -3")),
        (("--memory-mb", "nan"), ("--memory-mb", "got nan")),
        (("--min-top1", "0.9"), ("--min-top1 is in percent", "--min-top1 90")),
        (("--set", "budget.latency_s=-1"), ("budget.latency_s", "greater than 0")),
        (("--set", "data.max_train=2"), ("data.max_train is 2", "3 classes")),
        (("-q", "-v"), ("exclude each other",)),
    ],
)
def test_a_name_or_a_number_that_is_not_allowed(
    tmp_path: Path, images: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(build(tmp_path, "--data", images, *arguments), 2, *words)


def test_every_problem_of_a_recipe_is_named_at_once(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("distill: {epochs: 0, lr: fast}\nstudent: {modell: x}\nflavour: 1\n")
    ran = tool("build", recipe, "--out", tmp_path / "run")
    refused(ran, 2, "4 problems", "distill.epochs", "distill.lr", "student.modell", "flavour")


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    refused(tool("build", tmp_path / "no.yaml"), 2, "no.yaml does not exist")


def test_a_budget_that_nothing_fits_is_exit_code_1_with_the_closest_candidate(
    tmp_path: Path, images: Path
) -> None:
    ran = build(tmp_path, "--data", images, "--size-mb", 0.05)
    refused(ran, 1, "mobilenetv3_small_050", "0.05 MB")


def test_a_checkpoint_of_another_architecture_names_what_differs(
    tmp_path: Path, images: Path
) -> None:
    import timm
    from safetensors.torch import save_file

    weights = tmp_path / "other.safetensors"
    save_file(timm.create_model("mobilenetv3_small_050").state_dict(), weights)
    ran = build(
        tmp_path, "--data", images, "--teacher", "mobilenetv2_035",
        "--set", f"teacher.weights={weights}",
    )  # fmt: skip
    refused(ran, 2, "other.safetensors", "of another architecture", "missing")


class Evil:
    """Unpickled, it would leave a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch '{self.trace}'",)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_pickle_that_wants_to_run_code_is_refused_and_not_run(
    tmp_path: Path, images: Path, form: str
) -> None:
    import torch

    trace, weights = tmp_path / "trace", tmp_path / "evil.pth"
    wants = {"state_dict": Evil(trace)}
    if form == "torch":
        torch.save(wants, weights)
    else:
        weights.write_bytes(pickle.dumps(wants, protocol=2))
    ran = build(
        tmp_path, "--data", images, "--teacher", "mobilenetv2_035",
        "--set", f"teacher.weights={weights}",
    )  # fmt: skip
    refused(ran, 2, "evil.pth is refused", "run code")
    assert not trace.exists()


def test_a_changed_checkpoint_under_the_same_name_is_another_teacher(
    tmp_path: Path, images: Path
) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    weights = tmp_path / "teacher.safetensors"
    more = (
        "--data", images, "--teacher", "mobilenetv2_035", "--until", "teacher",
        "--set", f"teacher.weights={weights}", "--set", "teacher.input_size=64",
    )  # fmt: skip
    for seed in (1, 2):
        torch.manual_seed(seed)
        save_file(timm.create_model("mobilenetv2_035").state_dict(), weights)
        ran = build(tmp_path, *more)
        assert ran.code == 0, ran.err
        assert "04-teacher" in worked(tmp_path / "run")
    assert build(tmp_path, *more).code == 0
    assert worked(tmp_path / "run") == []


def test_out_that_is_a_file_is_refused(tmp_path: Path, images: Path) -> None:
    (tmp_path / "run").write_text("mine")
    refused(build(tmp_path, "--data", images), 2, "is a file; give a folder")
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize("fresh", [(), ("--fresh",)])
def test_out_that_is_somebody_elses_folder_is_refused_and_left_alone(
    tmp_path: Path, images: Path, fresh: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    (run / "photos").mkdir(parents=True)
    (run / "photos" / "me.jpg").write_text("mine")
    (run / "stages").mkdir()
    refused(build(tmp_path, "--data", images, *fresh), 2, "not those of a run")
    assert sorted(p.name for p in run.iterdir()) == ["photos", "stages"]
    assert (run / "photos" / "me.jpg").read_text() == "mine"


def test_a_second_build_in_the_same_folder_stops_at_once_and_says_why(
    tmp_path: Path, images: Path
) -> None:
    command = [*PROGRAM, "build", *SMALL, "--data", str(images), "--out", str(tmp_path / "run")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_for(tmp_path / "run" / "stages" / "02-plan.partial", first)
        os.kill(first.pid, signal.SIGSTOP)
        start = time.monotonic()
        ran = build(tmp_path, "--data", images)
        refused(ran, 2, "another edgedistill is at work in", "--out")
        assert time.monotonic() - start < 5
        refused(build(tmp_path, "--data", images, "--fresh"), 2, "another edgedistill")
        assert (tmp_path / "run" / "stages" / "01-data").is_dir(), "--fresh cleared it all the same"
    finally:
        first.kill()
        first.communicate()
    assert build(tmp_path, "--data", images, "--until", "data").code == 0, "the lock died with it"


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until `path` is there; a process that ended before, or a minute, fails the test."""
    end = time.monotonic() + TIMEOUT_S
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.001)


def test_ctrl_c_ends_with_exit_code_3_and_the_command_to_go_on(
    tmp_path: Path, images: Path
) -> None:
    run = tmp_path / "a run's folder"
    arguments = ["build", *SMALL, "--data", str(images), "--out", str(run), "--fresh"]
    process = subprocess.Popen(
        [*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False
    )
    wait_for(run / "stages" / "02-plan.partial", process)
    process.send_signal(signal.SIGINT)
    out, err = (stream.decode() for stream in process.communicate(timeout=TIMEOUT_S))
    refused(Ran(process.returncode, out, err), 3, "interrupted", "What was finished is kept")
    command = err[err.index("Go on with:") :].partition(":")[2].strip()
    assert "--fresh" not in command and f"'{str(run)[:-12]}" in command
    words = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert words == ["edgedistill", *[a for a in arguments if a != "--fresh"]]
    assert (run / "stages" / "01-data").is_dir()


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """A file system of a few megabytes at `folder`; gives False where this machine does not allow one."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
    folder.mkdir()
    done = shutil.which("mount") and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield bool(done)
    finally:
        if done:
            subprocess.run(["umount", "-l", folder], check=True)


def test_on_a_full_disk_what_was_finished_stays_and_the_same_command_goes_on(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    torch.set_num_threads(1)
    disk = tmp_path / "disk"
    command = ("build", *SMALL, "--data", images, "--out", disk / "run", "--until", "targets")
    with small_disk(disk, 4) as real:
        if not real:
            full_after(monkeypatch, "teacher.safetensors")
        ran = tool(*command)
        refused(ran, 3, "full", "04-teacher", "What was finished is kept", "Go on with:")
        stages = disk / "run" / "stages"
        assert {"01-data", "02-plan", "03-pixels"} <= {p.name for p in stages.iterdir()}
        assert not (stages / "04-teacher").exists()
        if real:
            subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        monkeypatch.undo()
        ran = tool(*command)
        assert ran.code == 0, ran.err
        assert worked(disk / "run") == ["04-teacher", "06-targets"]


def test_a_write_that_finds_the_disk_full_leaves_no_half_file(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_after(monkeypatch, "skipped.tsv")
    more = ("--data", images, "--until", "data")
    refused(build(tmp_path, *more), 3, "full", "01-data", "Go on with:")
    left = [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [name for name in left if "skipped" in name]
    monkeypatch.undo()
    assert build(tmp_path, *more).code == 0
    assert (tmp_path / "run/stages/01-data/skipped.tsv").is_file()


def full_after(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Writing the file `name` finds no space left, as `fsync` reports it."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if name in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)


def test_without_torch_the_extra_to_install_is_named(tmp_path: Path, images: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from edgedistill.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "build", *SMALL, "--data", images, "--out", tmp_path / "run"],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    ran = Ran(done.returncode, done.stdout, done.stderr)
    refused(ran, 2, 'needs the "train" extra', 'pip install "edgedistill[train]"')
    assert not (tmp_path / "run/stages/01-data").exists(), "told before any work"


def test_a_provider_that_is_not_here_is_told_before_any_work(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    ran = build(tmp_path, "--data", images, "--provider", "tensorrt")
    refused(
        ran, 2, "--provider tensorrt cannot run here", "CPUExecutionProvider", "edgedistill[gpu]"
    )
    assert not (tmp_path / "run/stages/01-data").exists()


def test_what_a_killed_build_left_half_written_is_swept_away(tmp_path: Path, images: Path) -> None:
    run = tmp_path / "run"
    more = ("--data", images, "--until", "data")
    assert build(tmp_path, *more).code == 0
    (run / ".bundle.tmp").mkdir()
    (run / ".bundle.tmp" / "half").write_text("x")
    (run / ".result.json.77.tmp").write_text("{")
    (run / "stages" / ".trash-04-teacher-77").mkdir()
    (run / "notes.tmp").write_text("mine")
    assert build(tmp_path, *more).code == 0
    assert {p.name for p in run.iterdir()} == {
        "stages", "cache", "events.jsonl", ".lock", "notes.tmp"
    }  # fmt: skip
    assert [p.name for p in (run / "stages").iterdir()] == ["01-data"]


def test_a_second_look_at_a_folder_decodes_nothing_again(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--data", images, "--until", "data")
    assert build(tmp_path, *more).code == 0
    monkeypatch.setattr("edgedistill.data.scan.decode", lambda *_: pytest.fail("decoded again"))
    assert build(tmp_path, *more).code == 0


def test_class_names_that_are_hostile_come_through_whole(tmp_path: Path) -> None:
    names = {"<img src=x onerror=alert(1)>": 8, "two words 'and' \"quotes\"": 9, "línea\nnueva": 1}
    data = make_images(tmp_path / "data", 5, names)
    picture(8, 77).save(data / "línea\nnueva" / "tab\there.png")
    ran = build(tmp_path, "--data", data, "--until", "plan")
    assert ran.code == 0, ran.err
    rows = (tmp_path / "run/stages/01-data/split.tsv").read_text("utf-8").splitlines()
    assert len(rows) == 16 and all(len(row.split("\t")) == 4 for row in rows)
    assert any(re.search(r"l.nea\\nnueva/tab\\there.png", row) for row in rows)
