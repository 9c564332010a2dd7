"""A public fake at the seam that runs models: a session with fixed logits on a scripted clock, for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np


class FakeClock:
    """A clock that moves only when told; call it for the time in seconds."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now_s += seconds


class FakeSession:
    """A session with fixed logits for tests: run k takes `durations_s[k]` (the last one ever
    after).

    With a FakeClock the time passes on it alone; without one the fake really sleeps. `logits` is
    `(C,)`, given for every image, or a function of the inputs. `calls` counts runs, `closed` tells
    the end of the `with` block.
    """

    def __init__(
        self,
        logits: Any,
        durations_s: Sequence[float] = (),
        clock: FakeClock | None = None,
        provider: str = "CPUExecutionProvider",
    ) -> None:
        self._logits: Callable[[np.ndarray], np.ndarray]
        if callable(logits):
            self._logits = logits
        else:
            row = np.asarray(logits, dtype=np.float32)
            self._logits = lambda inputs: np.tile(row, (len(inputs), 1))
        self._durations_s: list[float] = list(durations_s)
        self._pass: Callable[[float], None] = clock.advance if clock is not None else time.sleep
        self.provider = provider
        self.runtime, self.version = "fake", None
        self.threads, self.most_images = 1, None
        self.calls = 0
        self.closed = False
        self.shapes: list[tuple[int, ...]] = []

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """The fixed logits `(N, C)`, after the scripted time."""
        if self._durations_s:
            self._pass(self._durations_s[min(self.calls, len(self._durations_s) - 1)])
        self.calls += 1
        self.shapes.append(inputs.shape)
        return np.asarray(self._logits(inputs), dtype=np.float32)

    def bound(self, inputs: np.ndarray) -> Callable[[], np.ndarray]:
        """`run` on these inputs."""
        return partial(self.run, inputs)

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closed = True
