"""What a law says of a training: a value with its band, from the student, its images and its teacher.

A law is of the loss or of the error, and of one way of learning. It says how far it can be trusted, and where it no
longer holds. Laws are made in `learn.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from edgedistill.compute.fit import Fitted
from edgedistill.compute.law import Array, Runs
from edgedistill.compute.ledger import Row

What = Literal["loss", "error"]
Size = Literal["macs", "params"]
BEYOND = 4.0
"""How far outside the runs an amount may lie: so many times more than the most, or less than the least of them."""
LEAST_ERROR = 1e-4
Z90 = 1.6449
EARLY, MOST_EARLY = 2e4, 3.0
"""Images shown at which a student's own beginning counts as it is: with fewer up to three times, with more less."""


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


class Own(NamedTuple):
    """What a student has of its own beside others of its size, in the logarithm of the value: how much slower it
    `begins`, in what images shown are still to bring at EARLY of them, and what `stays` however long it learns.
    """

    begins: float
    stays: float


@dataclass(frozen=True)
class Law:
    """A fitted law: what it is about and of which way, `size` of a student in it, what each student has of its own, and
    the median relative error on dearer runs of that way by which it was chosen.
    """

    way: Way
    what: What
    size: Size
    fitted: Fitted
    own: Mapping[str, Own]
    held_out: float

    def say(self, asked: Asked) -> Said:
        """What the law says of a training that was not made."""
        return self.say_all([asked])[0]

    def values(self, asked: Sequence[Asked]) -> Array:
        """The values (R,) that the law says, without their bands."""
        runs = runs_asked(asked, self.size)
        return self.fitted.loss(runs) * self._lift(asked, runs)

    def _lift(self, asked: Sequence[Asked], runs: Runs) -> Array:
        return np.exp(own_of(self.own, [one.model for one in asked], early_of(self.fitted, runs)))

    def beside(self, asked: Sequence[Asked]) -> list[Asked]:
        """The same questions with what this law, of students without a teacher, says of them."""
        values = self.values(asked)
        return [replace(one, alone=float(v)) for one, v in zip(asked, values, strict=True)]

    def say_all(self, asked: Sequence[Asked]) -> list[Said]:
        """What the law says of each. The band of a student that is in no run is wider, by what others have of their
        own.
        """
        runs = runs_asked(asked, self.size)
        lift = self._lift(asked, runs)
        value, (low, high) = self.fitted.loss(runs), self.fitted.band(runs)
        new = np.array([one.model not in self.own for one in asked])
        more = Z90 * self._between(early_of(self.fitted, runs))
        low = np.where(new, value * np.exp(-np.hypot(np.log(value / low), more)), low)
        high = np.where(new, value * np.exp(np.hypot(np.log(high / value), more)), high)
        return [
            Said(
                float(value[k] * lift[k]), float(low[k] * lift[k]), float(high[k] * lift[k]),
                self._outside(runs[k : k + 1]),
            )
            for k in range(len(asked))
        ]  # fmt: skip

    def _between(self, early: Array) -> Array:
        """How far students lie from others of their size (R,), as a standard deviation of the logarithm."""
        every = np.array(list(self.own.values())).reshape(-1, 2)
        begins, stays = (every**2).mean(axis=0) if len(every) else (0.0, 0.0)
        spread: Array = np.sqrt(begins * early**2 + stays)
        return spread

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


def runs_asked(asked: Sequence[Asked], size: Size) -> Runs:
    """Questions as a form reads them."""
    return Runs(
        size=np.array([getattr(one, size) for one in asked], dtype=np.float64),
        seen=np.array([one.seen for one in asked], dtype=np.float64),
        unique=np.array([min(one.unique, one.seen) for one in asked], dtype=np.float64),
        teacher=np.array([one.teacher or 1.0 for one in asked], dtype=np.float64),
        alone=np.array([one.alone or 1.0 for one in asked], dtype=np.float64),
        taught=np.array([one.teacher is not None for one in asked], dtype=np.float64),
    )


def own_of(own: Mapping[str, Own], models: Sequence[str], early: Array) -> Array:
    """The logarithms (R,) of what is each student's own in runs with so much of their beginning; 0 for a new one."""
    found = np.array([own.get(model, Own(0.0, 0.0)) for model in models]).reshape(-1, 2)
    whole: Array = found[:, 0] * early + found[:, 1]
    return whole


def early_of(fitted: Fitted, runs: Runs) -> Array:
    """How much of a run (R,) hangs on how a student begins: the share of what images shown are still to bring, which
    fades with them; 0 in a form without such a term.
    """
    if "log_seen" not in fitted.form.names:
        return np.zeros(len(runs))
    share = fitted.form.log_loss(fitted.values, runs)[1][:, fitted.form.names.index("log_seen")]
    early: Array = share * np.minimum(MOST_EARLY, EARLY / runs.seen)
    return early
