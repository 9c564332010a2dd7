"""Fits a latency model of a machine on networks that were timed there, operator by operator.

Each class of kernels gets its own non-negative terms from the times of single kernels; the sums
are then held to the latency of whole networks, which operator times overstate or miss in part.
Errors are of networks whose family was left out. Needs scipy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgedistill.target.attribute import TimedKernels
from edgedistill.target.features import CLASSES, COLUMNS, by_class, classes_of, columns_of
from edgedistill.target.latency import Component

Floats = npt.NDArray[np.float64]

LEAST_KERNELS = 3
"""Kernels of a class that are needed for terms of its own."""
STANDS_IN = {
    "depthwise_wide": "depthwise",
    "depthwise_odd": "depthwise",
    "depthwise_many": "depthwise_odd",
    "pointwise_odd": "pointwise",
    "stem": "dense",
    "grouped": "dense",
    "dense": "pointwise",
    "attention": "pointwise",
    "squeeze_excite": "fully_connected",
    "fully_connected": "pointwise",
    "normalisation": "elementwise",
    "movement": "elementwise",
    "pooling": "elementwise",
}
LEAST_LEFT = 0.3
"""Share of an operator's time that is left to it, whatever its clock cost."""
FLOOR_S = 5e-6
"""Added to a kernel's time before errors are taken relative to it: clocks and caches blur less."""
PENALTY = 1.0
"""How strongly terms of single kernels hold against whole networks; chosen on one x86-64 machine
with 62 networks that were no anchors: docs/log.md."""
COVERAGE = 0.9
LEAST_BAND = 0.08


@dataclass(frozen=True)
class Anchor:
    """A network that was timed: its summed features, its kernels with their seconds, and the
    latency of a whole run."""

    name: str
    family: str
    features: Floats
    kernels: TimedKernels
    latency_s: float


@dataclass(frozen=True)
class Fit:
    """The fitted sum, and relative errors of each anchor: when its family was left out, and as fitted."""

    component: Component
    errors: Floats
    residuals: Floats

    @property
    def band(self) -> tuple[float, float]:
        """Factors on the point that hold 90 % of the students of a machine.

        Anchors are the odd ones out, chosen for what they teach, so that leaving one out errs far more than
        predicting an ordinary student does, and keeping it errs less. In a linear fit one of the two errors has
        shrunk by the same share of its variance by which the other has grown: their product is free of it.
        """
        logs = np.sqrt(np.abs(np.log1p(self.errors) * np.log1p(self.residuals)))
        half = max(LEAST_BAND, float(np.quantile(logs, COVERAGE)))
        return math.exp(-half), math.exp(half)


def fit(anchors: Sequence[Anchor]) -> Fit:
    """Fit a machine at one precision. Raises `ValueError` with fewer than four families."""
    families = sorted({a.family for a in anchors})
    if len(families) < 4:
        raise ValueError(f"a fit needs networks of four families, has {', '.join(families)}")
    errors = np.zeros(len(anchors))
    for family in families:
        terms = _fit([a for a in anchors if a.family != family])
        for place, anchor in enumerate(anchors):
            if anchor.family == family:
                errors[place] = _error(anchor, terms)
    terms = _fit(anchors)
    seconds = {
        f"{kind}.{column}": float(terms[i, j])
        for i, kind in enumerate(CLASSES)
        for j, column in enumerate(COLUMNS)
        if terms[i, j] > 0
    }
    return Fit(Component(seconds), errors, np.array([_error(a, terms) for a in anchors]))


def _error(anchor: Anchor, terms: Floats) -> float:
    return float((by_class(anchor.features) * terms).sum()) / anchor.latency_s - 1


def _fit(anchors: Sequence[Anchor]) -> Floats:
    """Seconds a unit of each fine feature, shape (len(CLASSES), len(COLUMNS)).

    Whole networks set the scale of all terms, and correct those of each class, and of what belongs
    to no kernel, by a factor that a penalty holds near it.
    """
    from scipy.optimize import nnls

    terms = _class_terms(anchors)
    places = np.arange(len(CLASSES))[:, None]
    parts = np.array(
        [np.where(places == i, terms, 0.0) for i in range(len(CLASSES))] + _beside(anchors)
    )
    measured = np.array([a.latency_s for a in anchors])
    fine = np.array([by_class(a.features) for a in anchors])
    shares = np.tensordot(fine, parts, axes=([1, 2], [1, 2])) / measured[:, None]
    scale = 1 / float(np.median(shares.sum(1)))
    parts, shares = parts * scale, shares * scale
    pull = np.sqrt(PENALTY * len(measured)) * np.maximum(shares.mean(0), 1e-6)
    solved, _ = nnls(
        np.vstack([shares, np.diag(pull)]), np.concatenate([np.ones(len(measured)), pull])
    )
    total: Floats = np.tensordot(solved, parts, axes=1)
    return total


def _beside(anchors: Sequence[Anchor]) -> list[Floats]:
    """Terms of what is no kernel: the pixels on their way in, gates and smooth functions under names
    of the runtime's own, and copies that it inserts."""

    def over(kinds: Sequence[str], seconds: float, *columns: str) -> Floats:
        part = np.zeros((len(CLASSES), len(COLUMNS)))
        for kind in kinds:
            for column in columns:
                part[CLASSES.index(kind), COLUMNS.index(column)] = 1.0
        units = sum(float((by_class(a.features) * part).sum()) for a in anchors)
        return part * (seconds / units if units else 0.0)

    def spent(kind: str) -> float:
        clock = _clock_s(anchors)
        return sum(
            max(a.kernels.inserted[kind] - clock * a.kernels.inserted_operators, 0.0)
            for a in anchors
            if a.kernels.inserted[kind]
        )

    return [
        over(("stem",), sum(a.kernels.input_s for a in anchors), "read"),
        over(CLASSES, spent("hard"), "hard"),
        over(CLASSES, spent("smooth"), "smooth"),
        over(CLASSES, spent("other"), "read", "written"),
    ]


def _class_terms(anchors: Sequence[Anchor]) -> Floats:
    """Non-negative terms of each class from the times of single kernels."""
    classes = np.concatenate([classes_of(a.kernels.table) for a in anchors])
    columns = np.concatenate([columns_of(a.kernels.table) for a in anchors])
    seconds = np.concatenate([a.kernels.seconds for a in anchors])
    operators = np.concatenate([a.kernels.operators for a in anchors])
    seconds = np.maximum(seconds - _clock_s(anchors) * operators, LEAST_LEFT * seconds)
    terms: dict[str, Floats] = {}
    for place, kind in enumerate(CLASSES):
        rows = (classes == place) & (seconds > 0)
        if rows.sum() >= LEAST_KERNELS:
            terms[kind] = _kernel_terms(columns[rows], seconds[rows])
    known = np.zeros((len(CLASSES), len(COLUMNS)))
    for place, kind in enumerate(CLASSES):
        stand_in: str | None = kind
        while stand_in is not None and stand_in not in terms:
            stand_in = STANDS_IN.get(stand_in)
        if stand_in is not None:
            known[place] = terms[stand_in]
    return known


def _clock_s(anchors: Sequence[Anchor]) -> float:
    """Seconds that timing adds to each operator: what their sum is longer than the undisturbed run."""
    each = [
        (a.kernels.total_s - a.latency_s) / max(1.0, a.kernels.total_operators) for a in anchors
    ]
    return max(0.0, float(np.median(each)))


def _kernel_terms(columns: Floats, seconds: Floats) -> Floats:
    from scipy.optimize import nnls

    weight = (seconds + FLOOR_S) ** -0.75
    scale = np.maximum(columns.mean(0), 1e-12)
    solved, _ = nnls(columns / scale * weight[:, None], seconds * weight)
    result: Floats = solved / scale
    return result
