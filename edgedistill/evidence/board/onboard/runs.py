"""A run of the kit apart from the connection: started, followed, fetched, ended and cleared away."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from typing import Any, Dict

from edgedistill.evidence.board.onboard.alone import hold, release, sweep
from edgedistill.evidence.board.onboard.talk import (
    BEAT_S,
    BLOCK,
    Fault,
    environment,
    found_root,
    reply,
    require_own,
    text_of,
)

MOST_WORDS = 4000000


def start(request: Dict[str, Any]) -> None:
    """Start the kit apart from this connection; asked twice, it starts once."""
    require_own(request["root"])
    run = os.path.join(request["root"], "run-" + request["run"])
    try:
        os.mkdir(run, 0o700)
    except FileExistsError:
        reply(run=run)
        return
    except OSError as error:
        raise Fault(
            "write", place=run, reason=error.strerror or str(error), number=error.errno
        ) from None
    ready, told = os.pipe()
    if os.fork():
        os.close(told)
        os.read(ready, 1)
        reply(run=run)
        return
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    lock = os.open(os.path.join(run, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    put_text(os.path.join(run, "pid"), str(os.getpid()))
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    os.close(told)
    os.close(ready)
    status = {"fault": "the watcher of the run ended before it"}  # type: Dict[str, Any]
    try:
        status = watch(request, run, lock)
    except Fault as fault:
        status = fault.facts
    except BaseException as error:
        status = {"fault": str(error)[:500]}
    finally:
        put_text(os.path.join(run, "status"), json.dumps(status))
        os._exit(0)


def watch(request: Dict[str, Any], run: str, lock: int) -> Dict[str, Any]:
    """Run the kit to its end, when no other job is at work here; what it says on its terminal goes to `words`."""
    waits = os.path.join(run, "waits")
    alone = hold(request, "run", request["wait_s"], lambda: put_text(waits, ""))
    with contextlib.suppress(OSError):
        os.unlink(waits)
    master, slave = os.openpty()  # a terminal, since the kit tells its progress to nothing else
    document = os.path.join(run, "kit.json")
    command = [request["python"], "ontarget.pyz", *request["arguments"], "--json", document, "."]
    begun = time.monotonic()  # a board without a clock sets it when it finds the network
    with open(os.path.join(run, "out"), "wb") as out:
        kit = subprocess.Popen(
            command, cwd=os.path.join(request["root"], "bundle"), env=environment(),
            pass_fds=[lock] if alone is None else [lock, alone],
            stdin=subprocess.DEVNULL, stdout=out, stderr=slave,
        )  # fmt: skip
    os.close(slave)
    written = 0
    with open(os.path.join(run, "words"), "ab", buffering=0) as words:
        while True:
            ended = kit.poll() is not None
            if select.select([master], [], [], 0.0 if ended else 0.2)[0]:
                try:
                    block = os.read(master, BLOCK)
                except OSError:  # the terminal is closed with the last process that had it
                    block = b""
                if block and written < MOST_WORDS:
                    written += words.write(block) or 0
                if block:
                    continue
                time.sleep(0.05)
            if ended:
                release(alone)
                return {"code": kit.returncode, "seconds": time.monotonic() - begun}
            if time.monotonic() - begun > request["limit_s"]:
                put_text(
                    os.path.join(run, "status"),
                    json.dumps({"code": None, "seconds": request["limit_s"]}),
                )
                os.killpg(0, signal.SIGKILL)


def follow(request: Dict[str, Any]) -> None:
    """Tell what a run says from a place on, until it has ended."""
    run, offset, told = request["run"], request["offset"], time.monotonic()
    while True:
        if not os.path.isdir(run):
            reply(status={"code": None, "gone": True})
            return
        lives = alive(run)
        status = text_of(os.path.join(run, "status"))
        with contextlib.suppress(OSError), open(os.path.join(run, "words"), "rb") as file:
            file.seek(offset)
            block = file.read(BLOCK)
            if block:
                offset += len(block)
                told = time.monotonic()
                reply(words=block.decode("utf-8", "replace"), offset=offset)
                continue
        if status is not None or not lives:
            status = status or text_of(os.path.join(run, "status"))
            out = (text_of(os.path.join(run, "out"), MOST_WORDS) or "")[-1500:]
            reply(status=json.loads(status) if status else {"code": None, "lost": True}, out=out)
            return
        if time.monotonic() - told > BEAT_S:
            told = time.monotonic()
            reply(beat=True, busy=os.path.exists(os.path.join(run, "waits")))
        time.sleep(0.1)


def fetch(request: Dict[str, Any]) -> None:
    """Send the kit document of a run, from a place on."""
    path = os.path.join(request["run"], "kit.json")
    try:
        size = os.path.getsize(path)
        if size > request["most"]:
            raise Fault("large", size=size)
        with open(path, "rb") as file:
            file.seek(request["offset"])
            for block in iter(lambda: file.read(3 * BLOCK), b""):
                reply(data=base64.b64encode(block).decode("ascii"))
    except FileNotFoundError:
        reply(none=True)
        return
    reply(done=True, size=size)


def clean(request: Dict[str, Any]) -> None:
    """End every run of this session, and remove its folder; of an own folder only what the runs left."""
    folder = request["folder"]
    root = found_root(request) if folder is None else os.path.expanduser(folder)
    runs = [os.path.join(root, "run-" + run) for run in request["runs"]] if root is not None else []
    for run in runs:
        end(run)
    sweep(request)
    gone = runs if folder is not None else [root] if root is not None else []
    for path in gone:
        shutil.rmtree(path, ignore_errors=True)
    left = [path for path in gone if os.path.lexists(path)]
    reply(done=True, left=left[0] if left else None)


def alive(run: str) -> bool:
    """Whether a process of a run lives: the watcher and the kit hold its lock."""
    try:
        lock = os.open(os.path.join(run, "lock"), os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(lock)


def end(run: str) -> None:
    """End the processes of a run, asked first."""
    pid = text_of(os.path.join(run, "pid")) or ""
    for kind, wait_s in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
        if not pid.isdigit() or not alive(run):
            return
        with contextlib.suppress(OSError):
            os.killpg(int(pid), kind)
        until = time.monotonic() + wait_s
        while alive(run) and time.monotonic() < until:
            time.sleep(0.05)


def put_text(path: str, text: str) -> None:
    """Write a small file whole or not at all."""
    with open(path + ".part", "w") as file:
        file.write(text)
    os.replace(path + ".part", path)
