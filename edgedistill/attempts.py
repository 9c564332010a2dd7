"""When a candidate that was built misses a limit after all: what was tried, and whether to go on to the next.

Only what the files and this machine say is looked at: size, and latency and memory where this machine is the target.
Accuracy is judged on the test split, which is read once, for the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgedistill.recipe import hash_of
from edgedistill.result import Attempt, Candidate, Limits
from edgedistill.rundir import RunDir, write_atomic

FILE = "attempts.json"
_ATTEMPTS = TypeAdapter(list[Attempt])


def recall(run: RunDir, key: Mapping[str, Any]) -> list[Attempt]:
    """What an earlier, broken run with the same plan tried; a damaged file or another plan is no memory."""
    try:
        tree = json.loads((run.path / FILE).read_text("utf-8"))
        if tree["plan"] != hash_of(key):
            return []
        return _ATTEMPTS.validate_python(tree["attempts"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return []


def keep(run: RunDir, key: Mapping[str, Any], attempts: Sequence[Attempt]) -> None:
    """Write down what was tried, so that a run that is killed goes on behind it."""
    rows = [attempt.model_dump(mode="json") for attempt in attempts]
    tree = {"plan": hash_of(key), "attempts": rows}
    write_atomic(run.path / FILE, json.dumps(tree, indent=1) + "\n")


def missed(
    limits: Limits, size_bytes: int, rows: Sequence[Mapping[str, Any]], on_target: bool
) -> list[str]:
    """Limits that a finished file misses, in words. `rows` are the kit's measurements of that file."""
    found = []
    if limits.size_bytes is not None and size_bytes > limits.size_bytes:
        found.append(f"{size_bytes / 1e6:.2f} MB, {limits.size_bytes / 1e6:g} MB allowed")
    if not on_target:
        return found
    times = [row["p90_s"] or row["p50_s"] for row in rows]
    known = [t for t in times if t is not None]
    if limits.latency_s is not None and known and min(known) > limits.latency_s:
        allowed = f"{1e3 * limits.latency_s:g} ms allowed"
        found.append(f"{1e3 * min(known):.2f} ms measured, {allowed}")
    memory = [r["peak_rss_bytes"] for r in rows if r["peak_rss_bytes"] is not None]
    if limits.memory_bytes is not None and memory and max(memory) > limits.memory_bytes:
        found.append(f"{max(memory) / 1e6:.0f} MB of memory, {limits.memory_bytes / 1e6:g} allowed")
    return found


def attempt(candidate: Candidate, words: Sequence[str], precision: str) -> Attempt:
    """What is written down of a candidate that missed; `precision` is that of the file that came to ship."""
    shipped = candidate.model_copy(update={"precision": precision})
    return Attempt(candidate=shipped, missed=list(words))
