"""A model run in a process of its own: whatever a hostile file does to the runtime, the kit lives and says so.

ONNX Runtime is C++ and sets a graph no bounds: it may loop for ever, take all memory, or crash. Between the processes
goes a line of JSON each way, then the bytes of an array.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from ontarget.bench import ended, worker_command, worker_environment
from ontarget.contract import Model, TensorSpec
from ontarget.fields import shown
from ontarget.machine import limit_memory
from ontarget.opening import ENGINE, open_session
from ontarget.session import ProviderError, Session, SessionError, cores

PATIENCE_S = 900.0
"""The longest wait for a model to open (TensorRT builds meanwhile), and for one run."""
END_S = 5.0


def open_apart(model: Model, provider: str = "cpu", threads: int = 1) -> Session:
    """As `open_session`, in a process of its own; an engine, which was built on this very machine, in this one."""
    if provider == ENGINE:
        return open_session(model, provider, threads)
    return ApartSession(model, provider, threads)


class ApartSession:
    """ONNX Runtime in a fresh process. A context manager.

    Raises as `OrtSession`, and SessionError when the process dies or does not answer within `PATIENCE_S`.
    """

    runtime = "onnxruntime"
    most_images: int | None = None

    def __init__(self, model: Model, provider: str = "cpu", threads: int = 1) -> None:
        self._model = model
        command, folder = worker_command("_session")
        self._held = contextlib.ExitStack()
        try:
            errors = tempfile.TemporaryFile()  # noqa: SIM115
            self._errors = self._held.enter_context(errors)
            self._process = self._held.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
                    cwd=folder, env=worker_environment(threads or cores()),
                )
            )  # fmt: skip
            self._held.callback(self._end)
            about = {**asdict(model), "path": str(model.path.resolve())}
            reply = self._ask({"model": about, "provider": provider, "threads": threads})[0]
        except BaseException:
            self._held.close()
            raise
        self._provider, self.threads = str(reply["provider"]), int(reply["threads"])
        self.version: str | None = str(reply["version"])

    @property
    def provider(self) -> str:
        """The execution provider's full name."""
        return self._provider

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Logits `(N, C)` float32. Raises SessionError for a failed run, another shape, and a dead process."""
        shape = (len(inputs), int(self._model.output.shape[1] or 0))
        head = {"shape": inputs.shape, "dtype": inputs.dtype.str}
        data = self._ask(head, inputs.tobytes(), 4 * shape[0] * shape[1])[1]
        return np.frombuffer(data, dtype=np.float32).reshape(shape)

    def _ask(self, head: dict[str, Any], data: bytes = b"", count: int = 0) -> tuple[Any, bytes]:
        """The reply to a request, and `count` bytes after it."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(PATIENCE_S, stop)
        timer.start()
        try:
            assert self._process.stdin is not None and self._process.stdout is not None
            _send(self._process.stdin, head, data)
            reply = _receive(self._process.stdout)
            if reply["ok"]:
                return reply, _exactly(self._process.stdout, count)
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
            f"{self._model.file} was not run to its end: the process that ran it {how}"
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

    def __enter__(self) -> ApartSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()


def serve() -> int:
    """Open the model that stdin names and run what comes, until stdin ends. What a runtime prints goes to stderr."""
    answers, questions = os.fdopen(os.dup(1), "wb"), sys.stdin.buffer
    os.dup2(2, 1)
    with contextlib.suppress(EOFError):
        _serve(questions, answers)
    return 0


def _serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    asked = _receive(questions)
    if asked["provider"] == "cpu":
        limit_memory()
    try:
        with open_session(_model(asked["model"]), asked["provider"], asked["threads"]) as session:
            about = {"provider": session.provider, "version": session.version}
            _send(answers, {"ok": True, "threads": session.threads, **about})
            while True:
                head = _receive(questions)
                dtype, shape = np.dtype(head["dtype"]), head["shape"]
                data = _exactly(questions, int(np.prod(shape)) * dtype.itemsize)
                logits = session.run(np.frombuffer(data, dtype=dtype).reshape(shape))
                _send(answers, {"ok": True}, logits.tobytes())
    except SessionError as error:
        fell_back = isinstance(error, ProviderError) and error.fell_back
        which = {"provider": isinstance(error, ProviderError), "fell_back": fell_back}
        _send(answers, {"ok": False, "text": str(error), **which})
    except MemoryError:
        text = "out of memory; close other programs or use a smaller --batch."
        _send(answers, {"ok": False, "text": text, "provider": False, "fell_back": False})


def _model(about: dict[str, Any]) -> Model:
    specs = {
        key: TensorSpec(**{**about[key], "shape": tuple(about[key]["shape"])})
        for key in ("input", "output")
    }
    return Model(**{**about, **specs, "path": Path(about["path"])})


def _send(file: IO[bytes], head: dict[str, Any], data: bytes = b"") -> None:
    file.write(json.dumps(head).encode("ascii") + b"\n" + data)
    file.flush()


def _receive(file: IO[bytes]) -> Any:
    line = file.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return json.loads(line)


def _exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data
