"""What a training will give, from the runs that were made before it: a law for each way of learning, or none.

A law is fitted to rows of the ledger that can be compared: the same validation images, the same way of learning, or
students with and without a teacher together, who share what no teacher changes. Its form, and what counts as the size
of a student, are those that say dearer runs best from cheaper ones. It says how far it can be trusted, and where it no
longer holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgedistill.compute.fit import Fitted, fewest, fit
from edgedistill.compute.images import ALONE, TAUGHT, TOGETHER
from edgedistill.compute.law import Array, Form, Runs
from edgedistill.compute.ledger import Row

What = Literal["loss", "error"]
Size = Literal["macs", "params"]
SIZES: tuple[Size, ...] = ("macs", "params")
FEWEST = 12
"""Runs that a law is fitted to at least."""
CUTS = (0.6, 0.8)
"""Shares of the runs, by cost, from which the next ones are said while a form is chosen."""
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
    """A fitted law: what it is about and of which way, `size` of a student in it, and the median relative error on
    dearer runs of that way by which it was chosen.
    """

    way: Way
    what: What
    size: Size
    fitted: Fitted
    held_out: float

    def say(self, asked: Asked) -> Said:
        """What the law says of a training that was not made."""
        return self.say_all([asked])[0]

    def values(self, asked: Sequence[Asked]) -> Array:
        """The values (R,) that the law says, without their bands."""
        return self.fitted.loss(_runs(asked, self.size))

    def beside(self, asked: Sequence[Asked]) -> list[Asked]:
        """The same questions with what this law, of students without a teacher, says of them."""
        values = self.values(asked)
        return [replace(one, alone=float(v)) for one, v in zip(asked, values, strict=True)]

    def say_all(self, asked: Sequence[Asked]) -> list[Said]:
        """What the law says of each."""
        runs = _runs(asked, self.size)
        value, (low, high) = self.fitted.loss(runs), self.fitted.band(runs)
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


@dataclass(frozen=True)
class _Pick:
    """What says dearer rows best: a form, a size, its errors on dearer rows of each way, and the rows and questions."""

    form: Form
    size: Size
    errors: tuple[float, ...]
    rows: tuple[Row, ...]
    asked: tuple[Asked, ...]

    @property
    def error(self) -> float:
        """The mean over ways, in tenths of a per cent."""
        return _tenths(float(np.mean(self.errors)))

    def laws(self, what: What, bootstrap: int) -> list[Law]:
        """The laws of the ways among the rows, fitted to all of them: without a teacher first."""
        values = np.array([value_of(row, what) for row in self.rows])
        runs = _runs(self.asked, self.size)
        fitted = fit(self.form, runs, values, bootstrap=bootstrap, followed=FOLLOWED)
        ways = {way.taught: way for way in map(way_of, self.rows)}
        return [
            Law(ways[taught], what, self.size, fitted, error)
            for taught, error in zip(sorted(ways), self.errors, strict=True)
        ]


def learn_both(
    plain: Sequence[Row], taught: Sequence[Row], what: What, *, bootstrap: int = 100
) -> tuple[Law | None, Law | None]:
    """The laws of students without and with a teacher, from rows of one way each: one law of both where there are
    enough of each, else one of those that there are enough of.

    Laws of each way alone are not weighed against it: with a few dozen rows they now and then say the next ones better
    by chance, and those after them worse (docs/scaling.md).
    """
    both = _pick_both(plain, taught, what)
    if both is not None:
        one, other = both.laws(what, bootstrap)
        return one, other
    alone = learn(plain, what, bootstrap=bootstrap)
    return alone, learn(taught, what, alone, bootstrap=bootstrap)


def learn(
    rows: Sequence[Row], what: What, alone: Law | None = None, *, bootstrap: int = 100
) -> Law | None:
    """The law of rows of one way; `None` where there are too few, or no form says dearer runs from cheaper ones.

    Where the way has a teacher, `alone` says the value without one; a form that reads it is left out without.
    """
    pick = _pick_own(rows, what, alone)
    return None if pick is None else pick.laws(what, bootstrap)[0]


def _pick_own(rows: Sequence[Row], what: What, alone: Law | None) -> _Pick | None:
    known = [row for row in rows if _usable(row, what, alone)]
    if len(known) < FEWEST:
        return None
    every = (*TAUGHT, *TOGETHER) if way_of(known[0]).taught else ALONE
    forms = [form for form in every if alone is not None or "alone" not in form.reads]
    return _pick(forms, known, what, alone)


def _pick_both(plain: Sequence[Row], taught: Sequence[Row], what: What) -> _Pick | None:
    known = [row for row in taught if _usable(row, what, None)]
    if min(len(plain), len(known)) < FEWEST:
        return None
    return _pick(TOGETHER, [*plain, *known], what, None)


def _pick(
    forms: Sequence[Form], rows: Sequence[Row], what: What, alone: Law | None
) -> _Pick | None:
    """The form and the size that say dearer rows best; `None` where none says any."""
    asked = tuple(asked_of(rows, what, alone))
    values = np.array([value_of(row, what) for row in rows])
    cost = np.array([sum(row.flops.values()) for row in rows])
    group = np.array([row.method is not None for row in rows], dtype=np.int64)
    tried = [
        _Pick(
            form, size, _errors(form, _runs(asked, size), values, cost, group), tuple(rows), asked
        )
        for form in forms
        for size in (SIZES if "size" in form.reads else SIZES[:1])
    ]
    best = min(tried, key=lambda pick: (pick.error, len(pick.form.parameters)), default=None)
    return None if best is None or not np.isfinite(best.error) else best


def _tenths(error: float) -> float:
    """An error in tenths of a per cent: what is less makes no law better than a simpler one."""
    return round(error, 3)


def _errors(
    form: Form, runs: Runs, values: Array, cost: Array, group: npt.NDArray[np.int64]
) -> tuple[float, ...]:
    """Median relative error on dearer runs of each group, from the cheaper ones of all groups."""
    share = np.empty(len(cost))
    for which in np.unique(group):
        own = np.flatnonzero(group == which)
        share[own[np.argsort(cost[own], kind="stable")]] = (np.arange(len(own)) + 0.5) / len(own)
    off = np.full(len(cost), np.nan)
    for begin, end in itertools.pairwise((*CUTS, 1.0)):
        before, after = share < begin, (share >= begin) & (share < end)
        if before.sum() <= fewest(form):
            return (float("inf"),) * len(np.unique(group))
        fitted = fit(form, runs[before], values[before], bootstrap=0, followed=TRIED, rough=True)
        off[after] = np.abs(fitted.loss(runs[after]) / values[after] - 1)
    return tuple(float(np.nanmedian(off[group == which])) for which in np.unique(group))


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
        taught=np.array([one.teacher is not None for one in asked], dtype=np.float64),
    )
