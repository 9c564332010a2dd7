"""A model that is run on demand in a process of its own, so that two of them can take turns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from ontarget.apart import quiet
from ontarget.contract import ContractError, load_bundle, require_packed
from ontarget.machine import limit_memory
from ontarget.opening import open_session
from ontarget.peer import receive, refusal, send
from ontarget.session import SessionError
from ontarget.worker import inputs_of

FEWEST = 2
"""Runs of a turn at least; the first of them, which finds the caches of another program, is not counted."""


def serve() -> int:
    """Open the model that stdin names; run a turn for each line of seconds, open it anew for any other line."""
    with quiet() as (questions, answers):
        try:
            _serve(questions, answers)
        except (ContractError, SessionError, MemoryError) as error:
            send(answers, refusal(error))
    return 0


def _serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    asked = receive(questions)
    if asked["cores"]:
        os.sched_setaffinity(0, asked["cores"])
    bundle = load_bundle(asked["bundle"])
    model, provider = bundle.model(asked["model"]), asked["provider"]
    require_packed(model)
    if provider == "cpu":
        limit_memory()
    inputs = inputs_of(bundle, model, asked["batch"])[0]
    while True:
        with open_session(model, provider, asked["threads"], True, asked["engine"]) as session:
            session.run(inputs)
            run = session.bound(inputs)
            _turn(run, asked["warmup_seconds"])
            about = {"runtime": f"{session.runtime} {session.version}", "batch": len(inputs)}
            send(
                answers,
                {"ok": True, **about, "provider": session.provider, "threads": session.threads},
            )
            request = receive(questions)
            while "seconds" in request:
                send(answers, {"ok": True, **_turn(run, request["seconds"])})
                request = receive(questions)


def _turn(run: Callable[[], object], seconds: float) -> dict[str, Any]:
    samples: list[float] = []
    begun = now = time.perf_counter()
    while now - begun < seconds or len(samples) < FEWEST:
        before = now
        run()
        now = time.perf_counter()
        samples.append(now - before)
    return {"n": len(samples) - 1, "median_s": float(np.median(samples[1:]))}
