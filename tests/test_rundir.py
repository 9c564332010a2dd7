"""Run folders: files whole or not at all, stages run once, kills and full disks survived."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgedistill import rundir
from edgedistill.errors import BusyError, StoppedError, TeacherError, UsageError
from edgedistill.rundir import (
    Done,
    NotDone,
    RunDir,
    Work,
    events,
    is_disk_full,
    replace_folder,
    sha256_file,
    versions,
    write_atomic,
)

Facts = Mapping[str, Any]


def _tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


class Counting:
    """The work of a stage that counts its runs and writes one file."""

    def __init__(self, text: str = "made") -> None:
        self.runs = 0
        self.text = text

    def __call__(self, work: Work) -> dict[str, Any]:
        self.runs += 1
        work.write("out.txt", self.text)
        return {"runs": self.runs}


def _stage(run: RunDir, work: Callable[[Work], Facts], **changes: Any) -> Done:
    given: dict[str, Any] = {"name": "01-a", "version": 1, "key": {"x": 1}, "inputs": []}
    return run.stage(work=work, **{**given, **changes})


# -- files ---------------------------------------------------------------------------------------


def test_a_file_is_written_whole_with_its_folders_and_leaves_no_litter(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b.txt", "é")
    write_atomic(tmp_path / "a" / "b.txt", b"new")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"new"
    assert _tree(tmp_path) == ["a", "a/b.txt"]


def test_a_full_disk_in_the_middle_of_a_write_keeps_the_old_file_and_leaves_no_litter(
    tmp_path: Path,
) -> None:
    path = tmp_path / "out.txt"
    write_atomic(path, "old")
    (tmp_path / f".out.txt.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomic(path, "x" * 100_000)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert _tree(tmp_path) == ["out.txt"]


def test_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(tmp_path / "a", "\ud800")
    assert (tmp_path / "a").read_text() == "old"
    assert _tree(tmp_path) == ["a"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path, stop = tmp_path / "f", threading.Event()
    texts = {"a" * 200_000, "b" * 150_000}
    write_atomic(path, "a" * 200_000)
    seen: set[str] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(15):
        for text in sorted(texts):
            write_atomic(path, text)
    stop.set()
    reader.join()
    assert seen <= texts


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "n", "1")
    write_atomic(tmp_path / "old" / "o", "2")
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert _tree(tmp_path) == ["old", "old/n"]


def test_a_file_is_hashed_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a").startswith("ba7816bf8f01cfea")


# -- a full disk ---------------------------------------------------------------------------------


def _caused(by: BaseException) -> TeacherError:
    error = TeacherError("x")
    error.__cause__ = by
    return error


def test_a_full_disk_is_seen_through_whatever_wraps_it() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert is_disk_full(full)
    assert is_disk_full(OSError(errno.EDQUOT, "quota"))
    assert is_disk_full(_caused(_caused(full)))
    assert is_disk_full(RuntimeError("write failed: No space left on device (28)"))
    assert not is_disk_full(OSError(errno.EACCES, "denied"))
    assert not is_disk_full(_caused(ValueError("x")))


def test_errors_that_cause_each_other_in_a_ring_are_no_full_disk() -> None:
    first, second = _caused(ValueError()), TeacherError("y")
    first.__cause__, second.__cause__ = second, first
    assert not is_disk_full(first)


def test_a_stage_on_a_full_disk_stops_and_the_same_command_goes_on(tmp_path: Path) -> None:
    def fill(work: Work) -> Facts:
        work.write("first.txt", "kept")
        (work.folder / f".big.{os.getpid()}.tmp").symlink_to("/dev/full")
        work.write("big", "x" * 100_000)
        return {}

    with RunDir(tmp_path) as run:
        before = _stage(run, Counting(), name="00-before")
        with pytest.raises(StoppedError, match=r"disk of .* is full \(stage 01-a\)") as caught:
            _stage(run, fill)
        assert caught.value.exit_code == 3
        assert not (tmp_path / "stages" / "01-a").exists()
        assert (tmp_path / "stages" / "01-a.partial" / "first.txt").read_text() == "kept"
        assert run.done("00-before") == before
        done = _stage(run, lambda work: {"kept": work.has("first.txt"), "big": work.has("big")})
    assert done.facts == {"kept": True, "big": False}


# -- the folder ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["photo.jpg"],
        ["stages"],
        ["stages/mine.txt"],
        ["stages/a/b", "src/main.py"],
        ["events.jsonl"],
        ["bundle/x"],
    ],
)
def test_a_folder_with_foreign_files_is_refused_and_left_as_it_is(
    tmp_path: Path, names: list[str]
) -> None:
    for name in names:
        write_atomic(tmp_path / name, "mine")
    before = _tree(tmp_path)
    with pytest.raises(UsageError, match="not those of a run"), RunDir(tmp_path):
        pass
    assert _tree(tmp_path) == before


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    write_atomic(tmp_path / "f", "mine")
    with pytest.raises(UsageError, match="is a file"), RunDir(tmp_path / "f"):
        pass


@pytest.mark.parametrize("begun", [[], [".lock"], ["stages/"], [".lock", "stages/"]])
def test_a_folder_that_a_killed_start_left_is_taken(tmp_path: Path, begun: list[str]) -> None:
    for name in begun:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    with RunDir(tmp_path) as run:
        run.event("x")


def test_a_copy_of_a_run_folder_without_its_lock_is_taken(tmp_path: Path) -> None:
    with RunDir(tmp_path / "a") as run:
        run.event("x")
        _stage(run, Counting())
    (tmp_path / "a" / ".lock").unlink(missing_ok=True)
    (tmp_path / "a").rename(tmp_path / "b")
    work = Counting()
    with RunDir(tmp_path / "b") as run:
        _stage(run, work)
    assert work.runs == 0


def test_fresh_forgets_stages_and_results_and_nothing_else(tmp_path: Path) -> None:
    ours = ["bundle/m.onnx", "evalset/x", "cache/images.json", "recipe.yaml", "result.json",
            "report.html", "report.md", "model_card.md"]  # fmt: skip
    with RunDir(tmp_path) as run:
        run.event("x")
        _stage(run, Counting())
        for name in [*ours, "my-notes.txt"]:
            write_atomic(tmp_path / name, "x")
        run.clear()
        assert run.done("01-a") is None
        assert _tree(tmp_path) == [".lock", "events.jsonl", "my-notes.txt", "stages"]


def test_a_second_process_on_the_same_folder_is_refused_until_the_first_ends(
    tmp_path: Path,
) -> None:
    code = (
        "import sys; from pathlib import Path; from edgedistill.rundir import RunDir\n"
        "from edgedistill.errors import BusyError\n"
        "try:\n"
        "    with RunDir(Path(sys.argv[1])): print('in')\n"
        "except BusyError as error: print('busy:', error)\n"
    )

    def other() -> str:
        call = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout

    with RunDir(tmp_path):
        assert other().startswith("busy: another edgedistill is at work in")
    assert other() == "in\n"


def test_two_runs_in_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    with RunDir(tmp_path), pytest.raises(BusyError), RunDir(tmp_path):
        pass


# -- events --------------------------------------------------------------------------------------


def test_a_line_that_a_kill_cut_short_harms_no_other(tmp_path: Path) -> None:
    with RunDir(tmp_path) as run:
        run.event("one", n=1)
        with (tmp_path / "events.jsonl").open("ab") as file:
            file.write(b'{"event": "cu\xff')
        run.event("two", text="é\n")
        with (tmp_path / "events.jsonl").open("ab") as file:
            file.write(b"[1]\n7\n\n")
        run.event("three")
    found = list(events(tmp_path))
    assert [e["event"] for e in found] == ["one", "two", "three"]
    assert found[1]["text"] == "é\n"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", e["time_utc"]) for e in found)
    assert list(events(tmp_path / "nowhere")) == []


def test_a_stage_tells_when_it_starts_and_ends_and_nothing_when_it_is_skipped(
    tmp_path: Path,
) -> None:
    with RunDir(tmp_path) as run:
        done = _stage(run, Counting())
        _stage(run, Counting())
    assert [(e["event"], e["stage"]) for e in events(tmp_path)] == [
        ("stage_started", "01-a"),
        ("stage_done", "01-a"),
    ]
    assert next(events(tmp_path))["fingerprint"] == done.fingerprint


# -- stages --------------------------------------------------------------------------------------


def test_a_stage_runs_once_and_is_then_found_as_it_was_left(tmp_path: Path) -> None:
    work = Counting()
    with RunDir(tmp_path) as run:
        first = _stage(run, work)
    with RunDir(tmp_path) as run:
        second = _stage(run, work)
    assert work.runs == 1
    assert (first.fresh, second.fresh) == (True, False)
    assert first == second
    assert _tree(tmp_path / "stages") == [
        "01-a",
        "01-a/done.json",
        "01-a/fingerprint",
        "01-a/out.txt",
    ]
    doc = json.loads((tmp_path / "stages/01-a/done.json").read_text())
    assert doc["outputs"]["out.txt"] == [4, sha256_file(tmp_path / "stages/01-a/out.txt")]
    assert doc["versions"] == versions()


def test_facts_are_the_same_fresh_and_read_again(tmp_path: Path) -> None:
    def work(_: Work) -> Facts:
        return {"pair": (1, 2), "by_number": {3: 0.1}}

    with RunDir(tmp_path) as run:
        assert _stage(run, work).facts == _stage(run, work).facts
        assert _stage(run, work).facts == {"pair": [1, 2], "by_number": {"3": 0.1}}


def _done(name: str, fingerprint: str) -> Done:
    return Done(name, Path("x"), fingerprint, {}, 0.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": {"x": 2}},
        {"key": {"x": 1, "y": None}},
        {"version": 2},
        {"inputs": [_done("00", "a")]},
    ],
    ids=["key", "new key", "version", "inputs"],
)
def test_a_stage_whose_premises_changed_runs_again(tmp_path: Path, changes: dict[str, Any]) -> None:
    work = Counting()
    with RunDir(tmp_path) as run:
        _stage(run, work)
        (tmp_path / "stages/01-a/stale.txt").touch()
        _stage(run, work, **changes)
        assert work.runs == 2
        assert not (tmp_path / "stages/01-a/stale.txt").exists()
        _stage(run, work, **changes)
        assert work.runs == 2


def test_the_order_of_keys_does_not_matter_and_the_order_of_inputs_does(tmp_path: Path) -> None:
    work = Counting()
    a, b = _done("a", "1"), _done("b", "2")
    with RunDir(tmp_path) as run:
        _stage(run, work, key={"x": 1, "y": 2}, inputs=[a, b])
        _stage(run, work, key={"y": 2, "x": 1}, inputs=[a, b])
        assert work.runs == 1
        _stage(run, work, key={"y": 2, "x": 1}, inputs=[b, a])
        assert work.runs == 2


def _truncate(folder: Path) -> None:
    (folder / "out.txt").write_text("mad")


def _flip(folder: Path) -> None:
    (folder / "out.txt").write_text("mode")


def _lose(folder: Path) -> None:
    (folder / "out.txt").unlink()


def _cut(folder: Path) -> None:
    text = (folder / "done.json").read_text()
    (folder / "done.json").write_text(text[: len(text) // 2])


def _empty(folder: Path) -> None:
    (folder / "done.json").write_text("[]")


def _no_facts(folder: Path) -> None:
    doc = json.loads((folder / "done.json").read_text())
    del doc["facts"]
    (folder / "done.json").write_text(json.dumps(doc))


def _nest(folder: Path) -> None:
    (folder / "done.json").write_text("[" * 100_000)


def _gone(folder: Path) -> None:
    (folder / "done.json").unlink()


@pytest.mark.parametrize("damage", [_truncate, _flip, _lose, _cut, _empty, _no_facts, _nest, _gone])
def test_a_stage_with_a_damaged_or_missing_output_runs_again(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    work = Counting()
    with RunDir(tmp_path) as run:
        _stage(run, work)
        damage(tmp_path / "stages/01-a")
        assert run.done("01-a") is None
        done = _stage(run, work)
        assert work.runs == 2
        assert run.done("01-a") == done
        assert (tmp_path / "stages/01-a/out.txt").read_text() == "made"


def test_what_a_stage_lost_is_named_to_its_work_unless_its_premises_changed_too(
    tmp_path: Path,
) -> None:
    named: list[str | None] = []

    def work(folder: Work) -> dict[str, Any]:
        named.append(folder.lost)
        folder.write("out.txt", "made")
        return {}

    with RunDir(tmp_path) as run:
        _stage(run, work)
        _lose(tmp_path / "stages/01-a")
        _stage(run, work)
        _flip(tmp_path / "stages/01-a")
        _stage(run, work)
        _lose(tmp_path / "stages/01-a")
        _stage(run, work, version=2)
    assert named == [None, "out.txt", "out.txt", None]


def test_a_large_output_is_checked_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgedistill.files.WHOLE_HASH_BYTES", 3)
    work = Counting()
    with RunDir(tmp_path) as run:
        _stage(run, work)
        out = tmp_path / "stages/01-a/out.txt"
        out.write_text("mode")
        assert run.done("01-a") is not None
        out.write_text("modes")
        assert run.done("01-a") is None


class Broken(RuntimeError):
    pass


def _breaks(work: Work) -> Facts:
    work.write("half.txt", "half")
    (work.folder / ".torn.1.tmp").touch()
    raise Broken


def test_what_a_broken_try_left_is_kept_for_the_same_fingerprint(tmp_path: Path) -> None:
    with RunDir(tmp_path) as run:
        with pytest.raises(Broken):
            _stage(run, _breaks)
        assert run.done("01-a") is None

        def again(work: Work) -> Facts:
            return {"files": sorted(p.name for p in work.folder.iterdir())}

        done = _stage(run, again)
    assert "half.txt" in done.facts["files"]
    assert ".torn.1.tmp" not in done.facts["files"]
    assert (tmp_path / "stages/01-a/half.txt").read_text() == "half"
    assert not (tmp_path / "stages/01-a.partial").exists()


def test_what_a_broken_try_left_is_wiped_for_another_fingerprint(tmp_path: Path) -> None:
    with RunDir(tmp_path) as run:
        with pytest.raises(Broken):
            _stage(run, _breaks)
        done = _stage(run, lambda work: {"half": work.has("half.txt")}, key={"x": 2})
        assert done.facts == {"half": False}
        with pytest.raises(Broken):
            _stage(run, _breaks, name="02-b")
        (tmp_path / "stages/02-b.partial/fingerprint").write_bytes(b"\xff\x00")
        done = _stage(run, lambda work: {"half": work.has("half.txt")}, name="02-b")
        assert done.facts == {"half": False}


def test_a_broken_stage_keeps_the_finished_one_until_the_new_one_is_whole(tmp_path: Path) -> None:
    with RunDir(tmp_path) as run:
        _stage(run, Counting("first"))
        with pytest.raises(Broken):
            _stage(run, _breaks, key={"x": 2})
        assert (tmp_path / "stages/01-a/out.txt").read_text() == "first"
        assert _stage(run, Counting("never")).facts == {"runs": 1}
        assert (tmp_path / "stages/01-a/out.txt").read_text() == "first"


def test_seconds_add_up_over_the_tries_of_a_stage(tmp_path: Path) -> None:
    def slow(work: Work) -> Facts:
        time.sleep(0.2)
        if not work.has("second"):
            work.path("second").touch()
            raise Broken
        return {}

    with RunDir(tmp_path) as run:
        with pytest.raises(Broken):
            _stage(run, slow)
        done = _stage(run, slow)
        assert 0.4 <= done.seconds < 5
        assert run.done("01-a") == done
        assert _stage(run, slow).seconds == done.seconds


# -- kill -9 -------------------------------------------------------------------------------------

SCRIPT = """
import sys, time
from pathlib import Path
from edgedistill.rundir import RunDir
folder, slow = Path(sys.argv[1]), sys.argv[2] == "slow"

def before(work):
    work.write("a.txt", "a")
    return {}

def middle(work):
    steps = [n for n in range(3) if not work.has(f"{n}.txt")]
    for n in steps:
        time.sleep(0.1)
        work.write(f"{n}.txt", str(n) * 10)
        if n == 1 and slow:
            work.folder.joinpath(".2.txt.77.tmp").write_text("hal")
            print("now", flush=True)
            time.sleep(60)
    return {"steps": steps}

with RunDir(folder) as run:
    run.event("began")
    first = run.stage("01-before", 1, {}, [], before)
    second = run.stage("02-middle", 1, {}, [first], middle)
    print(first.fresh, second.fresh, second.facts["steps"], round(second.seconds, 3))
"""


def test_after_kill_9_in_the_middle_of_a_stage_the_same_command_goes_on(tmp_path: Path) -> None:
    call = [sys.executable, "-c", SCRIPT, str(tmp_path / "run")]
    with subprocess.Popen([*call, "slow"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    again = subprocess.run([*call, "fast"], capture_output=True, text=True, check=True)
    found = re.fullmatch(r"False True \[2\] (\d+\.\d+)\n", again.stdout)
    assert found, again.stdout
    assert float(found[1]) >= 0.3
    names = [n for n in _tree(tmp_path / "run/stages/02-middle") if n.endswith((".txt", ".tmp"))]
    assert names == ["0.txt", "1.txt", "2.txt"]
    assert [e["event"] for e in events(tmp_path / "run")].count("began") == 2
    third = subprocess.run([*call, "fast"], capture_output=True, text=True, check=True)
    assert third.stdout.startswith("False False")


def test_a_run_says_which_packages_and_python_it_used() -> None:
    assert versions()["numpy"]
    assert rundir.python_version() == ".".join(map(str, sys.version_info[:3]))
    commit = rundir.git_commit()
    assert commit is None or re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?|v?\d.*", commit)


# -- a folder that many builds share ---------------------------------------------------------------


def test_builds_that_share_a_folder_keep_their_stages_apart_and_find_each_others(
    tmp_path: Path,
) -> None:
    with RunDir(tmp_path / "study", shared=True) as run:
        run.event("study_started")
        one = run.stage("08-plain", 1, {"lr": 1}, [], lambda _: {"lr": 1})
        two = run.stage("08-plain", 1, {"lr": 2}, [], lambda _: {"lr": 2})
        again = run.stage("08-plain", 1, {"lr": 1}, [], lambda _: {"lr": 3})
    assert (one.facts, two.facts, again.facts) == ({"lr": 1}, {"lr": 2}, {"lr": 1})
    assert one.fresh
    assert not again.fresh
    assert one.folder.name == f"08-plain-{one.fingerprint[:12]}"
    assert sorted(p.name for p in (tmp_path / "study").iterdir() if p.name != ".locks") == [
        "events.jsonl", "shared",
    ]  # fmt: skip


def test_who_only_looks_finds_what_is_done_and_makes_nothing(tmp_path: Path) -> None:
    with RunDir(tmp_path / "study", shared=True) as run:
        run.event("study_started")
        done = run.stage("01-data", 1, {}, [], lambda _: {})
        run.looking = True
        assert run.stage("01-data", 1, {}, [], lambda _: {}) == done
        with pytest.raises(NotDone, match="01-data"):
            run.stage("01-data", 2, {}, [], lambda _: {})
        assert len(list(run.stages.iterdir())) == 1


def test_a_run_and_a_study_do_not_share_a_folder(tmp_path: Path) -> None:
    for shared, kind, other in ((False, "build", "study"), (True, "study", "build")):
        folder = tmp_path / kind
        with RunDir(folder, shared=shared) as run:
            run.event("started")
            run.stage("01-data", 1, {}, [], lambda _: {})
        with (
            pytest.raises(UsageError, match=f"the folder of a {kind}; give the {other} one of its"),
            RunDir(folder, shared=not shared),
        ):
            pass
        with RunDir(folder, shared=shared):
            pass
