"""A board for the tests: a real sshd on loopback with a configuration, keys and a home of its own, and a client that
finds it as the system's ssh finds any other.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
SSH = shutil.which("ssh") or "/usr/bin/ssh"


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def write_program(path: Path, text: str) -> Path:
    """A script of sh."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


class Board:
    """A running sshd; `bin` is all that its sessions have on their path, beside the system's own programs.

    Every command that a session is asked to run is kept in `asked`, a line each.
    """

    def __init__(
        self, folder: Path, packages: bool = True, extra: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.port = folder, free_port()
        self.home, self.bin, self.tmp = (folder / n for n in ("home", "bin", "tmp"))
        for path in (self.home, self.bin, self.tmp, folder / "client"):
            path.mkdir(parents=True)
        self.log, self.asked = folder / "sshd.log", folder / "asked"
        self.asked.touch()
        if packages:
            self.python()
        self.environment = {
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "PATH": f"{self.bin}:/usr/bin:/bin",
        }
        self.environment |= extra or {}
        self._keys()
        self._server: subprocess.Popen[bytes] | None = None

    def python(self, program: str = sys.executable, name: str = "python3") -> None:
        """Give the sessions a Python."""
        write_program(self.bin / name, f'exec {shlex.quote(program)} "$@"\n')

    def _keys(self) -> None:
        for name in ("host", "other_host", "client/key", "client/stranger"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)],
                check=True,
            )
        shutil.copy(self.folder / "client/key.pub", self.folder / "authorized")
        self.know("host")
        self.client("key")

    def know(self, key: str | None) -> None:
        """What the client knows of the board's host key."""
        text = "" if key is None else (self.folder / f"{key}.pub").read_text().rsplit(" ", 1)[0]
        line = f"[127.0.0.1]:{self.port} {text}\n" if text else ""
        (self.folder / "client/known_hosts").write_text(line)

    def client(self, key: str, *lines: str) -> None:
        """An `ssh` for the path of the workstation: the system's, with a configuration of these tests."""
        config = self.folder / "client/config"
        home = self.folder / "client"
        own = [
            f"IdentityFile {home / key}",
            "IdentitiesOnly yes",
            f"UserKnownHostsFile {home / 'known_hosts'}",
        ]
        own += ["GlobalKnownHostsFile /dev/null", "IdentityAgent none"]
        config.write_text("\n".join(["Host *", *lines, *own]) + "\n")
        write_program(
            self.folder / "client/bin/ssh", f'exec {SSH} -F {shlex.quote(str(config))} "$@"\n'
        )

    @property
    def client_path(self) -> str:
        """A PATH with that client first."""
        return f"{self.folder / 'client/bin'}:{os.environ['PATH']}"

    def start(self) -> None:
        """Listen."""
        session = write_program(
            self.folder / "session",
            f'printf "%s\\n" "$SSH_ORIGINAL_COMMAND" >> {shlex.quote(str(self.asked))}\n'
            "exec env -i "
            + " ".join(f"{k}={shlex.quote(v)}" for k, v in self.environment.items())
            + ' /bin/sh -c "cd; $SSH_ORIGINAL_COMMAND"\n',
        )
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder / 'host'}\n"
            f"AuthorizedKeysFile {self.folder / 'authorized'}\nStrictModes no\nUsePAM no\nPidFile none\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            f"MaxStartups 100\nLogLevel VERBOSE\nForceCommand {session}\n"
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
            )  # fmt: skip
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        """Stop listening, and end every session."""
        if self._server is not None:
            for pid in self.sessions():
                subprocess.run(["kill", str(pid)], check=False)
            self._server.terminate()
            self._server.wait()
            self._server = None

    def sessions(self) -> list[int]:
        """The processes of sshd that serve a login now."""
        assert self._server is not None
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._server.pid)],
            capture_output=True,
            text=True,
            check=False,
        )
        return [int(pid) for pid in found.stdout.split()]

    @property
    def address(self) -> str:
        """What --target takes."""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def left(self) -> list[str]:
        """What lies in the board's temporary folder."""
        return sorted(p.name for p in self.tmp.iterdir())

    def commands(self) -> set[str]:
        """Every command that a session was asked for."""
        return set(self.asked.read_text().splitlines())


class Line:
    """A TCP line to a port that can be cut: `port` leads there until `cut`, and again after `mend`."""

    def __init__(self, port: int) -> None:
        self._to, self._open = port, True
        self.break_after: int | None = None
        """Bytes towards the board after which the line breaks once, by itself."""
        self.rate: float | None = None
        """Bytes a second towards the board."""
        self.sent = 0
        """Bytes that went towards the board."""
        self._pairs: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._server.accept()
            except OSError:
                return
            if not self._open:
                here.close()
                continue
            there = socket.create_connection(("127.0.0.1", self._to))
            self._pairs += [here, there]
            threading.Thread(target=self._pump, args=(here, there, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(there, here, False), daemon=True).start()

    def _pump(self, a: socket.socket, b: socket.socket, out: bool) -> None:
        try:
            while data := a.recv(65536):
                if out and self.rate is not None:
                    time.sleep(len(data) / self.rate)
                b.sendall(data)
                self.sent += len(data) if out else 0
                if out and self.break_after is not None:
                    self.break_after -= len(data)
                    if self.break_after < 0:
                        self.break_after = None
                        break
        except OSError:
            pass
        for end in (a, b):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Drop every connection, and let none through."""
        self._open = False
        for end in self._pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._pairs = []

    def mend(self) -> None:
        """Let connections through again."""
        self._open = True

    def close(self) -> None:
        """Stop."""
        self.cut()
        self._server.close()
