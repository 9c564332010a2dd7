"""A login to a board through the system's own OpenSSH client: one for all that follows, host keys checked.

Only constant words stand on a command line, beside the address that the user gave: what runs on a board is the text of
`onboard/`, sent on stdin, and so is every name and path. Where the connection is lost, `Dropped` is raised, and `open`
logs in again.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import IO, Any

from edgedistill.errors import StoppedError, UsageError
from edgedistill.evidence.board.address import Address
from edgedistill.evidence.board.onboard.talk import MARK
from edgedistill.evidence.board.sshwords import explained

CONNECT_S = 10
CONFIGURED_S = 30.0
"""So long the client may take to read its configuration, which may run programs."""
LOGIN_S = 60.0
MOST_SOCKET = 103
"""Bytes of the path of a Unix socket: 104 with the zero byte on macOS, 108 on Linux."""
ASIDE = 17
"""Bytes that the client adds to that path while it makes the socket."""
SILENCE_S = 60.0
"""A board that says nothing for so long is taken for lost: a program there says every two seconds that it works."""
BOOT = 'python3 -I -S -u -c "import sys; exec(sys.stdin.buffer.readline())"'
"""The one command that a board ever gets. Its login shell takes it apart, whichever that is."""
LOADER = """
import json, sys, types
for name, text in json.loads(sys.stdin.buffer.readline().decode("utf-8")):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
module.main()
"""
ONBOARD = ("talk", "alone", "files", "runs", "serve")
OPTIONS = (
    "BatchMode=yes", f"ConnectTimeout={CONNECT_S}", "ConnectionAttempts=1", "ServerAliveInterval=10",
    "ServerAliveCountMax=3", "ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no",
    "PermitLocalCommand=no", "RemoteCommand=none", "RequestTTY=no", "LogLevel=ERROR",
)  # fmt: skip
Reply = dict[str, Any]


class Dropped(Exception):
    """The connection was lost; what ran on the board goes on."""


@cache
def onboard_text() -> bytes:
    """The programs of the board, as the two lines that begin what is sent to it."""
    names = [f"edgedistill.evidence.board.onboard.{name}" for name in ONBOARD]
    folder = files("edgedistill").joinpath("evidence/board/onboard")
    texts = [folder.joinpath(f"{name}.py").read_text("utf-8") for name in ONBOARD]
    pairs = json.dumps(list(zip(names, texts, strict=True)))
    return f"exec({LOADER!r})\n{pairs}\n".encode()


class Connection:
    """One login to a board, shared by every call; `with Connection(address) as board: board.call(...)`."""

    def __init__(self, address: Address) -> None:
        self.address = address
        found = shutil.which("ssh")
        if found is None:
            raise UsageError(
                "--target needs the OpenSSH client, and there is none here: run  sudo apt-get install openssh-client"
            )
        self._ssh, self._strict = found, _strict(found, address)
        self._folder = _short_folder()
        self._master: subprocess.Popen[bytes] | None = None
        self._logins = 0

    def __enter__(self) -> Connection:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Log in, anew where a login was lost. Raises what the client said, in one paragraph."""
        self._end()
        self._logins += 1
        words = self._folder / f"words{self._logins}"
        with words.open("wb") as stderr:
            self._master = self._start(["-M", "-N", *self._words(["ControlPersist=no"])], stderr)
        until = time.monotonic() + LOGIN_S
        while not self._socket.exists():
            code = self._master.poll()
            if code is not None or time.monotonic() > until:
                self._end()
                text = words.read_text("utf-8", "replace")
                raise explained(text if code is not None else "timed out", self.address)
            time.sleep(0.02)

    def close(self) -> None:
        """Log out."""
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def call(
        self,
        request: Mapping[str, Any],
        body: Iterable[bytes] = (),
        told: Callable[[Reply], None] | None = None,
    ) -> Reply:
        """Ask the board; its last reply. `told` gets every reply that is not the last. Raises `Dropped`, and
        `StoppedError` where something else than our program answers.
        """
        if self._master is None or self._master.poll() is not None:
            raise Dropped
        words = self._folder / "words"
        with words.open("wb") as stderr:
            argv = self._words(["ControlMaster=no", "ProxyCommand=false", "ProxyJump=none"], BOOT)
            client = self._start(argv, stderr, pipes=True)
        try:
            last, silent = self._talk(client, request, body, told), False
        except queue.Empty:
            last, silent = None, True
        finally:
            _stop(client)
        if last is not None:
            return last
        text = words.read_text("utf-8", "replace")
        if silent or client.returncode in (255, -9, -15):
            raise Dropped
        raise explained(text, self.address, client.returncode)

    def _talk(
        self,
        client: subprocess.Popen[bytes],
        request: Mapping[str, Any],
        body: Iterable[bytes],
        told: Callable[[Reply], None] | None,
    ) -> Reply | None:
        assert client.stdin is not None and client.stdout is not None
        lines: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=_read, args=(client.stdout, lines), daemon=True).start()
        head = [onboard_text(), json.dumps(request).encode() + b"\n"]
        threading.Thread(target=_write, args=(client.stdin, chain(head, body)), daemon=True).start()
        last: Reply | None = None
        while (line := lines.get(timeout=SILENCE_S)) is not None:
            reply = _reply(line)
            if reply is not None:
                last = reply
                if told is not None:
                    told(reply)
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(timeout=CONNECT_S)
        return last if client.returncode == 0 else None

    def _words(self, options: Iterable[str], *command: str) -> list[str]:
        """The words behind `ssh`."""
        socket = str(self._socket).replace("%", "%%")
        given = [x for o in (*OPTIONS, *self._strict, *options) for x in ("-o", o)]
        return ["-T", "-x", "-a", "-S", socket, *given, *_place(self.address), *command]

    def _start(
        self, words: list[str], stderr: IO[bytes], pipes: bool = False
    ) -> subprocess.Popen[bytes]:
        how = subprocess.PIPE if pipes else subprocess.DEVNULL
        return subprocess.Popen(  # a session of its own: Ctrl-C is ours to handle, and to clean up after
            [self._ssh, *words], stdin=how, stdout=how, stderr=stderr, start_new_session=True
        )

    @property
    def _socket(self) -> Path:
        return self._folder / f"s{self._logins}"

    def _end(self) -> None:
        if self._master is not None:
            _stop(self._master)
        self._master = None


def _place(address: Address) -> list[str]:
    words = ["-l", address.user] if address.user is not None else []
    words += ["-p", str(address.port)] if address.port is not None else []
    return [*words, "--", address.host]


def _short_folder() -> Path:
    """A private folder for the socket, in a place whose path is short enough for one. Raises `UsageError`."""
    places = [tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp"]
    for place in places:
        room = MOST_SOCKET - ASIDE - len("/edgedistill-ssh-12345678/s1234")
        if place and len(os.fsencode(os.path.abspath(place))) <= room:
            with contextlib.suppress(OSError):
                return Path(tempfile.mkdtemp(prefix="edgedistill-ssh-", dir=place))
    raise UsageError(
        f"the path of {tempfile.gettempdir()} is too long for the socket of the ssh client, and no shorter place can "
        "be written to. Give a short one: run  export TMPDIR=FOLDER  with one of your own, such as ~/t"
    )


def _strict(program: str, address: Address) -> list[str]:
    """Options that hold host keys to be checked where the user's own configuration turns that off."""
    try:
        done = subprocess.run(
            [program, "-G", *_place(address)], capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, timeout=CONFIGURED_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise StoppedError(
            f"the ssh client did not read its configuration for {address.host} within {CONFIGURED_S:g} s: a Match exec "
            "or a canonical host name in ~/.ssh/config waits for something. To see for what: run  "
            + address.command().replace("ssh ", "ssh -vvG ", 1)
        ) from None
    if done.returncode != 0:
        raise explained(done.stderr, address)
    known = dict(line.partition(" ")[::2] for line in done.stdout.lower().splitlines())
    options = []
    if known.get("stricthostkeychecking") in ("no", "off", "false"):
        options.append("StrictHostKeyChecking=accept-new")
    if set(known.get("userknownhostsfile", "").split()) <= {"/dev/null", "none"}:
        options.append("UserKnownHostsFile=~/.ssh/known_hosts")
    return options


def _read(stream: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in stream:
            lines.put(line)
    lines.put(None)


def _write(stream: IO[bytes], parts: Iterable[bytes]) -> None:
    try:
        for part in parts:
            stream.write(part)
    except (OSError, ValueError):
        pass  # the board has answered, or is gone: its reply says which
    finally:
        with contextlib.suppress(OSError, ValueError):
            stream.close()


def _reply(line: bytes) -> Reply | None:
    """The reply on a line, `None` for what a login script printed."""
    text = line.decode("utf-8", "replace")
    if not text.startswith(MARK):
        return None
    try:
        found = json.loads(text[len(MARK) :])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a client of ours, and take it off the list of processes."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
