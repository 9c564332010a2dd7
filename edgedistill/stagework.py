"""What a stage of a run gets, and what it leaves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedistill import crew
from edgedistill.files import write_atomic


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


class Stopwatch:
    """Seconds of work over all tries of a stage, kept in a small file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start = time.monotonic()
        try:
            self.before = float(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            self.before = 0.0

    def total(self) -> float:
        """Seconds until now."""
        return self.before + time.monotonic() - self.start

    def save(self) -> None:
        """Keep what was spent, for the next try."""
        write_atomic(self.path, json.dumps(self.total()))
