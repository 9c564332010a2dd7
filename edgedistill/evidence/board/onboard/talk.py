"""How the board answers, and what its programs share."""

import json
import os
import sys
from typing import Any, Dict, List, Optional

MARK = "edgedistill> "
BLOCK = 1 << 16
PREFIX = "edgedistill-"
SPARE = 64000000
"""Bytes that a run needs beside the files: documents, and what a runtime writes."""


class Fault(Exception):
    """What the workstation has to say to its user: a word for the kind, and facts."""

    def __init__(self, kind: str, **facts: Any) -> None:
        Exception.__init__(self, kind)
        self.facts = dict(facts, fault=kind)


def reply(**facts: Any) -> None:
    """Send one line."""
    sys.stdout.write("\n" + MARK + json.dumps(facts) + "\n")
    sys.stdout.flush()


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


def found_root(request: Dict[str, Any]) -> Optional[str]:
    """The folder that an earlier call of this session made."""
    for base in [] if request["folder"] is not None else places():
        for name in os.listdir(base):
            if name.startswith(PREFIX + request["token"]):
                return os.path.join(base, name)
    return None
