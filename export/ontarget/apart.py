"""A model run in a process of its own: whatever a hostile file does to the runtime, the kit lives and says so.

ONNX Runtime is C++ and sets a graph no bounds: it may loop for ever, take all memory, or crash.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from ontarget.contract import Model, TensorSpec
from ontarget.machine import limit_memory
from ontarget.opening import ENGINE, open_session
from ontarget.peer import Peer, exactly, receive, refusal, send
from ontarget.session import Session, SessionError, cores


def open_apart(model: Model, provider: str = "cpu", threads: int = 1) -> Session:
    """As `open_session`, in a process of its own; an engine, which was built on this very machine, in this one."""
    if provider == ENGINE:
        return open_session(model, provider, threads)
    return ApartSession(model, provider, threads)


class ApartSession:
    """ONNX Runtime in a fresh process. A context manager. Raises as `OrtSession` and `Peer`."""

    runtime = "onnxruntime"
    most_images: int | None = None

    def __init__(self, model: Model, provider: str = "cpu", threads: int = 1) -> None:
        self._model = model
        self._peer = Peer("_session", model.file, threads or cores())
        try:
            about = {**asdict(model), "path": str(model.path.resolve())}
            reply = self._peer.ask({"model": about, "provider": provider, "threads": threads})[0]
        except BaseException:
            self._peer.close()
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
        data = self._peer.ask(head, inputs.tobytes(), 4 * shape[0] * shape[1])[1]
        return np.frombuffer(data, dtype=np.float32).reshape(shape)

    def bound(self, inputs: np.ndarray) -> Callable[[], np.ndarray]:
        """`run` on these inputs, the way to the other process included."""
        return partial(self.run, inputs)

    def __enter__(self) -> ApartSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._peer.close()


def serve() -> int:
    """Open the model that stdin names and run what comes, until stdin ends."""
    with quiet() as (questions, answers):
        try:
            _serve(questions, answers)
        except (SessionError, MemoryError) as error:
            send(answers, refusal(error))
    return 0


@contextlib.contextmanager
def quiet() -> Any:
    """Questions and answers of a worker, as binary files; what a runtime prints goes to stderr. Ends with stdin."""
    answers, questions = os.fdopen(os.dup(1), "wb"), sys.stdin.buffer
    os.dup2(2, 1)
    with contextlib.suppress(EOFError):
        yield questions, answers


def _serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    asked = receive(questions)
    if asked["provider"] == "cpu":
        limit_memory()
    with open_session(_model(asked["model"]), asked["provider"], asked["threads"]) as session:
        about = {"provider": session.provider, "version": session.version}
        send(answers, {"ok": True, "threads": session.threads, **about})
        while True:
            head = receive(questions)
            dtype, shape = np.dtype(head["dtype"]), head["shape"]
            data = exactly(questions, int(np.prod(shape)) * dtype.itemsize)
            logits = session.run(np.frombuffer(data, dtype=dtype).reshape(shape))
            send(answers, {"ok": True}, logits.tobytes())


def _model(about: dict[str, Any]) -> Model:
    specs = {
        key: TensorSpec(**{**about[key], "shape": tuple(about[key]["shape"])})
        for key in ("input", "output")
    }
    return Model(**{**about, **specs, "path": Path(about["path"])})
