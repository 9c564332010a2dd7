"""One candidate of a plan: a student at an input size and precision, held against each limit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edgedistill.result import Limits, Precision
from edgedistill.target.device import Device
from edgedistill.target.latency import Abstention, Prediction, predict
from edgedistill.target.prior import Earlier, expected_top1
from edgedistill.target.students import Student

Fit = Literal["safe", "possible", "no"]
ORDER = {"safe": 0, "possible": 1, "no": 2}


@dataclass(frozen=True)
class Check:
    """One limit against one candidate, in milliseconds or megabytes."""

    what: str
    unit: str
    allowed: float
    point: float | None
    upper: float | None
    unknown: str = ""
    impossible: bool = False
    floor: float | None = None

    @property
    def verdict(self) -> Fit:
        """An unknown value is neither inside nor outside, so it is possible."""
        if self.impossible:
            return "no"
        if self.point is None or self.upper is None:
            return "no" if self.floor is not None and self.floor > self.allowed else "possible"
        if self.point > self.allowed:
            return "no"
        return "safe" if self.upper <= self.allowed else "possible"

    @property
    def ratio(self) -> float:
        """How many times the limit; 0 when unknown, and without end when impossible."""
        if self.impossible:
            return math.inf
        known = self.floor if self.point is None else self.point
        return 0.0 if known is None else known / max(self.allowed, 1e-12)

    def words(self) -> str:
        """Such as `5.9 ms predicted, 5.0 ms allowed`."""
        allowed = f"{number(self.allowed)} {self.unit} allowed"
        if self.point is None or self.upper is None:
            if self.verdict == "no" and self.floor is not None:
                return f"at least {number(self.floor)} {self.unit}, {allowed}"
            why = f" ({self.unknown})" if self.unknown else ""
            return f"{self.what} cannot be predicted here{why}, {allowed}"
        kind = {"latency": "predicted", "memory": "of memory predicted"}.get(self.what, "file")
        band = f" (up to {number(self.upper)})" if self.upper > self.point else ""
        return f"{number(self.point)} {self.unit} {kind}{band}, {allowed}"


@dataclass(frozen=True)
class Weighed:
    """A candidate with the facts that its reason is made of."""

    student: Student
    input_size: int
    precision: Precision
    pretrained: bool
    prediction: Prediction | None
    abstention: str
    memory_bytes: int | None
    size_bytes: int
    expected: float
    checks: tuple[Check, ...]

    @property
    def fits(self) -> Fit:
        """The worst of all limits."""
        return max((c.verdict for c in self.checks), key=ORDER.__getitem__, default="safe")

    @property
    def miss(self) -> float:
        """How many times the limit that it misses most."""
        return max((c.ratio for c in self.checks), default=0.0)

    def label(self) -> str:
        """Such as `mobilenetv2_100 at 64 px in float16`."""
        return f"{self.student.name} at {self.input_size} px in {self.precision}"

    def latency_words(self) -> str:
        """The predicted latency with its band and tier, in milliseconds."""
        if self.prediction is None:
            return f"no latency is predicted: {self.abstention}"
        low, high = self.prediction.band_s
        point = number(1e3 * self.prediction.latency_s)
        band = f"{number(1e3 * low)} to {number(1e3 * high)}"
        return f"{point} ms predicted ({band}; {self.prediction.words})"


def weigh(
    device: Device,
    limits: Limits,
    student: Student,
    size: int,
    precision: Precision,
    pretrained: bool,
    classes: int,
    detail: int,
    earlier: Earlier,
) -> Weighed:
    """A student at one input size and precision against every limit of the budget.

    `detail` is the input size above which the images hold nothing more.
    """
    found = predict(device, precision, student.network(size, classes))
    prediction = found if isinstance(found, Prediction) else None
    why = found if isinstance(found, Abstention) else Abstention("")
    memory = student.memory_bytes(precision, size, classes, device.runtime_memory_bytes)
    file = student.size_bytes(precision, classes)
    checks = []
    if limits.latency_s is not None:
        point = None if prediction is None else 1e3 * prediction.latency_s
        upper = None if prediction is None else 1e3 * prediction.band_s[1]
        allowed = 1e3 * limits.latency_s
        floor = None if why.floor_s is None else 1e3 * why.floor_s
        facts = (why.words, why.impossible, floor)
        checks.append(Check("latency", "ms", allowed, point, upper, *facts))
    if limits.size_bytes is not None:
        checks.append(Check("size", "MB", limits.size_bytes / 1e6, file / 1e6, file / 1e6))
    if limits.memory_bytes is not None:
        used = None if memory is None else memory / 1e6
        checks.append(Check("memory", "MB", limits.memory_bytes / 1e6, used, used))
    return Weighed(
        student=student,
        input_size=size,
        precision=precision,
        pretrained=pretrained,
        prediction=prediction,
        abstention=why.words,
        memory_bytes=memory,
        size_bytes=file,
        expected=expected_top1(
            student, min(size, detail), precision, pretrained=pretrained, earlier=earlier
        ),
        checks=tuple(checks),
    )


def rounded_up(value: float) -> str:
    """Two digits, never below the value."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1) if value > 0 else 1.0
    return f"{math.ceil(value / step) * step:.6g}"


def number(value: float) -> str:
    """Two digits or more, never scientific: 0.071, 5.9, 12.3, 250."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"
