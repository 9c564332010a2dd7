"""A process that serves one model: a line of JSON each way, then the bytes of an array; it ends when nothing is asked
any more.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
from typing import IO, Any

from ontarget.bench import ended, worker_command, worker_environment
from ontarget.fields import shown
from ontarget.session import ProviderError, SessionError

PATIENCE_S = 900.0
"""The longest wait for a model to open (TensorRT builds meanwhile), and for one answer."""
END_S = 5.0


class Peer:
    """A worker of the kit. `what` is its command, `file` the model's name for errors.

    Raises SessionError where it cannot be started.
    """

    def __init__(self, what: str, file: str, threads: int) -> None:
        self._file = file
        command, folder = worker_command(what)
        self._held = contextlib.ExitStack()
        try:
            errors = tempfile.TemporaryFile()  # noqa: SIM115
            self._errors = self._held.enter_context(errors)
            self._process = self._held.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
                    cwd=folder, env=worker_environment(threads),
                )
            )  # fmt: skip
            self._held.callback(self._end)
        except BaseException:
            self._held.close()
            raise

    def ask(self, head: dict[str, Any], data: bytes = b"", count: int = 0) -> tuple[Any, bytes]:
        """The reply to a request, and `count` bytes after it.

        Raises SessionError or ProviderError as the worker says, and SessionError when it dies or does not answer
        within `PATIENCE_S`.
        """
        self.send(head, data)
        return self.answer(count)

    def send(self, head: dict[str, Any], data: bytes = b"") -> None:
        """Ask, without waiting for the answer."""
        assert self._process.stdin is not None
        try:
            send(self._process.stdin, head, data)
        except OSError:
            raise self._died(False) from None

    def answer(self, count: int = 0) -> tuple[Any, bytes]:
        """The answer to what was asked last; raises as `ask`."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(PATIENCE_S, stop)
        timer.start()
        try:
            assert self._process.stdout is not None
            reply = receive(self._process.stdout)
            if reply["ok"]:
                return reply, exactly(self._process.stdout, count)
        except (OSError, ValueError, EOFError):
            raise self._died(late.is_set()) from None
        finally:
            timer.cancel()
        if reply["provider"]:
            raise ProviderError(reply["text"], reply["fell_back"])
        raise SessionError(reply["text"])

    def _died(self, late: bool) -> SessionError:
        self._process.kill()
        how = ended(self._process.wait())
        if late:
            how = f"did not answer within {PATIENCE_S:g} s and was stopped"
        self._errors.seek(0)
        last = self._errors.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        return SessionError(
            f"{self._file} was not run to its end: the process that ran it {how}"
            + "".join(f" ({shown(line, 200)})" for line in last)
            + ". Use another model of the bundle, or export this one again."
        )

    def _end(self) -> None:
        """End the process: it ends by itself when nothing is asked any more."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def close(self) -> None:
        """End the process."""
        self._held.close()


def refusal(error: Exception) -> dict[str, Any]:
    """The reply of a worker that cannot go on."""
    fell_back = isinstance(error, ProviderError) and error.fell_back
    text = str(error)
    if isinstance(error, MemoryError):
        text = "out of memory; close other programs or use a smaller --batch."
    return {
        "ok": False,
        "text": text,
        "provider": isinstance(error, ProviderError),
        "fell_back": fell_back,
    }


def send(file: IO[bytes], head: dict[str, Any], data: bytes = b"") -> None:
    """Write a line of JSON, and bytes after it. Raises OSError."""
    file.write(json.dumps(head).encode("ascii") + b"\n" + data)
    file.flush()


def receive(file: IO[bytes]) -> Any:
    """The next line of JSON. Raises EOFError at the end, ValueError for another line."""
    line = file.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return json.loads(line)


def exactly(file: IO[bytes], count: int) -> bytes:
    """The next `count` bytes. Raises EOFError where there are fewer."""
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data
