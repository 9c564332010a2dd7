"""Where results live: a run folder with locked access, stages with fingerprints, and an event log.

A stage works in `stages/<NN-name>.partial/` and is renamed to `stages/<NN-name>/` when `done.json` is in it, so a
stage folder exists if and only if the stage is done. Files inside are written aside, synced and renamed. Killing the
process at any moment therefore loses at most the step in hand; the same command finds what is done by fingerprint.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from edgedistill.errors import BusyError, StoppedError, UsageError
from edgedistill.recipe import hash_of

PACKAGES = (
    "torch", "torchvision", "timm", "accelerate", "diffusers", "onnx", "onnxruntime",
    "onnxruntime-gpu", "tensorrt", "numpy", "pillow",
)  # fmt: skip
WHOLE_HASH_BYTES = 64_000_000


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write `data` aside, sync it, and rename it to `path`; a reader sees the old file or the new one."""
    raw = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, is a disk (or a quota) that is full."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def now_utc() -> str:
    """The time now, as `2026-11-22T10:00:00Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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
    """What a stage's function gets: its working folder, which may hold the files of a broken try."""

    folder: Path

    def path(self, name: str) -> Path:
        """A path inside the working folder."""
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether an earlier, broken try finished this file."""
        return (self.folder / name).exists()

    def write(self, name: str, data: bytes | str) -> Path:
        """Write a file of the stage whole or not at all."""
        path = self.folder / name
        write_atomic(path, data)
        return path


class RunDir:
    """A run folder that this process alone works in; `with RunDir(path) as run: ...`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stages = path / "stages"
        self._lock = FileLock(str(path / ".lock"))

    def __enter__(self) -> RunDir:
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path} is a file; give a folder (it need not exist)")
        foreign = self.path.is_dir() and any(self.path.iterdir())
        if foreign and not any(
            (self.path / mark).exists() for mark in ("stages", ".lock", "events.jsonl")
        ):
            raise UsageError(
                f"--out {self.path} holds files that are not those of a run; "
                "give an empty or a new folder, so that nothing of yours is overwritten"
            )
        self.stages.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise BusyError(
                f"another edgedistill is at work in {self.path}. Wait until it ends, stop it, "
                "or give another folder with --out."
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def event(self, kind: str, **facts: Any) -> None:
        """Append one line to `events.jsonl`; a line cut short by a kill is closed first."""
        path = self.path / "events.jsonl"
        line = json.dumps({"time_utc": now_utc(), "event": kind, **facts}) + "\n"
        with path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = "\n" + line
            file.write(line.encode())

    def clear(self) -> None:
        """Forget every stage and result (`--fresh`); the folder and its lock stay."""
        for item in self.path.iterdir():
            if item.name not in (".lock", "events.jsonl"):
                _remove(item)
        self.stages.mkdir()

    def done(self, name: str) -> Done | None:
        """The finished stage `name` whatever its fingerprint, or `None` when it is not whole."""
        folder = self.stages / name
        try:
            doc = json.loads((folder / "done.json").read_text("utf-8"))
            for relative, stamp in doc["outputs"].items():
                if _stamp(folder / relative) != stamp:
                    return None
            return Done(name, folder, doc["fingerprint"], doc["facts"], doc["seconds"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def stage(
        self,
        name: str,
        version: int,
        key: Mapping[str, Any],
        inputs: Sequence[Done],
        work: Callable[[Work], Mapping[str, Any]],
    ) -> Done:
        """Run a stage, or return what an earlier run left when its fingerprint is the same.

        `key` is all that the stage depends on beside `inputs`; `version` is the code version of the stage. `work`
        returns JSON facts and leaves files in its folder. Raises `StoppedError` when the disk is full.
        """
        fingerprint = hash_of(
            {"stage": name, "version": version, "key": key, "in": [i.fingerprint for i in inputs]}
        )
        old = self.done(name)
        if old is not None and old.fingerprint == fingerprint:
            return old
        partial = self._partial(name, fingerprint)
        self.event("stage_started", stage=name, fingerprint=fingerprint)
        spent = _Stopwatch(partial / "seconds.json")
        try:
            facts = work(Work(partial))
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
        return done

    def _partial(self, name: str, fingerprint: str) -> Path:
        """The working folder of a stage; that of a broken try with the same fingerprint is kept."""
        partial = self.stages / f"{name}.partial"
        mark = partial / "fingerprint"
        if partial.exists() and not (mark.is_file() and mark.read_text("utf-8") == fingerprint):
            _remove(partial)
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
            str(p.relative_to(partial).as_posix()): _stamp(p)
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
        write_atomic(partial / "done.json", json.dumps(doc, indent=1))
        final = self.stages / name
        _remove(final)
        partial.replace(final)
        return Done(name, final, fingerprint, doc["facts"], seconds, fresh=True)


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


def _stamp(path: Path) -> list[Any]:
    """Size of a file, and its SHA-256 unless it is large (large files carry their own checks)."""
    size = path.stat().st_size
    return [size, sha256_file(path) if size <= WHOLE_HASH_BYTES else None]


def _remove(path: Path) -> None:
    """Remove a file or a folder by way of a rename, so that it is there whole or not at all."""
    if not path.exists() and not path.is_symlink():
        return
    if path.is_dir() and not path.is_symlink():
        trash = path.with_name(f".trash-{path.name}-{os.getpid()}")
        path.replace(trash)
        shutil.rmtree(trash, ignore_errors=True)
    else:
        path.unlink()


def replace_folder(source: Path, target: Path) -> None:
    """Put the folder `source` in the place of `target`."""
    _remove(target)
    source.replace(target)


def versions() -> dict[str, str]:
    """Versions of the packages that matter for a number, those that are installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def git_commit() -> str | None:
    """Commit of the edgedistill checkout that runs (with `-dirty`), or `None` for an installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def python_version() -> str:
    """Version of the running Python."""
    return platform.python_version()


def events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a run folder, oldest first; a damaged line is passed over."""
    with contextlib.suppress(FileNotFoundError):
        for line in (path / "events.jsonl").read_text("utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event
