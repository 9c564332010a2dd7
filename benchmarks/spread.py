"""How far apart are the times of one file in two sessions, and in two processes?

    python -m benchmarks.spread BUNDLE --model int8

Pairs of fresh processes on one core open the file in pairs of sessions and take turns; a one-way analysis of variance
of the logarithms of their ratios tells what a session adds from what a process adds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ontarget.contract import load_bundle
from ontarget.peer import Peer

TURNS, SECONDS = 10, 0.015


def main(argv: Sequence[str] | None = None) -> None:
    """Print both standard deviations."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--sessions", type=int, default=6)
    given = parser.parse_args(argv)
    name = load_bundle(given.bundle).model(given.model).name
    logs = np.array([_pair(given.bundle, name, given.sessions, k) for k in range(given.pairs)])
    within = float(logs.var(axis=1, ddof=1).mean())
    between = float(logs.mean(axis=1).var(ddof=1)) - within / given.sessions
    print(f"{name}: {given.pairs} pairs of processes, {given.sessions} pairs of sessions each")
    print(
        f"a session adds {math.sqrt(within):.2%}, a process {math.sqrt(max(0.0, between)):.2%} to the spread of a ratio"
    )


def _pair(bundle: Path, model: str, sessions: int, index: int) -> list[float]:
    """The logarithm of the ratio of each pair of sessions of two fresh processes."""
    peers = [Peer("_turns", model, 1) for _ in range(2)]
    asked = {
        "bundle": str(bundle.resolve()), "model": model, "engine": None, "provider": "cpu", "threads": 1,
        "batch": 1, "cores": [index % 2], "warmup_seconds": 0.05,
    }  # fmt: skip
    found = []
    try:
        for session in range(sessions):
            for peer in peers:
                peer.send({"open": True} if session else asked)
            for peer in peers:
                peer.answer()
            logs = []
            for turn in range(TURNS):
                times = [0.0, 0.0]
                for which in (0, 1) if (turn + index) % 2 else (1, 0):
                    times[which] = peers[which].ask({"seconds": SECONDS})[0]["median_s"]
                logs.append(math.log(times[1] / times[0]))
            found.append(float(np.median(logs)))
    finally:
        for peer in peers:
            peer.close()
    return found


if __name__ == "__main__":
    main()
