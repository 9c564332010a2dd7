"""How the board answers, and what its programs share."""

import contextlib
import json
import os
import stat
import sys
import threading
from typing import Any, Dict, Iterator, List, Optional

MARK = "edgedistill> "
BLOCK = 1 << 16
PREFIX = "edgedistill-"
BEAT_S = 2.0
"""So often a call that is at work says so; a silent one is taken for lost."""
SPARE = 64000000
"""Bytes that a run needs beside the files: documents, and what a runtime writes."""


_ONE_LINE = threading.Lock()


class Fault(Exception):
    """What the workstation has to say to its user: a word for the kind, and facts."""

    def __init__(self, kind: str, **facts: Any) -> None:
        Exception.__init__(self, kind)
        self.facts = dict(facts, fault=kind)


def reply(**facts: Any) -> None:
    """Send one line."""
    with _ONE_LINE:
        sys.stdout.write("\n" + MARK + json.dumps(facts) + "\n")
        sys.stdout.flush()


@contextlib.contextmanager
def beating() -> Iterator[None]:
    """Say now and then that a call is at work: hashing and probing take minutes on a slow board."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_S):
            try:
                reply(works=True)
            except (OSError, ValueError):  # nobody is there any more
                os._exit(0)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def text_of(path: str, limit: int = 65536) -> Optional[str]:
    """The beginning of a file as text, `None` where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace").replace("\0", "").strip() or None
    except OSError:
        return None


def places() -> List[str]:
    """Where a private folder may be made, the best first."""
    wanted = [os.environ.get("TMPDIR") or "/tmp", "/var/tmp", os.path.expanduser("~")]
    return [p for i, p in enumerate(wanted) if os.path.isdir(p) and p not in wanted[:i]]


def free(path: str) -> int:
    """Bytes that this user may still write at a path, or at the nearest folder above it that is there."""
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def environment() -> Dict[str, str]:
    """The environment of the kit: nothing of other Python programs, and the board's own tools on the path."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    more = ["/usr/sbin", "/sbin", "/usr/src/tensorrt/bin"]
    env["PATH"] = os.pathsep.join([env.get("PATH") or os.defpath, *more])
    env["PYTHONIOENCODING"] = "utf-8"
    return env


def private(path: str) -> bool:
    """Whether a folder is this user's own and closed to everybody else: in /tmp anyone may make one of any name."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return own and not stat.S_IMODE(found.st_mode) & 0o077


def found_root(request: Dict[str, Any]) -> Optional[str]:
    """The private folder that an earlier call of this session made: the one that was told, else by its name."""
    if request["folder"] is not None:
        return None
    told = request.get("root")
    if told is not None:
        return str(told) if private(told) else None
    for base in places():
        with contextlib.suppress(OSError):
            for name in os.listdir(base):
                path = os.path.join(base, name)
                if name.startswith(PREFIX + request["token"] + "-") and private(path):
                    return path
    return None


def require_own(root: str) -> None:
    """Raise a fault where somebody else could put files in the place of the bundle's."""
    for path, owners in ((root, (os.getuid(), 0)), (os.path.join(root, "bundle"), (os.getuid(),))):
        try:
            found = os.stat(path)
        except FileNotFoundError:
            continue
        open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        if found.st_uid not in owners or open_to_all:
            reason = "everybody may write to it" if open_to_all else "it belongs to another user"
            raise Fault("write", place=path, reason=reason, number=None)
