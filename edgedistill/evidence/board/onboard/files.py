"""What the board has, and the bundle's files: looked at, compared by hash, taken in."""

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from typing import IO, Any, Dict, List, Optional, Tuple

from edgedistill.evidence.board.onboard.talk import (
    BEAT_S,
    BLOCK,
    PREFIX,
    SPARE,
    Fault,
    environment,
    found_root,
    free,
    places,
    reply,
    require_own,
    text_of,
)

PART = ".part"
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
        "power_mode": power_mode(),
        "trtexec": shutil.which("trtexec", path=environment()["PATH"]),
    }
    reply(tried=tried, machine=machine)


def power_mode() -> Optional[str]:
    """The Jetson's power mode by name, as the kit reads it; a profile holds for one."""
    path = environment()["PATH"]
    program = shutil.which("nvpmodel", path=path)
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-q"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            timeout=10, env=environment(), check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"NV Power Mode\s*:\s*(.+)", done.stdout.decode("utf-8", "replace"))
    return found.group(1).strip() if found else None


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
    """Find or make the folder, and say which files are not yet in it as they should be, and what is there of each."""
    root = found_root(request) or made_root(request)
    missing = [
        (i, *part_of(place(root, name) + PART, size))
        for i, (name, size, digest) in enumerate(request["files"])
        if not same(place(root, name), size, digest)
    ]
    room, need = free(root), sum(request["files"][i][1] - at for i, at, _ in missing) + SPARE
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
            require_own(root)
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
        with open(path, "rb") as file:
            return str(hashed(file).hexdigest()) == digest
    except OSError:
        return False


def part_of(path: str, size: int) -> Tuple[int, Optional[str]]:
    """How much of a file an earlier call took in, and the sha256 of that."""
    try:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode) or not 0 < found.st_size <= size:
            return 0, None
        with open(path, "rb") as file:
            digest = hashed(file).hexdigest()
            return file.tell(), digest
    except OSError:
        return 0, None


def hashed(file: IO[bytes]) -> Any:
    """The sha256 of a file from here to its end."""
    found = hashlib.sha256()
    for block in iter(lambda: file.read(BLOCK), b""):
        found.update(block)
    return found


def put(request: Dict[str, Any]) -> None:
    """Take files in, each whole or not at all; of one that is cut off, what came is kept for the next call."""
    require_own(request["root"])
    for name, size, digest, begun in request["files"]:
        path = place(request["root"], name)
        aside = path + PART
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with os.fdopen(opened(aside, begun), "r+b") as file:
                whole = take(file, size - begun) == digest
            if not whole:
                os.unlink(aside)
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
    reply(done=True)


def opened(aside: str, begun: int) -> int:
    """The part of a file with as much in it as is kept."""
    if begun:
        handle = os.open(aside, os.O_RDWR | os.O_NOFOLLOW)
        os.ftruncate(handle, begun)
        return handle
    with contextlib.suppress(FileNotFoundError):
        os.unlink(aside)
    return os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)


def take(file: IO[bytes], left: int) -> str:
    """Copy so many bytes from stdin behind what is there; the sha256 of all. Ends the program where the connection
    did.
    """
    stdin = sys.stdin.buffer  # type: Any
    found, stored, told = hashed(file), 0, time.monotonic()
    file.seek(0, os.SEEK_END)
    while left:
        block = stdin.read1(min(BLOCK, left))
        if not block:
            sys.exit(0)
        found.update(block)
        file.write(block)
        file.flush()
        left -= len(block)
        stored += len(block)
        if not left or time.monotonic() - told > BEAT_S:
            reply(stored=stored)
            stored, told = 0, time.monotonic()
    return str(found.hexdigest())
