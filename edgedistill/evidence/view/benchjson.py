"""The array of github-action-benchmark (`customSmallerIsBetter`) of a result or a check: one number a line of a chart.

Only what was measured is in it, and only what is smaller where it is better: an accuracy is its share of errors.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from edgedistill.checkresult import Check, Snapshot
from edgedistill.evidence.view import figures
from edgedistill.result import Artifact, Latency, Proportion, Result

Entry = dict[str, Any]


def bench_json(subject: Result | Check) -> str:
    """The array as JSON text, ends with a newline."""
    entries = _of_check(subject) if isinstance(subject, Check) else _of_result(subject)
    return json.dumps(list(entries), indent=1, ensure_ascii=False) + "\n"


def _entry(name: str, unit: str, value: float, spread: str = "", extra: str = "") -> Entry:
    entry: Entry = {"name": figures.short(name, 200), "unit": unit, "value": value}
    if spread:
        entry["range"] = spread
    if extra:
        entry["extra"] = figures.short(extra, 400)
    return entry


def _errors(name: str, top1: Proportion | None) -> Iterator[Entry]:
    if top1 is not None:
        low, high = top1.ci95 or (top1.value, top1.value)
        yield _entry(
            f"{name}: top-1 errors", "%", round(100 * (1 - top1.value), 4),
            f"± {50 * (high - low):.2g}", f"{top1.n:,} test images, 95 % interval",
        )  # fmt: skip


def _of_check(check: Check) -> Iterator[Entry]:
    new: Snapshot = check.new
    yield _entry(f"{new.name}: size", "bytes", new.size_bytes, extra=", ".join(new.files))
    if new.params is not None:
        yield _entry(f"{new.name}: parameters", "parameters", new.params)
    yield from _errors(new.name, new.top1)
    timed = check.comparison
    if timed is not None:
        half = 50 * (timed.high - timed.low)
        yield _entry(
            f"{new.name}: latency against the old model", "%", round(100 * timed.ratio, 2),
            f"± {half:.2g}", f"{timed.machine}, {timed.runtime}",
        )  # fmt: skip


def _of_result(result: Result) -> Iterator[Entry]:
    for artifact in result.artifacts:
        name = f"{result.student.model} {artifact.name}"
        yield _entry(f"{name}: size", "bytes", artifact.size_bytes, extra=artifact.path)
        yield from _errors(name, artifact.top1)
        yield from _times(name, artifact)


def _times(name: str, artifact: Artifact) -> Iterator[Entry]:
    seen: Counter[str] = Counter()
    for row in artifact.latency:
        if row.evidence == "predicted" or row.p50_s is None:
            continue
        what = f"{name}: p50, {_how(row)}, {row.device}"
        seen[what] += 1
        again = f" ({seen[what]})" if seen[what] > 1 else ""
        high = row.p90_s - row.p50_s if row.p90_s is not None else None
        yield _entry(
            f"{what}{again}", "ms", round(1e3 * row.p50_s, 6),
            "" if high is None else f"+ {1e3 * high:.2g}",
            f"{figures.EVIDENCE_WORD[row.evidence]} on {row.machine}, {row.n:,} runs",
        )  # fmt: skip


def _how(row: Latency) -> str:
    """What makes two measurements of one file different lines of a chart."""
    parts = [
        row.provider.removesuffix("ExecutionProvider"),
        f"{row.threads} thread{'' if row.threads == 1 else 's'}",
        f"batch {row.batch}",
        f"{row.fps:g} fps" if row.fps is not None else "",
        "end to end" if row.scope == "end_to_end" else "",
    ]
    return ", ".join(part for part in parts if part)
