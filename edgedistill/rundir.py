"""Where results live: a run folder with locked access, stages with fingerprints, and an event log.

A stage works in `stages/<NN-name>.partial/` and is renamed to `stages/<NN-name>/` when `done.json` is in it, so a
stage folder exists if and only if the stage is done. Files inside are written aside, synced and renamed. Killing the
process at any moment therefore loses at most the step in hand; the same command finds what is done by fingerprint.

A study's folder is `shared` by many builds: its stages lie in `shared/<NN-name>-<fingerprint>/`, so that each build
finds what another has left.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from edgedistill import crew
from edgedistill.errors import BusyError, StoppedError, UsageError
from edgedistill.files import is_disk_full, remove, replace_folder, sha256_file, stamp, write_atomic
from edgedistill.provenance import (
    PACKAGES,
    git_commit,
    made_utc,
    now_utc,
    python_version,
    versions,
)
from edgedistill.recipe import hash_of

OWN = (
    "stages", "cache", "logs", "bundle", "evalset", "recipe.yaml", "result.json", "report.html",
    "report.md", "model_card.md", "attempts.json",
)  # fmt: skip
"""What a build writes into its run folder beside the lock and the log; `--fresh` removes nothing else."""
STAGES, SHARED = "stages", "shared"
"""Where the stages of a run lie, and where those of a study."""


@dataclass(frozen=True)
class Done:
    """A finished stage: its folder, fingerprint, the facts it left and the seconds it took (all tries)."""

    name: str
    folder: Path
    fingerprint: str
    facts: Mapping[str, Any]
    seconds: float
    fresh: bool = field(compare=False, default=False)


@dataclass(frozen=True)
class Work:
    """What a stage's function gets: its working folder, which may hold the files of a broken try.

    `saved` is called after each file that `write` finished, so that the seconds spent survive a kill. `lost`: the file
    for which a finished stage is done again, as it is not there or no longer as it was written.
    """

    folder: Path
    saved: Callable[[], None] | None = field(default=None, compare=False)
    lost: str | None = field(default=None, compare=False)

    def path(self, name: str) -> Path:
        """A path inside the working folder."""
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether an earlier, broken try finished this file."""
        return (self.folder / name).exists()

    def write(self, name: str, data: bytes | str) -> Path:
        """Write a file of the stage whole or not at all; of several processes, the one that leads does."""
        path = self.folder / name
        if not crew.leads():
            return path
        write_atomic(path, data)
        if self.saved is not None:
            self.saved()
        return path


class NotDone(Exception):
    """A stage that is not done, in a run folder that is only looked at."""


class RunDir:
    """A run folder that this process alone works in; `with RunDir(path) as run: ...`.

    `shared`: many builds use it, and a stage's folder carries its fingerprint. While `looking` is true nothing is made:
    a stage that is not done raises `NotDone`.
    """

    def __init__(self, path: Path, shared: bool = False) -> None:
        self.path, self.shared, self.looking = path, shared, False
        self.stages = path / (SHARED if shared else STAGES)
        self._lock = FileLock(str(path / ".lock"))

    def __enter__(self) -> RunDir:
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path} is a file; give a folder (it need not exist)")
        if self._foreign():
            if (self.path / (STAGES if self.shared else SHARED)).is_dir():
                here, wanted = ("build", "study") if self.shared else ("study", "build")
                raise UsageError(
                    f"--out {self.path} is the folder of a {here}; give the {wanted} one of its own"
                )
            raise UsageError(
                f"--out {self.path} holds files that are not those of a {'study' if self.shared else 'run'}; "
                "give an empty or a new folder, so that nothing of yours is overwritten"
            )
        if not crew.leads():
            crew.told("entered")
            return self
        self.stages.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise BusyError(
                f"another edgedistill is at work in {self.path}. Wait until it ends, stop it, "
                "or give another folder with --out."
            ) from None
        crew.told("entered")
        return self

    def _foreign(self) -> bool:
        """Whether the folder is somebody else's: not empty, and without the marks that a build leaves."""
        names = {item.name for item in self.path.iterdir()} if self.path.is_dir() else set()
        if not names - {".lock"}:
            return False
        if not (self.stages.is_dir() and not self.stages.is_symlink()):
            return True
        begun = names <= {self.stages.name, ".lock"} and not any(self.stages.iterdir())
        return not begun and "events.jsonl" not in names

    def __exit__(self, *_: object) -> None:
        if crew.leads():
            self._lock.release()

    def event(self, kind: str, **facts: Any) -> None:
        """Append one line to `events.jsonl`; a line cut short by a kill is closed first."""
        path = self.path / "events.jsonl"
        line = json.dumps({"time_utc": now_utc(), "event": kind, **facts}) + "\n"
        if not crew.leads():
            return
        with path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = "\n" + line
            file.write(line.encode())

    def clear(self) -> None:
        """Forget every stage and result (`--fresh`); the lock, the log and whatever is not ours stay."""
        for name in OWN:
            remove(self.path / name)
        self.stages.mkdir()

    def done(self, name: str) -> Done | None:
        """The finished stage `name` whatever its fingerprint, or `None` when it is not whole."""
        found, lost = self._look(name)
        return found if lost is None else None

    def _look(self, name: str) -> tuple[Done | None, str | None]:
        """The finished stage `name`, and which of its files is no longer as it was written."""
        try:
            folder = self.stages / name
            doc = json.loads((folder / "done.json").read_text("utf-8"))
            found = Done(name, folder, doc["fingerprint"], doc["facts"], doc["seconds"])
            for relative, expected in doc["outputs"].items():
                file = folder / relative
                if not file.is_file() or stamp(file) != expected:
                    return found, str(relative)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None, None
        return found, None

    def stage(
        self,
        name: str,
        version: int,
        key: Mapping[str, Any],
        inputs: Sequence[Done],
        work: Callable[[Work], Mapping[str, Any]],
        *,
        together: bool = False,
    ) -> Done:
        """Run a stage, or return what an earlier run left when its fingerprint is the same.

        `key` is all that the stage depends on beside `inputs`; `version` is the code version of the stage. `work`
        returns JSON facts and leaves files in its folder. Of several processes the leader does it, or all `together`,
        and the others go on when it is finished. Raises `StoppedError` when the disk is full, `NotDone` while looking.
        """
        fingerprint = hash_of(
            {"stage": name, "version": version, "key": key, "in": [i.fingerprint for i in inputs]}
        )
        if self.shared:
            name = f"{name}-{fingerprint[:12]}"
        old, lost = self._look(name)
        same = old is not None and old.fingerprint == fingerprint
        if crew.told(same and lost is None):
            assert old is not None
            return old
        if self.looking:
            raise NotDone(name)
        if not crew.leads():
            return self._follow(name, work if together else None)
        partial = self._partial(name, fingerprint)
        if together:
            crew.told(name)
        self.event("stage_started", stage=name, fingerprint=fingerprint)
        spent = _Stopwatch(partial / "seconds.json")
        try:
            facts = work(Work(partial, spent.save, lost if same else None))
            done = self._finish(name, fingerprint, inputs, partial, facts, spent)
        except BaseException as error:
            with contextlib.suppress(OSError):
                spent.save()
            if is_disk_full(error):
                raise StoppedError(
                    f"the disk of {self.path} is full (stage {name}). What was finished is kept: "
                    "free some space and give the same command again."
                ) from error
            raise
        self.event("stage_done", stage=name, fingerprint=fingerprint, seconds=done.seconds)
        crew.told(name)
        return done

    def _follow(self, name: str, work: Callable[[Work], Mapping[str, Any]] | None) -> Done:
        """What a process that does not lead does of a stage: its part, if it has one, and wait."""
        if work is not None:
            crew.told(name)
            work(Work(self.stages / f"{name}.partial"))
        crew.told(name)
        done = self.done(name)
        assert done is not None, (
            f"{name} is not here: processes on several machines need one shared run folder"
        )
        return done

    def _partial(self, name: str, fingerprint: str) -> Path:
        """The working folder of a stage; that of a broken try with the same fingerprint is kept."""
        partial = self.stages / f"{name}.partial"
        mark = partial / "fingerprint"
        if partial.exists() and not (mark.is_file() and mark.read_bytes() == fingerprint.encode()):
            remove(partial)
        partial.mkdir(exist_ok=True)
        for litter in partial.rglob(".*.tmp"):
            litter.unlink()
        if not mark.exists():
            write_atomic(mark, fingerprint)
        return partial

    def _finish(
        self,
        name: str,
        fingerprint: str,
        inputs: Sequence[Done],
        partial: Path,
        facts: Mapping[str, Any],
        spent: _Stopwatch,
    ) -> Done:
        seconds = spent.total()
        own = {"fingerprint", "seconds.json", "done.json"}
        outputs = {
            str(p.relative_to(partial).as_posix()): stamp(p)
            for p in sorted(partial.rglob("*"))
            if p.is_file() and p.name not in own
        }
        doc = {
            "fingerprint": fingerprint,
            "inputs": {i.name: i.fingerprint for i in inputs},
            "seconds": round(seconds, 3),
            "versions": versions(),
            "outputs": outputs,
            "facts": facts,
        }
        text = json.dumps(doc, indent=1)
        write_atomic(partial / "done.json", text)
        spent.path.unlink(missing_ok=True)
        final = self.stages / name
        remove(final)
        partial.replace(final)
        kept = json.loads(text)
        return Done(name, final, fingerprint, kept["facts"], kept["seconds"], fresh=True)


class _Stopwatch:
    """Seconds of work over all tries of a stage, kept in a small file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start = time.monotonic()
        try:
            self.before = float(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            self.before = 0.0

    def total(self) -> float:
        return self.before + time.monotonic() - self.start

    def save(self) -> None:
        write_atomic(self.path, json.dumps(self.total()))


def events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a run folder, oldest first; a damaged line is passed over."""
    with contextlib.suppress(FileNotFoundError):
        for line in (path / "events.jsonl").read_text("utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event


__all__ = [
    "PACKAGES",
    "Done",
    "NotDone",
    "RunDir",
    "Work",
    "events",
    "git_commit",
    "is_disk_full",
    "made_utc",
    "now_utc",
    "python_version",
    "replace_folder",
    "sha256_file",
    "versions",
    "write_atomic",
]
