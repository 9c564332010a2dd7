"""What a training will give, from the runs that were made before it: a law for each way of learning, or none.

A law is fitted to rows of the ledger that can be compared: the same validation images, the same way of learning. Its
form, what counts as the size of a student, and whether students keep their own distance from it, are those that say
dearer runs best from cheaper ones. It says how far it can be trusted, and where it no longer holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edgedistill.compute.fit import Fitted, fit
from edgedistill.compute.images import ALONE, TAUGHT
from edgedistill.compute.law import Array, Form, Runs
from edgedistill.compute.ledger import Row

What = Literal["loss", "error"]
Size = Literal["macs", "params"]
SIZES: tuple[Size, ...] = ("macs", "params")
FEWEST = 12
"""Runs that a law is fitted to at least."""
CUTS = (0.6, 0.8)
"""Shares of the runs, by cost, from which the next ones are said while a form is chosen."""
SHRINK = 2.0
"""A student's own distance is the mean of its residuals as if so many more runs had none."""
BEYOND = 4.0
"""How far outside the runs an amount may lie: so many times more than the most, or less than the least of them."""
FOLLOWED, TRIED = 8, 3
"""Starts that are followed for the law that stays, and for each form that it is chosen from."""
LEAST_ERROR = 1e-4


@dataclass(frozen=True)
class Way:
    """A way of learning, as rows can be compared: arm, method, settings, and where the student starts."""

    kind: str
    method: str | None
    settings: str
    start: str

    @property
    def taught(self) -> bool:
        """Whether a teacher speaks."""
        return self.method is not None


@dataclass(frozen=True)
class Asked:
    """A training to say something of. `alone` is the value without a teacher, `teacher` that of the teacher, for ways
    with one: both of what the law is about.
    """

    model: str
    params: float
    macs: float
    seen: float
    unique: float
    teacher: float | None = None
    alone: float | None = None


@dataclass(frozen=True)
class Said:
    """What a law says: a value with its 90 % band; `outside`: amounts that lie too far from any run, in words."""

    value: float
    low: float
    high: float
    outside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Law:
    """A fitted law: what it is about and of which way, `size` of a student in it, the distance of each student from it
    in logarithms, and the median relative error on dearer runs by which it was chosen.
    """

    way: Way
    what: What
    size: Size
    fitted: Fitted
    own: Mapping[str, float]
    held_out: float

    def say(self, asked: Asked) -> Said:
        """What the law says of a training that was not made."""
        return self.say_all([asked])[0]

    def values(self, asked: Sequence[Asked]) -> Array:
        """The values (R,) that the law says, without their bands."""
        return self.fitted.loss(_runs(asked, self.size)) * self._lift(asked)

    def beside(self, asked: Sequence[Asked]) -> list[Asked]:
        """The same questions with what this law, of students without a teacher, says of them."""
        values = self.values(asked)
        return [replace(one, alone=float(v)) for one, v in zip(asked, values, strict=True)]

    def _lift(self, asked: Sequence[Asked]) -> Array:
        return np.exp([self.own.get(one.model, 0.0) for one in asked])

    def say_all(self, asked: Sequence[Asked]) -> list[Said]:
        """What the law says of each."""
        runs, own = _runs(asked, self.size), self._lift(asked)
        value = self.fitted.loss(runs) * own
        low, high = (edge * own for edge in self.fitted.band(runs))
        return [
            Said(float(value[k]), float(low[k]), float(high[k]), self._outside(runs[k : k + 1]))
            for k in range(len(asked))
        ]

    def _outside(self, run: Runs) -> tuple[str, ...]:
        words, reads = [], self.fitted.form.reads
        amounts = dict.fromkeys((*AMOUNTS, *(("teacher",) if self.way.taught else ()), *reads))
        for name in amounts:
            at, known = float(getattr(run, name)[0]), getattr(self.fitted.runs, name)
            low, high = float(known.min()), float(known.max())
            if not low / BEYOND <= at <= high * BEYOND:
                words.append(f"{WORDS[name]} {at:,.3g}, in the runs {low:,.3g} to {high:,.3g}")
        return tuple(words)


AMOUNTS = ("size", "seen", "unique")
"""What must lie near the runs, also where the form that says them best does not read it."""
WORDS = {
    "size": "size of the student", "seen": "images shown", "unique": "different images",
    "teacher": "the teacher's value", "alone": "the value without a teacher",
}  # fmt: skip


def way_of(row: Row) -> Way:
    """The way in which a row's student learned."""
    return Way(row.kind, row.method, row.settings_sha256, row.student.start)


def value_of(row: Row, what: What) -> float:
    """The value of a row that laws are about, on validation: its loss, or its error of top-1."""
    return row.val.loss if what == "loss" else max(LEAST_ERROR, 1.0 - row.val.top1)


def learn(
    rows: Sequence[Row],
    what: What,
    alone: Law | None = None,
    *,
    bootstrap: int = 100,
    seed: int = 0,
) -> Law | None:
    """The law of rows of one way; `None` where there are too few, or no form says dearer runs from cheaper ones.

    Where the way has a teacher, `alone` says the value without one; a form that reads it is left out without.
    """
    known = [row for row in rows if _usable(row, what, alone)]
    if len(known) < FEWEST:
        return None
    way, taught = way_of(known[0]), way_of(known[0]).taught
    forms = [
        f for f in (TAUGHT if taught else ALONE) if alone is not None or "alone" not in f.reads
    ]
    asked = asked_of(known, what, alone)
    values = np.array([value_of(row, what) for row in known])
    cost = np.array([sum(row.flops.values()) for row in known])
    tried = [
        (error, len(form.parameters), k, SIZES[0], keeps)
        for k, form in enumerate(forms)
        for error, keeps in _errors(form, SIZES[0], asked, values, cost)
    ]
    best = min(tried, key=_order)
    form = forms[best[2]]
    if "size" in form.reads:
        more = _errors(form, SIZES[1], asked, values, cost)
        tried += [(error, best[1], best[2], SIZES[1], keeps) for error, keeps in more]
        best = min([best, *tried[-len(more) :]], key=_order)
    error, _, _, size, keeps = best
    if not np.isfinite(error):
        return None
    fitted = fit(
        form, _runs(asked, size), values, bootstrap=bootstrap, seed=seed, followed=FOLLOWED
    )
    own = _own(asked, fitted.residuals) if keeps else {}
    if own:
        left = fitted.residuals - np.array([own[one.model] for one in asked])
        fitted = replace(fitted, residuals=left)
    return Law(way, what, size, fitted, own, error)


def _order(tried: tuple[float, int, int, Size, bool]) -> tuple[float, int]:
    """By error in tenths of a per cent, then by how few parameters do."""
    return round(tried[0], 3), tried[1]


def _errors(
    form: Form, size: Size, asked: Sequence[Asked], values: Array, cost: Array
) -> list[tuple[float, bool]]:
    """Median relative error on dearer runs, of the law alone and with each student's own distance from it."""
    rank = np.argsort(cost, kind="stable")
    ends = [round(cut * len(rank)) for cut in (*CUTS, 1.0)]
    runs, names = _runs(asked, size), np.array([one.model for one in asked])
    plain: list[Array] = []
    kept: list[Array] = []
    for begin, end in itertools.pairwise(ends):
        if begin <= len(form.parameters) + 1 or end <= begin:
            return [(float("inf"), False)]
        before, after = rank[:begin], rank[begin:end]
        fitted = fit(form, runs[before], values[before], bootstrap=0, followed=TRIED, rough=True)
        own = _own([asked[k] for k in before], fitted.residuals)
        said = fitted.loss(runs[after])
        lifted = said * np.exp([own.get(name, 0.0) for name in names[after]])
        plain.append(np.abs(said / values[after] - 1))
        kept.append(np.abs(lifted / values[after] - 1))
    return [
        (float(np.median(np.concatenate(found))), keeps)
        for found, keeps in ((plain, False), (kept, True))
    ]


def _own(asked: Sequence[Asked], residuals: Array) -> dict[str, float]:
    """The distance of each student from the law, in logarithms, drawn towards 0 where it has few runs."""
    names = np.array([one.model for one in asked])
    return {
        str(name): float(residuals[names == name].sum() / ((names == name).sum() + SHRINK))
        for name in np.unique(names)
    }


def _usable(row: Row, what: What, alone: Law | None) -> bool:
    if row.method is None:
        return True
    return (
        row.teacher is not None
        and row.teacher.val is not None
        and (alone is None or alone.what == what)
    )


def asked_of(rows: Sequence[Row], what: What, alone: Law | None) -> list[Asked]:
    """Rows as questions, for their own law or for that of students without a teacher."""
    found = []
    for row in rows:
        score = None if row.method is None or row.teacher is None else row.teacher.val
        teacher = None
        if score is not None:
            teacher = score.loss if what == "loss" else max(LEAST_ERROR, 1.0 - score.top1)
        student = row.student
        found.append(
            Asked(student.model, student.params, student.macs, row.seen, row.data.train, teacher)
        )
    return found if alone is None else alone.beside(found)


def _runs(asked: Sequence[Asked], size: Size) -> Runs:
    return Runs(
        size=np.array([getattr(one, size) for one in asked], dtype=np.float64),
        seen=np.array([one.seen for one in asked], dtype=np.float64),
        unique=np.array([min(one.unique, one.seen) for one in asked], dtype=np.float64),
        teacher=np.array([one.teacher or 1.0 for one in asked], dtype=np.float64),
        alone=np.array([one.alone or 1.0 for one in asked], dtype=np.float64),
    )
