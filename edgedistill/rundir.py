"""Where results live: a run folder with locked access, stages with fingerprints, and an event log.

A stage works in `stages/<NN-name>.partial/` and is renamed to `stages/<NN-name>/` when `done.json` is in it, so a
stage folder exists if and only if the stage is done. Files inside are written aside, synced and renamed. Killing the
process at any moment therefore loses at most the step in hand; the same command finds what is done by fingerprint.

A study's folder is `shared` by many builds: its stages lie in `shared/<NN-name>-<fingerprint>/`, so that each build
finds what another has left. Several processes may be at work in it; a stage is made by one of them.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from edgedistill import crew
from edgedistill.errors import BusyError, StoppedError, UsageError
from edgedistill.files import is_disk_full, remove, replace_folder, sha256_file, stamp, write_atomic
from edgedistill.locks import FOLDER as LOCKS
from edgedistill.locks import Locks
from edgedistill.provenance import (
    PACKAGES,
    git_commit,
    made_utc,
    now_utc,
    python_version,
    versions,
)
from edgedistill.recipe import hash_of
from edgedistill.stagework import Done, NotDone, Stopwatch, Work

OWN = (
    "stages", "cache", "logs", "bundle", "evalset", "recipe.yaml", "result.json", "report.html",
    "report.md", "model_card.md", "attempts.json",
)  # fmt: skip
"""What a build writes into its run folder beside the lock and the log; `--fresh` removes nothing else."""
STAGES, SHARED = "stages", "shared"
"""Where the stages of a run lie, and where those of a study."""


class RunDir:
    """A run folder that this process alone works in; `with RunDir(path) as run: ...`.

    `shared`: many builds use it, also of several processes, and a stage's folder carries its fingerprint; `alone` is
    whether no other process was there at the beginning, and `waiting` is told of a stage that another one makes. While
    `looking` is true nothing is made: a stage that is not done raises `NotDone`.
    """

    def __init__(self, path: Path, shared: bool = False) -> None:
        self.path, self.shared, self.looking, self.alone = path, shared, False, True
        self.stages = path / (SHARED if shared else STAGES)
        self.locks = Locks(path)
        self.waiting: Callable[[str], None] = lambda _: None
        self._inside = contextlib.ExitStack()

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
        if self.shared:
            self.alone = self._inside.enter_context(self.locks.joined())
        else:
            lock = FileLock(str(self.path / ".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise BusyError(
                    f"another edgedistill is at work in {self.path}. Wait until it ends, stop it, "
                    "or give another folder with --out."
                ) from None
            self._inside.callback(lock.release)
        crew.told("entered")
        return self

    def _foreign(self) -> bool:
        """Whether the folder is somebody else's: not empty, and without the marks that a build leaves."""
        names = {item.name for item in self.path.iterdir()} if self.path.is_dir() else set()
        if not names - {".lock", LOCKS}:
            return False
        if not (self.stages.is_dir() and not self.stages.is_symlink()):
            return True
        begun = names <= {self.stages.name, ".lock", LOCKS} and not any(self.stages.iterdir())
        return not begun and "events.jsonl" not in names

    def __exit__(self, *_: object) -> None:
        self._inside.close()

    def holding(self, name: str) -> contextlib.AbstractContextManager[None]:
        """While `name`, which several stages write, is this process' alone; a run of its own is that anyway."""
        if not (self.shared and crew.leads()):
            return contextlib.nullcontext()
        return self.locks.holding(name, lambda: self.waiting(name))

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
        with contextlib.ExitStack() as held:
            old, lost = self._look(name)
            if self.shared and (old is None or lost) and not self.looking and crew.leads():
                held.enter_context(self.locks.holding(f"stages/{name}", lambda: self.waiting(name)))
                old, lost = self._look(name)
            same = old is not None and old.fingerprint == fingerprint
            if crew.told(same and lost is None):
                assert old is not None
                return old
            if self.looking:
                raise NotDone(name)
            if not crew.leads():
                return self._follow(name, work if together else None)
            return self._make(name, fingerprint, inputs, work, together, lost if same else None)

    def _make(
        self,
        name: str,
        fingerprint: str,
        inputs: Sequence[Done],
        work: Callable[[Work], Mapping[str, Any]],
        together: bool,
        lost: str | None,
    ) -> Done:
        partial = self._partial(name, fingerprint)
        if together:
            crew.told(name)
        self.event("stage_started", stage=name, fingerprint=fingerprint)
        spent = Stopwatch(partial / "seconds.json")
        try:
            facts = work(Work(partial, spent.save, lost))
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
        spent: Stopwatch,
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
