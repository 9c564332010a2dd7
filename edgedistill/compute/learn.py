"""How a law is made of rows that can be compared: the same validation images, the same way of learning, or students
with and without a teacher together, who share what no teacher changes.

Its form, and what counts as the size of a student, are those that say dearer runs best from cheaper ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgedistill.compute.fit import Fitted, fewest, fit
from edgedistill.compute.images import ALONE, TAUGHT, TOGETHER
from edgedistill.compute.law import Array, Form
from edgedistill.compute.ledger import Row
from edgedistill.compute.predict import (
    Asked,
    Law,
    Own,
    Size,
    What,
    asked_of,
    early_of,
    own_of,
    runs_asked,
    value_of,
    way_of,
)

SIZES: tuple[Size, ...] = ("macs", "params")
FEWEST = 12
"""Runs that a law is fitted to at least."""
CUTS = (0.6, 0.8)
"""Shares of the runs, by cost, from which the next ones are said while a form is chosen."""
FOLLOWED, TRIED = 8, 3
"""Starts that are followed for the law that stays, and for each form that it is chosen from."""
BEGINNING = 10 / 3
"""Spread of what is likely of a student's own beginning, squared, in variances of a run."""
LASTING = (0.0, 1 / 3)
"""The same of what stays of it: nothing does, or that much."""


@dataclass(frozen=True)
class _Pick:
    """What says dearer rows best: a form, a size, its errors on dearer rows of each way, and the rows and questions."""

    form: Form
    size: Size
    lasting: float
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
        runs = runs_asked(self.asked, self.size)
        fitted = fit(self.form, runs, values, bootstrap=bootstrap, followed=FOLLOWED)
        own, freedom = _own(fitted, self.asked, self.lasting)
        lift = own_of(own, [one.model for one in self.asked], early_of(fitted, runs))
        fitted = replace(
            fitted, residuals=fitted.residuals - lift, freedom=fitted.freedom + freedom
        )
        ways = {way.taught: way for way in map(way_of, self.rows)}
        return [
            Law(ways[taught], what, self.size, fitted, own, error)
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
        _Pick(form, size, lasting, errors, tuple(rows), asked)
        for form in forms
        for size in (SIZES if "size" in form.reads else SIZES[:1])
        for lasting, errors in _errors(form, size, asked, values, cost, group).items()
    ]
    best = min(
        tried, key=lambda pick: (pick.error, pick.lasting, len(pick.form.parameters)), default=None
    )
    return None if best is None or not np.isfinite(best.error) else best


def _tenths(error: float) -> float:
    """An error in tenths of a per cent: what is less makes no law better than a simpler one."""
    return round(error, 3)


def _own(fitted: Fitted, asked: Sequence[Asked], lasting: float) -> tuple[dict[str, Own], float]:
    """What each student has of its own, by ridge regression of the residuals, and the degrees of freedom of that."""
    early, names = early_of(fitted, fitted.runs), np.array([one.model for one in asked])
    spread = np.sqrt([BEGINNING, lasting])
    columns = np.stack([early, np.ones(len(early))], axis=1) * spread
    found, freedom = {}, 0.0
    for name in np.unique(names):
        mine, off = columns[names == name], fitted.residuals[names == name]
        squares = mine.T @ mine
        inverse = np.linalg.inv(squares + np.eye(2))
        found[str(name)] = Own(*(spread * (inverse @ (mine.T @ off))).tolist())
        freedom += float(np.trace(inverse @ squares))
    return found, freedom


def _errors(
    form: Form,
    size: Size,
    asked: Sequence[Asked],
    values: Array,
    cost: Array,
    group: npt.NDArray[np.int64],
) -> dict[float, tuple[float, ...]]:
    """Median relative error on dearer runs of each group, from the cheaper ones of all groups, for each of LASTING."""
    runs = runs_asked(asked, size)
    share = np.empty(len(cost))
    for which in np.unique(group):
        rows = np.flatnonzero(group == which)
        dearer = rows[np.argsort(cost[rows], kind="stable")]
        share[dearer] = (np.arange(len(rows)) + 0.5) / len(rows)
    off = np.full((len(LASTING), len(cost)), np.nan)
    for begin, end in itertools.pairwise((*CUTS, 1.0)):
        before, after = share < begin, (share >= begin) & (share < end)
        if before.sum() <= fewest(form):
            return {}
        fitted = fit(form, runs[before], values[before], bootstrap=0, followed=TRIED, rough=True)
        early, said = early_of(fitted, runs[after]), fitted.loss(runs[after])
        known = [asked[int(k)] for k in np.flatnonzero(before)]
        models = [asked[int(k)].model for k in np.flatnonzero(after)]
        for place, lasting in enumerate(LASTING):
            lift = own_of(_own(fitted, known, lasting)[0], models, early)
            off[place, after] = np.abs(said * np.exp(lift) / values[after] - 1)
    return {
        lasting: tuple(float(np.nanmedian(of[group == which])) for which in np.unique(group))
        for lasting, of in zip(LASTING, off, strict=True)
    }


def _usable(row: Row, what: What, alone: Law | None) -> bool:
    if row.method is None:
        return True
    return (
        row.teacher is not None
        and row.teacher.val is not None
        and (alone is None or alone.what == what)
    )
