"""How numbers and foreign text are written in every view: ms, MB, points, safe names.

The document keeps SI units; only here do seconds become ms and bytes MB (1 MB = 1e6 bytes). Unknown
is "not measured". Names of classes and files are foreign: control and bidirectional characters are
spelled out, never emitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from edgedistill.evidence.gate import current, plain
from edgedistill.evidence.view.foreign import short as short
from edgedistill.evidence.view.foreign import visible as visible
from edgedistill.result import (
    Artifact,
    BuilderAnswer,
    Data,
    Evidence,
    Gain,
    Latency,
    Proportion,
    Result,
    SeedGain,
    Status,
    VerdictRow,
)

UNKNOWN = "not measured"
RUNS_NEEDED = {"p50": 11, "p90": 64, "p95": 130, "p99": 662, "p999": 6636}
"""Runs for a bound at 99 % confidence by the conservative order statistic."""

STATUS_WORD: dict[Status, str] = {"pass": "PASS", "fail": "FAIL", "unconfirmed": "UNCONFIRMED"}
EVIDENCE_WORD: dict[Evidence, str] = {
    "measured_on_target": "measured on target",
    "measured_on_proxy": "measured on proxy",
    "predicted": "predicted",
}
EVIDENCE_ORDER: tuple[Evidence, ...] = ("measured_on_target", "predicted", "measured_on_proxy")
LIMIT_NAME = {
    "latency_s": "Latency",
    "size_bytes": "Size",
    "memory_bytes": "Memory",
    "min_top1": "Top-1 accuracy",
    "max_top1_drop": "Drop in top-1",
}


def beside(data: Data) -> str:
    """What stands beside the splits: files left out, and images without labels."""
    more = f"; {data.unlabelled:,} more images without labels" if data.unlabelled else ""
    return f"{data.skipped:,} files left out{more}"


def significant(value: float, digits: int = 3) -> str:
    """`value` in plain decimals with about `digits` significant digits and thousands marks."""
    if value == 0 or not math.isfinite(
        value
    ):  # of what a document may hold, 1,000 times may be infinite
        return "0" if value == 0 else "\u221e"
    exponent = math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(digits - 1 - exponent, 0), 12)}f}"


def milliseconds(seconds: float | None, digits: int = 3) -> str:
    """Seconds as ms."""
    return UNKNOWN if seconds is None else f"{significant(seconds * 1e3, digits)} ms"


def megabytes(size_bytes: float | None, digits: int = 3) -> str:
    """Bytes as MB of 1e6 bytes."""
    return UNKNOWN if size_bytes is None else f"{significant(size_bytes / 1e6, digits)} MB"


def gigabytes(size_bytes: float | None) -> str:
    """Memory of a machine in GB of 1e9 bytes."""
    return UNKNOWN if size_bytes is None else f"{significant(size_bytes / 1e9)} GB"


def duration(seconds: float | None) -> str:
    """Seconds of work for people: `0.41 s`, `9.2 s`, `12.3 s`, `4 min 12 s`, `1 h 04 min`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 59.95:
        return f"{significant(seconds, 2 if seconds < 9.95 else 3)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def time_unit(seconds: float) -> tuple[float, str]:
    """Seconds in the unit that an axis up to `seconds` is written in, and its name."""
    if seconds < 180:
        return 1.0, "s"
    return (60.0, "min") if seconds < 3 * 3600 else (3600.0, "h")


def operations(value: float | None) -> str:
    """Floating-point operations in all, not a rate: `241 TFLOP`."""
    if value is None:
        return UNKNOWN
    scale, unit = operations_unit(value)
    return f"{significant(value / scale)} {unit}"


def operations_unit(value: float) -> tuple[float, str]:
    """Operations in the unit that `value` is written in, and its name."""
    for scale, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= scale:
            return scale, f"{prefix}FLOP"
    return 1.0, "FLOP"


def nats(value: float | None) -> str:
    """An entropy in nats."""
    return UNKNOWN if value is None else f"{value:.3f} nats"


def count(value: int | None) -> str:
    """A whole number with thousands marks."""
    return UNKNOWN if value is None else f"{value:,}"


def magnitude(value: int | None) -> str:
    """Parameters or multiply-accumulates: `2.49 M`, `1.3 G`."""
    if value is None:
        return UNKNOWN
    for scale, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= scale:
            return significant(value / scale) + unit
    return str(value)


def percent(value: float | None, decimals: int = 1) -> str:
    """A fraction as per cent."""
    return UNKNOWN if value is None else f"{value * 100:.{decimals}f} %"


def signed_percent(value: float) -> str:
    """A relative change as per cent with its sign: `+1.4 %`."""
    return f"{value * 100:+.1f} %".replace("-", "\u2212")


def percent_of(value: float | None, digits: int = 3) -> str:
    """A fraction as per cent with `digits - 1` decimals."""
    if value is None:
        return UNKNOWN
    return f"{value * 100:.{digits - 1}f} %"


def points(value: float | None, digits: int = 3) -> str:
    """A difference of fractions as percentage points with `digits - 1` decimals."""
    if value is None:
        return UNKNOWN
    return f"{value * 100:.{digits - 1}f} points"


def signed_points(value: float | None, decimals: int = 2) -> str:
    """A difference of fractions as percentage points with its sign."""
    if value is None:
        return UNKNOWN
    text = f"{value * 100:+.{decimals}f}"
    return "0 points" if float(text) == 0 else text.replace("-", "\u2212") + " points"


def decimals_for(n: int) -> int:
    """Decimals of a per cent that `n` images can carry: two from 1,000 on."""
    return 2 if n >= 1000 else 1


def accuracy(top1: Proportion | None) -> str:
    """The value of a proportion: `91.35 %`."""
    return UNKNOWN if top1 is None else percent(top1.value, decimals_for(top1.n))


def interval(top1: Proportion | None) -> str:
    """The 95 % interval of a proportion: `90.04 to 92.50 %`."""
    if top1 is None or top1.ci95 is None:
        return UNKNOWN
    places = decimals_for(top1.n)
    return f"{top1.ci95[0] * 100:.{places}f} to {top1.ci95[1] * 100:.{places}f} %"


def gain_interval(gain: Gain | SeedGain) -> str:
    """The 95 % interval of a gain in points: `+0.42 to +2.10 points`."""
    if gain.ci95 is None:
        return UNKNOWN
    low, high = (f"{v * 100:+.2f}".replace("-", "\u2212") for v in gain.ci95)
    return f"{low} to {high} points"


def p_value(value: float) -> str:
    """A p value: `p = 0.034`, `p < 0.001`."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def small(value: float | None) -> str:
    """A small difference between logits: `3.1e-05`."""
    return UNKNOWN if value is None else f"{value:.2g}"


def percentile(latency: Latency, which: str) -> str:
    """`p50`, `p90` or `p99` of a measurement; where it has too few runs, how many it needs."""
    value: float | None = getattr(latency, f"{which}_s")
    if value is not None:
        return milliseconds(value)
    needed = RUNS_NEEDED[which]
    if latency.evidence == "predicted" or not 0 < latency.n < needed:
        return UNKNOWN
    return f"needs {needed:,} runs"


def lower(latency: Latency, which: str) -> str:
    """The lower bound that belongs to a percentile: `from 1.02 ms`; empty where none is known."""
    value = latency.low.get(f"{which}_s", latency.low.get(which))
    return "" if value is None else f"from {milliseconds(value)}"


def headline(latency: Latency) -> tuple[str, float | None]:
    """The percentile that a limit looks at: p90 where it was measured, else p50 (a prediction has one point)."""
    return ("p50", latency.p50_s) if latency.p90_s is None else ("p90", latency.p90_s)


def band(bounds: tuple[float, float] | None) -> str:
    """A band of predicted seconds: `3.1 to 5.2 ms`."""
    if bounds is None:
        return UNKNOWN
    return f"{significant(bounds[0] * 1e3)} to {significant(bounds[1] * 1e3)} ms"


def provider(latency: Latency) -> str:
    """The execution provider in short: `CPU`."""
    return latency.provider.removesuffix("ExecutionProvider")


def runs_on(latency: Latency) -> str:
    """Runtime, provider, threads and batch of a measurement."""
    threads = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
    parts = [
        latency.runtime,
        provider(latency),
        threads if latency.threads else "",
        f"batch {latency.batch}",
    ]
    return ", ".join(part for part in parts if part)


def best_latency(latencies: list[Latency]) -> Latency | None:
    """The measurement with the strongest word about the target, and of these the fastest of what a limit means; `None`
    when there is none.
    """
    known = [x for x in current(latencies) if x.p50_s is not None]

    def rank(row: Latency) -> tuple[int, bool, float]:
        return EVIDENCE_ORDER.index(row.evidence), not plain(row), headline(row)[1] or 0.0

    return min(known, key=rank, default=None)


_WRITE: dict[str, Callable[[float, int], str]] = {
    "latency_s": milliseconds,
    "size_bytes": megabytes,
    "memory_bytes": megabytes,
    "min_top1": percent_of,
    "max_top1_drop": points,
}


def limit_name(row: VerdictRow) -> str:
    """The limit in words."""
    return LIMIT_NAME.get(row.limit, row.limit)


def limit_numbers(row: VerdictRow) -> tuple[str, str]:
    """`(allowed, observed)` of a limit, with as many digits as it takes to tell them apart."""
    write = _WRITE.get(row.limit, significant)
    direction = "at least" if row.limit.startswith("min_") else "at most"
    if row.observed is None:
        return f"{direction} {write(row.allowed, 3)}", UNKNOWN
    for digits in range(3, 13):
        allowed, observed = write(row.allowed, digits), write(row.observed, digits)
        if allowed != observed or row.allowed == row.observed:
            break
    return f"{direction} {allowed}", observed


def limit_evidence(row: VerdictRow) -> str:
    """The evidence grade of a row in words; size and accuracy are properties of the file itself."""
    if row.evidence is not None:
        return EVIDENCE_WORD[row.evidence]
    return "none" if row.observed is None else "the file itself"


def fact(value: Any) -> str:
    """A declared fact of a device: numbers with thousands marks, the rest as text."""
    if value is None:
        return "not stated"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e6 else f"{value:,.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {fact(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(fact(v) for v in value)
    return str(value)


def attempts(result: Result) -> list[str]:
    """What was built before the student of the report, and which limit it missed."""
    return [
        f"Built before and given up: {one.candidate.model} at {one.candidate.input_size} px in "
        f"{one.candidate.precision}: {'; '.join(one.missed)}."
        for one in result.plan.attempts
    ]


def file_words(artifact: Artifact) -> str:
    """Why a file ships or does not, how it was made, and what TensorRT says of it."""
    answer = artifact.builder
    parts = [artifact.reason, artifact.made, builder_words(answer) if answer is not None else ""]
    return "; ".join(part for part in parts if part)


def builder_words(answer: BuilderAnswer) -> str:
    """What TensorRT's parser and builder say of a file, and for whom."""
    if answer.reasons:
        return f"refused by {answer.builder} for SM {answer.sm}: {'; '.join(answer.reasons)}"
    return f"accepted by {answer.builder} for SM {answer.sm} (parsed and built, not run)"
