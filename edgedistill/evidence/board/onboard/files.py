"""What the board has, and the bundle's files: looked at, compared by hash, taken in."""

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from typing import IO, Any, Dict, List

from edgedistill.evidence.board.onboard.talk import (
    BLOCK,
    PREFIX,
    SPARE,
    Fault,
    environment,
    found_root,
    free,
    places,
    reply,
    text_of,
)

PROBE = """
import json, sys
out = {"version": list(sys.version_info[:3]), "error": {}}
for name in sys.argv[1:]:
    out[name] = None
    try:
        out[name] = str(__import__(name).__version__)
    except Exception as error:
        if not isinstance(error, ImportError) or getattr(error, "name", None) != name:
            out["error"][name] = str(error)[:300]
print("\\n" + json.dumps(out))
"""


def look(request: Dict[str, Any]) -> None:
    """What the board is and has: the first interpreter with all that is needed, or all that were tried."""
    tried = []
    for path in interpreters():
        found = probe(path, request["needs"])
        tried.append(found)
        version = found["version"]
        if version and version >= [3, 8] and all(found.get(n) for n in request["needs"]):
            break
    memory = [s for s in (text_of("/proc/meminfo") or "").splitlines() if s.startswith("MemTotal:")]
    machine = {
        "board": text_of("/proc/device-tree/model"),
        "arch": platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": int(memory[0].split()[1]) * 1024 if memory else None,
        "os": platform.platform(),
        "trtexec": shutil.which("trtexec", path=environment()["PATH"]),
    }
    reply(tried=tried, machine=machine)


def interpreters() -> List[str]:
    """Every Python that may run the kit: its own environment first, then python3 and its versions."""
    own = os.path.join(os.path.expanduser("~"), ".ontarget", "bin", "python3")
    named = [shutil.which("python3." + str(minor)) for minor in range(16, 7, -1)]
    found = [own if os.access(own, os.X_OK) else None, shutil.which("python3"), *named]
    return [p for i, p in enumerate(found) if p is not None and p not in found[:i]]


def probe(path: str, needs: List[str]) -> Dict[str, Any]:
    """Version of an interpreter, and of the packages that are needed: each is imported, which takes its time."""
    try:
        done = subprocess.run(
            [path, "-c", PROBE, *needs], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            timeout=120, cwd="/", env=environment(), check=False,
        )  # fmt: skip
        found = json.loads(done.stdout.decode("utf-8", "replace").strip().splitlines()[-1])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        found = {"version": None, "error": {"python": str(error)[:300]}}
    found["path"] = path
    return dict(found)


def begin(request: Dict[str, Any]) -> None:
    """Find or make the folder, and say which files are not yet in it as they should be."""
    root = found_root(request) or made_root(request)
    missing = [
        i
        for i, (name, size, digest) in enumerate(request["files"])
        if not same(place(root, name), size, digest)
    ]
    room, need = free(root), sum(request["files"][i][1] for i in missing) + SPARE
    if room < need:
        raise Fault("space", place=root, free=room, need=need)
    reply(root=root, missing=missing)


def made_root(request: Dict[str, Any]) -> str:
    """A private folder with enough room, or the user's own one."""
    need = sum(size for _, size, _ in request["files"]) + SPARE
    if request["folder"] is not None:
        root = str(os.path.expanduser(request["folder"]))
        try:
            os.makedirs(os.path.join(root, "bundle"), mode=0o700, exist_ok=True)
            if os.stat(root).st_uid not in (os.getuid(), 0):
                raise OSError(errno.EPERM, "it belongs to another user")
            with tempfile.TemporaryFile(dir=root):
                pass
        except OSError as error:
            raise Fault(
                "write", place=root, reason=error.strerror or str(error), number=error.errno
            ) from None
        return root
    full, barred = [], []
    for base in places():
        if free(base) < need:
            full.append([base, free(base)])
            continue
        try:
            root = tempfile.mkdtemp(prefix=PREFIX + request["token"] + "-", dir=base)
            os.mkdir(os.path.join(root, "bundle"))
            return root
        except OSError as error:
            barred.append([base, error.strerror or str(error), error.errno])
    if full:
        raise Fault("space", place=full[0][0], free=full[0][1], need=need)
    raise Fault("write", place=barred[0][0], reason=barred[0][1], number=barred[0][2])


def place(root: str, name: str) -> str:
    """Where a file of the bundle lies. The name was checked where it was sent; it is checked again."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise Fault("protocol", reason="a file name that leaves the folder")
    return os.path.join(root, "bundle", *parts)


def same(path: str, size: int, digest: str) -> bool:
    """Whether a file is there with these bytes."""
    try:
        if os.path.islink(path) or os.path.getsize(path) != size:
            return False
        found = hashlib.sha256()
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(BLOCK), b""):
                found.update(block)
        return found.hexdigest() == digest
    except OSError:
        return False


def put(request: Dict[str, Any]) -> None:
    """Take files in, each whole or not at all."""
    for name, size, digest in request["files"]:
        path = place(request["root"], name)
        aside = path + ".part"
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                if take(file, size) != digest:
                    raise Fault("protocol", reason="a file that did not arrive as it was sent")
            os.replace(aside, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise Fault(
                    "space", place=request["root"], free=free(request["root"]), need=size
                ) from None
            raise Fault(
                "write",
                place=request["root"],
                reason=error.strerror or str(error),
                number=error.errno,
            ) from None
        reply(stored=size)
    reply(done=True)


def take(file: IO[bytes], size: int) -> str:
    """Copy so many bytes from stdin; their sha256. Ends the program where the connection did."""
    found, left = hashlib.sha256(), size
    while left:
        block = sys.stdin.buffer.read(min(BLOCK, left))
        if not block:
            sys.exit(0)
        found.update(block)
        file.write(block)
        left -= len(block)
    return found.hexdigest()
