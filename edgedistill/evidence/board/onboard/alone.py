"""One at a time: what copies or measures on a board holds a lock of its user, as two would time each other's noise."""

import contextlib
import fcntl
import os
import signal
import time
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

from edgedistill.evidence.board.onboard.talk import Fault, places, reply

PAUSE_S = 0.2
PATIENCE_S = 1.0
"""What is over by then is no other job: a process that is just ending."""


def hold(
    request: Dict[str, Any], who: str, wait_s: float, busy: Callable[[], None]
) -> Optional[int]:
    """The board's lock, held as long as the descriptor is open anywhere; `None` where no place takes the file.

    `who` is the pid of a call, which a later call of the same session may end, or `run`. `busy` is called now and then
    while another holds it. Raises `Fault` after `wait_s`.
    """
    begun = time.monotonic()
    while True:
        found = opened()
        if found is None:
            return None
        path, lock = found
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            end_own(os.pread(lock, 200, 0), request["token"])
            os.close(lock)
            waited = time.monotonic() - begun
            if waited > wait_s:
                raise Fault("busy", seconds=wait_s) from None
            if waited > PATIENCE_S:
                busy()
            time.sleep(PAUSE_S)
            continue
        if at(path) == identity(os.fstat(lock)):
            os.ftruncate(lock, 0)
            os.pwrite(lock, (request["token"] + " " + who).encode(), 0)
            return lock
        os.close(lock)  # the one who had it took the file away


def opened() -> Optional[Tuple[str, int]]:
    """The lock's file in the first place that lets this user have it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    for path in files():
        try:
            lock = os.open(path, flags, 0o600)
        except OSError:
            continue
        if os.fstat(lock).st_uid == os.getuid():
            return path, lock
        os.close(lock)
    return None


def end_own(text: bytes, token: str) -> None:
    """End an earlier call of this session, whose connection was lost and which has not noticed."""
    words = text.decode("utf-8", "replace").split()
    if len(words) == 2 and words[0] == token and words[1].isdigit():
        with contextlib.suppress(OSError):
            os.kill(int(words[1]), signal.SIGTERM)


def release(lock: Optional[int]) -> None:
    """Let go, and leave no file."""
    if lock is None:
        return
    for path in files():
        if at(path) == identity(os.fstat(lock)):
            with contextlib.suppress(OSError):
                os.unlink(path)
    os.close(lock)


@contextlib.contextmanager
def alone(request: Dict[str, Any]) -> Iterator[None]:
    """Hold the lock during a call; while another has it, that is told."""
    lock = hold(request, str(os.getpid()), request["wait_s"], lambda: reply(busy=True))
    try:
        yield
    finally:
        release(lock)


def sweep(request: Dict[str, Any]) -> None:
    """End a call of this session that still goes on, and take the lock's file away where nobody has it."""
    with contextlib.suppress(Fault):
        release(hold(request, str(os.getpid()), PATIENCE_S, lambda: None))


def files() -> Iterator[str]:
    """Where the lock's file may be, the best first."""
    for base in places():
        yield os.path.join(base, ".edgedistill-" + str(os.getuid()) + ".lock")


def identity(found: os.stat_result) -> Tuple[int, int]:
    """What tells a file apart from a later one of its name."""
    return found.st_dev, found.st_ino


def at(path: str) -> Optional[Tuple[int, int]]:
    """The identity of what is at a path."""
    try:
        return identity(os.lstat(path))
    except OSError:
        return None
