"""Several processes at work in one folder: who is there, who makes what, and nobody waits for the dead.

Locks are the operating system's: each ends with the process that holds it, however that ends. Processes on several
machines need a file system whose locks hold between machines (NFS 4 and Lustre, for example).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from edgedistill.errors import BusyError

FOLDER = ".locks"
DOOR_S, POLL_S = 30.0, 0.2
"""How long a process waits to be let in, which takes others a moment, and how often it looks again."""


class Locks:
    """The locks of a folder that several processes share; `with locks.joined() as alone: ...`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER

    @contextlib.contextmanager
    def joined(self) -> Iterator[bool]:
        """Be at work in the folder; whether nobody else was when this process came."""
        place = self.folder / "members"
        place.mkdir(parents=True, exist_ok=True)
        host = "".join(c for c in socket.gethostname() if c.isalnum() or c in "-_")[:60]
        own = FileLock(str(place / f"{host}-{os.getpid()}-{time.monotonic_ns()}.lock"))
        with self._door():
            alone = not [path for path in place.glob("*.lock") if not _ended(path)]
            own.acquire(timeout=0)
        try:
            yield alone
        finally:
            own.release()
            Path(own.lock_file).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _door(self) -> Iterator[None]:
        try:
            with FileLock(str(self.folder / "door.lock"), timeout=DOOR_S):
                yield
        except Timeout:
            raise BusyError(
                f"{self.folder.parent} lets nobody in: another edgedistill holds {self.folder / 'door.lock'}. "
                "Stop it, and give the same command again."
            ) from None

    @contextlib.contextmanager
    def holding(self, name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Make `name` while no other process makes it; `waiting` is called once where another one does."""
        lock = self._lock(name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire(poll_interval=POLL_S)
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def claimed(self, name: str) -> Iterator[bool]:
        """Whether `name` is this process' to make; it is until the end of the block."""
        lock = self._lock(name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _lock(self, name: str) -> FileLock:
        path = self.folder / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(str(path))


def _ended(path: Path) -> bool:
    """Whether the process of a member's file is no longer there; its file is removed."""
    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    path.unlink(missing_ok=True)
    return True
