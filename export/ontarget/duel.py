"""Two files against each other: how much slower is the new one, with an interval that holds on a machine that is never
quiet.

Two fresh processes take turns, old new new old, so that a slow moment falls on both alike. Where a session's memory
happens to lie moves its times by some percent for as long as it lives: so each pair of processes opens its sessions
several times, and there are many pairs. Each pair gives one ratio, and the ratios give the interval (`centre`): either
file is treated alike, so the logarithm of a ratio is as likely to be too large as too small.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ontarget.conditions import between, look
from ontarget.contract import Bundle, Model
from ontarget.peer import Peer
from ontarget.percentiles import centre
from ontarget.session import SessionError, cores

CONFIDENCE = 0.998
"""Of the interval: on each side it misses the truth once in a thousand comparisons."""


@dataclass(frozen=True)
class Duel:
    """So many pairs of processes, each opens its sessions so many times, for so many turns of `seconds` each."""

    pairs: int = 20
    sessions: int = 4
    turns: int = 6
    seconds: float = 0.015
    warmup_seconds: float = 0.04


FEWEST_PAIRS = 10
"""As few as carry an interval of `CONFIDENCE`."""
FEWEST_TURNS = 2
MOST_SECONDS = 1200.0
"""A slow model has fewer turns, and then fewer pairs, so that a comparison ends."""
DUELS = {
    "quick": Duel(pairs=10, sessions=3),
    "default": Duel(),
    "thorough": Duel(pairs=40, sessions=6, turns=8),
}


@dataclass(frozen=True)
class Side:
    """One of the two: a model of a bundle, and its engine where the provider is "engine"."""

    bundle: Bundle
    model: Model
    engine: Path | None = None


def compare(
    old: Side,
    new: Side,
    provider: str = "cpu",
    threads: int = 1,
    batch: int = 1,
    plan: Duel = Duel(),
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """The part "compare" of the kit document. Raises as the sessions of either side, and SessionError for a provider
    that builds an engine each time a model is opened.
    """
    if provider == "tensorrt":
        raise SessionError(
            "--provider tensorrt builds an engine whenever a model is opened, which compare does dozens of times: "
            "run build-engine in both bundles, and compare with --provider engine."
        )
    meeting = _Meeting((old, new), provider, threads, batch, plan)
    before, logs, begun = look(), [], time.monotonic()
    for pair in range(plan.pairs):
        if progress is not None:
            progress(f"pair {pair + 1} of {plan.pairs}: {old.model.file} against {new.model.file}")
        logs.append(meeting.pair(pair))
        if time.monotonic() - begun > MOST_SECONDS and len(logs) >= FEWEST_PAIRS:
            break
    notes = between(before, look())[1]
    ratio, low, high = (math.exp(value) for value in centre(logs, CONFIDENCE))
    return {
        "old": meeting.facts(0),
        "new": meeting.facts(1),
        "ratio": ratio,
        "low": low,
        "high": high,
        "confidence": CONFIDENCE,
        "ratios": [math.exp(value) for value in logs],
        **{key: meeting.about[key] for key in ("runtime", "provider", "threads", "batch")},
        "warnings": notes,
    }


class _Meeting:
    """The two sides, and what was timed of each so far."""

    def __init__(
        self, sides: tuple[Side, Side], provider: str, threads: int, batch: int, plan: Duel
    ) -> None:
        self.sides, self.plan = sides, plan
        self.about: dict[str, Any] = {}
        self._provider, self._threads, self._batch = provider, threads, batch
        self._medians: tuple[list[float], list[float]] = ([], [])
        self._counts = [0, 0]

    def pair(self, index: int) -> float:
        """The logarithm of new by old from one pair of fresh processes."""
        logs = []
        with contextlib.ExitStack() as held:
            peers = [
                Peer("_turns", side.model.file, self._threads or cores()) for side in self.sides
            ]
            for peer in peers:
                held.callback(peer.close)
            chosen = _cores(self._threads, index)
            for which in _order(index):
                peers[which].send(self._request(self.sides[which], chosen))
            for session in range(self.plan.sessions):
                if session:
                    for which in _order(index + session):
                        peers[which].send({"open": True})
                self.about = [peer.answer()[0] for peer in peers][1]
                logs.append(self._turns(peers, index + session))
        return float(np.mean(logs))

    def _turns(self, peers: list[Peer], index: int) -> float:
        """The median over the turns of one opened pair."""
        logs: list[float] = []
        begun = time.monotonic()
        share = MOST_SECONDS / (self.plan.pairs * self.plan.sessions)
        for turn in range(self.plan.turns):
            if len(logs) >= FEWEST_TURNS and time.monotonic() - begun > share:
                break
            times = [0.0, 0.0]
            for which in _order(index + turn):
                reply = peers[which].ask({"seconds": self.plan.seconds})[0]
                times[which] = reply["median_s"]
                self._medians[which].append(reply["median_s"])
                self._counts[which] += reply["n"]
            logs.append(math.log(times[1] / times[0]))
        return float(np.median(logs))

    def _request(self, side: Side, chosen: list[int]) -> dict[str, Any]:
        return {
            "bundle": str(side.bundle.folder.resolve()),
            "model": side.model.name,
            "engine": None if side.engine is None else str(side.engine),
            "cores": chosen,
            "warmup_seconds": self.plan.warmup_seconds,
            "provider": self._provider,
            "threads": self._threads,
            "batch": self._batch,
        }

    def facts(self, which: int) -> dict[str, Any]:
        """What the document says of a side."""
        model = self.sides[which].model
        return {
            "name": model.name,
            "file": model.file,
            "sha256": model.sha256,
            "p50_s": float(np.median(self._medians[which])),
            "n": self._counts[which],
        }


def _order(index: int) -> tuple[int, int]:
    return (0, 1) if index % 2 == 0 else (1, 0)


def _cores(threads: int, pair: int) -> list[int]:
    """The cores that both processes of a pair keep to: one that they share in turns, so that no core favours one."""
    try:
        usable = sorted(os.sched_getaffinity(0))
    except AttributeError:
        return []
    return [usable[pair % len(usable)]] if threads == 1 else []
