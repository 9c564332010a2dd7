"""The verdict: each limit against the best number there is for it, and what that number is worth.

A number measured on the target decides. A predicted one, or one measured on another machine of the same processor
class, is `unconfirmed` inside the limit and `fail` above it. A machine of another class never enters a row. Size and
accuracy are properties of the shipped file, not of a machine: measured on the file, they carry no grade, and decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ontarget.percentiles import smallest_n

from edgedistill.result import Artifact, Evidence, Latency, Limits, Status, Verdict, VerdictRow

CPU = "CPUExecutionProvider"
ON_BOARD = (
    "measure it on the device: edgedistill bench RUN --target ssh://user@board, or there  "
    "python3 ontarget.pyz bench ."
)
ORDER: dict[Status, int] = {"pass": 0, "unconfirmed": 1, "fail": 2}


@dataclass(frozen=True)
class Facts:
    """What the verdict is made of: the chosen file, predictions for the device, and who measured."""

    device: str
    student: str
    chosen: Artifact
    proxy_counts: bool
    predicted_memory_bytes: int | None


def judge(limits: Limits, facts: Facts, remarks: Sequence[str]) -> Verdict:
    """The rows in the order of the limits, the worst status of all, and one sentence."""
    rows = [
        row
        for row in (
            latency_row(limits.latency_s, facts),
            size_row(limits.size_bytes, facts),
            memory_row(limits.memory_bytes, facts),
            top1_row(limits.min_top1, facts),
            drop_row(limits.max_top1_drop, facts),
        )
        if row is not None
    ]
    status: Status = max((row.status for row in rows), key=ORDER.__getitem__, default="pass")
    return Verdict(
        status=status, sentence=sentence(status, rows, facts), rows=rows, remarks=list(remarks)
    )


def _decide(inside: bool, evidence: Evidence) -> Status:
    if not inside:
        return "fail"
    return "pass" if evidence == "measured_on_target" else "unconfirmed"


def current(rows: Sequence[Latency]) -> list[Latency]:
    """Of each way of measuring the newest row: what is measured again takes the place of what it was before, be it
    better or worse. Rows stand in the order in which they were measured.
    """
    newest: dict[tuple[object, ...], Latency] = {}
    for row in rows:
        place = (row.device, row.evidence, row.provider, row.threads, row.batch)
        newest[(*place, row.scope, row.arrival, row.fps)] = row
    return list(newest.values())


def plain(row: Latency) -> bool:
    """Whether a row is of what a limit means: one image, the model alone, back to back."""
    return (row.batch, row.scope, row.arrival) == (1, "model", "back_to_back")


def judged_latency(rows: Sequence[Latency], proxy_counts: bool) -> Latency | None:
    """The row that the limit looks at: measured on the target, else a like machine, else predicted; of several ways to
    run the file (threads) the fastest, and a median only where no row has a p90.
    """
    wanted: list[Evidence] = ["measured_on_target"]
    wanted += ["measured_on_proxy", "predicted"] if proxy_counts else ["predicted"]
    for evidence in wanted:
        known = [r for r in current(rows) if r.evidence == evidence and plain(r)]
        known = [r for r in known if r.p50_s is not None]
        known = [r for r in known if r.p90_s is not None] or known
        if evidence == "measured_on_proxy":  # a like processor says nothing about its graphics card
            known = [r for r in known if r.provider == CPU]
        if known:
            return min(known, key=headline)
    return None


def headline(row: Latency) -> float:
    """p90 where it was measured, else p50 (a prediction has one point)."""
    value = row.p90_s if row.p90_s is not None else row.p50_s
    assert value is not None
    return value


def judged(row: Latency, limit: float) -> tuple[Status, str]:
    """How a row stands to the limit in seconds, and what it is.

    What else a machine did makes a run slower and never faster. So an unstable row inside the limit passes, and one
    above it whose median may lie inside is undecided, as a median without a p90 is.
    """
    observed = headline(row)
    status = _decide(observed <= limit, row.evidence)
    if row.evidence == "predicted":
        low, high = row.band_s or (observed, observed)
        return status, f"predicted, {1e3 * low:.3g} to {1e3 * high:.3g} ms"
    which = "p90" if row.p90_s is not None else "p50"
    threads = f"{row.threads} thread{'s' if row.threads != 1 else ''}"
    note = f"{which} of {row.n:,} runs, batch 1, {threads}"
    if row.p90_s is None and status == "pass":
        status, note = "unconfirmed", f"{note}; a p90 needs {smallest_n(0.9)} runs"
    if row.stable is False:
        note += ", unstable"
        median = row.low.get("p50", row.p50_s)
        if status == "fail" and median is not None and median <= limit:
            status, note = "unconfirmed", f"{note}: measure again on a quiet machine"
    return status, note


def latency_row(limit: float | None, facts: Facts) -> VerdictRow | None:
    """Latency of one image, in seconds."""
    if limit is None:
        return None
    row = judged_latency(facts.chosen.latency, facts.proxy_counts)
    advice = ON_BOARD
    if row is None:
        return VerdictRow(
            limit="latency_s", allowed=limit, status="unconfirmed", advice=advice,
            note="no honest prediction for this device and precision",
        )  # fmt: skip
    status, note = judged(row, limit)
    if status == "fail":
        advice = "a smaller student or input: --student, --set student.input_size=64, or a higher --latency-ms"
    return VerdictRow(
        limit="latency_s", allowed=limit, observed=headline(row), evidence=row.evidence,
        status=status, note=note, advice="" if status == "pass" else advice,
    )  # fmt: skip


def size_row(limit: int | None, facts: Facts) -> VerdictRow | None:
    """Bytes of the chosen model with every file that it needs."""
    if limit is None:
        return None
    size = facts.chosen.size_bytes
    status: Status = "pass" if size <= limit else "fail"
    return VerdictRow(
        limit="size_bytes", allowed=limit, observed=size,
        status=status, note="bytes of the file with all that it needs",
        advice="" if status == "pass" else "a smaller student: --student, or a higher --size-mb",
    )  # fmt: skip


def peak_bytes(rows: Sequence[Latency]) -> int | None:
    """The largest peak measured on the target, of one image and the model alone; `None` where nobody measured it."""
    known = [r for r in rows if r.peak_rss_bytes is not None]
    peaks = [
        r.peak_rss_bytes
        for r in current(known)
        if r.evidence == "measured_on_target" and (r.batch, r.scope) == (1, "model")
    ]
    return max((peak for peak in peaks if peak is not None), default=None)


def memory_row(limit: int | None, facts: Facts) -> VerdictRow | None:
    """Peak resident bytes of the clean process that runs the model, less those of the empty process."""
    if limit is None:
        return None
    peak = peak_bytes(facts.chosen.latency)
    evidence: Evidence
    if peak is not None:
        value, evidence, note = peak, "measured_on_target", "peak of the clean process"
    elif facts.predicted_memory_bytes is not None:
        value, evidence = facts.predicted_memory_bytes, "predicted"
        note = "weights, activations and the runtime"
    else:
        return VerdictRow(
            limit="memory_bytes", allowed=limit, status="unconfirmed", note="not measured",
            advice=ON_BOARD,
        )  # fmt: skip
    status = _decide(value <= limit, evidence)
    advice = {"pass": "", "unconfirmed": ON_BOARD}
    return VerdictRow(
        limit="memory_bytes", allowed=limit, observed=value, evidence=evidence, status=status,
        note=note, advice=advice.get(status, "a smaller student or input, or a higher --memory-mb"),
    )  # fmt: skip


def top1_row(limit: float | None, facts: Facts) -> VerdictRow | None:
    """Top-1 of the chosen file on the test images."""
    top1 = facts.chosen.top1
    if limit is None:
        return None
    if top1 is None:
        return _unknown("min_top1", limit)
    status: Status = "pass" if top1.value >= limit else "fail"
    note = f"{top1.n} test images, the file itself run by the kit"
    if status == "pass" and top1.ci95 is not None and top1.ci95[0] < limit:
        note += "; the limit lies inside the 95 % interval"
    advice = "more images or epochs (--set distill.epochs=...), a stronger teacher, or a looser latency limit"
    return VerdictRow(
        limit="min_top1", allowed=limit, observed=top1.value,
        status=status, note=note, advice="" if status == "pass" else advice,
    )  # fmt: skip


def drop_row(limit: float | None, facts: Facts) -> VerdictRow | None:
    """Top-1 that the chosen file loses against its own float32 student."""
    drop = facts.chosen.drop
    if limit is None:
        return None
    if drop is None:
        return _unknown("max_top1_drop", limit)
    lost = 0.0 - drop.value
    status: Status = "pass" if lost <= limit else "fail"
    return VerdictRow(
        limit="max_top1_drop", allowed=limit, observed=lost,
        status=status, note=f"against {drop.against}, same test images",
        advice="" if status == "pass" else "another precision, or a higher --max-drop",
    )  # fmt: skip


def _unknown(limit: str, allowed: float) -> VerdictRow:
    """A limit on an accuracy that nobody measured: never kept in silence."""
    return VerdictRow(
        limit=limit, allowed=allowed, status="unconfirmed", note="not measured",
        advice="score it on the device: python3 ontarget.pyz eval .",
    )  # fmt: skip


def sentence(status: Status, rows: Sequence[VerdictRow], facts: Facts) -> str:
    """The verdict for a person, in one sentence."""
    what = f"{facts.student} in {facts.chosen.precision} for {facts.device}"
    if not rows:
        return f"{what} is built; no limit was given, so there is none to miss."
    names = {
        "latency_s": "latency", "size_bytes": "size", "memory_bytes": "memory",
        "min_top1": "accuracy", "max_top1_drop": "accuracy drop",
    }  # fmt: skip
    if status == "fail":
        missed = [names[r.limit] for r in rows if r.status == "fail"]
        return f"{what} misses {_and(missed)}: {len(missed)} of {len(rows)} limits."
    if status == "unconfirmed":
        open_ = [names[r.limit] for r in rows if r.status == "unconfirmed"]
        kept = len(rows) - len(open_)
        verb = "is" if len(open_) == 1 else "are"
        return (
            f"{what} keeps {kept} of {len(rows)} limits as measured; {_and(open_)} {verb} not yet "
            "measured on the device and must be confirmed there."
        )
    if len(rows) == 1:
        return f"{what} keeps its one limit, as measured."
    return f"{what} keeps all {len(rows)} limits, each of them measured."


def _and(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
