"""Laws for images: sums of powers of what a run has, for networks that see the same images again and again.

The published laws count each token once. Here a network sees U different images S times in all, and both amounts
matter by themselves: the different images bound what can be known (Hestness et al. 2017, arXiv 1712.00409), the images
shown how much of it is learned by now (Kaplan et al. 2020, arXiv 2001.08361, section 5: data and steps as terms of
their own). Shown very often, they are learned by heart, and the cross entropy rises again while the network grows sure
of itself (Guo et al. 2017, arXiv 1706.04599): a term that grows. Which of these terms a law has is chosen by how well
it says the loss of dearer runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgedistill.compute.law import (
    LOWEST_EXPONENT,
    REPEATED,
    Array,
    Form,
    Parameter,
    Runs,
    between,
    distillation,
    fixed,
    supervised,
)

COMMON = {"size": 3e6, "unique": 3e3, "seen": 3.6e4, "teacher": 0.45}
"""Amounts at which a term has its scale: those of a short training of a small student, and a middling teacher's loss.
It makes no other law, but what is likely of a scale then does not hang on the exponent."""
AMOUNTS: Mapping[str, Callable[[Runs], Array]] = {
    "size": lambda runs: np.log(runs.size / COMMON["size"]),
    "unique": lambda runs: np.log(runs.unique / COMMON["unique"]),
    "seen": lambda runs: np.log(runs.seen / COMMON["seen"]),
    "repeats": lambda runs: np.log(np.maximum(runs.seen / runs.unique, 1.0)),
    "taught": lambda runs: runs.taught,
    "teacher": lambda runs: runs.taught * np.log(runs.teacher / COMMON["teacher"]),
}
"""Logarithms (R,) of what a term may depend on. With a teacher each term may be another, and the more so the better it
is: `taught` is the logarithm of a factor e."""
EITHER = {"taught": 0.3, "teacher": 0.5}
"""Amounts whose exponents may be of either sign, and the spread of what is likely about 0."""


@dataclass(frozen=True)
class Term:
    """A summand: a scale times powers of amounts, `(amount, sign)`, each with an exponent of its own above 0."""

    name: str
    powers: tuple[tuple[str, int], ...] = ()


LIKELY_EXPONENT, LIKELY_SCALE = (0.5, 0.3), (-2.0, 2.0)
"""Centre and spread: exponents of published laws lie between 0.1 and 0.7 (Hestness et al. 2017; Kaplan et al. 2020;
Busbridge et al. 2025). Without them a term that a few runs say nothing of takes any value, and extrapolates so."""
FLOOR = Term("floor")
SIZE = Term("size", (("size", -1),))
UNIQUE = Term("unique", (("unique", -1),))
SEEN = Term("seen", (("seen", -1),))
SEEN_BY_SIZE = Term("seen", (("seen", -1), ("size", -1)))
BY_HEART = Term("by_heart", (("repeats", 1), ("unique", -1)))


def sum_of_powers(name: str, terms: tuple[Term, ...]) -> Form:
    """L = sum over terms of exp(scale) * prod amount^(sign * exponent)."""
    parameters: list[Parameter] = []
    for term in terms:
        parameters.append(Parameter(f"log_{term.name}", -25.0, 15.0, (-3.0, -1.0), LIKELY_SCALE))
        parameters += [_exponent(f"{term.name}_by_{amount}", amount) for amount, _ in term.powers]

    def log_loss(values: Array, runs: Runs) -> tuple[Array, Array]:
        columns = _columns(terms, runs)
        shape = (*values.shape[:-1], len(runs))
        parts, place = [], 0
        for column in columns:
            width = column.shape[1]
            parts.append(values[..., place : place + width] @ column.T)
            place += width
        every = np.stack([np.broadcast_to(part, shape) for part in parts])
        total = np.logaddexp.reduce(every, axis=0)
        shares = np.exp(every - total)
        slopes = [shares[k][..., None] * columns[k] for k in range(len(terms))]
        return total, np.concatenate(slopes, axis=-1)

    amounts = dict.fromkeys(amount for term in terms for amount, _ in term.powers)
    reads = dict.fromkeys("seen" if amount == "repeats" else amount for amount in amounts)
    if "repeats" in amounts:
        reads["unique"] = None
    reads.pop("taught", None)
    return Form(name, tuple(parameters), log_loss, tuple(reads), "own")


def _exponent(name: str, amount: str) -> Parameter:
    if amount in EITHER:
        return Parameter(name, -3.0, 3.0, (0.0,), (0.0, EITHER[amount]))
    return Parameter(name, LOWEST_EXPONENT, 4.0, (0.3, 0.8), LIKELY_EXPONENT)


def _with_teacher(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    """The same terms, each another one with a teacher."""
    return tuple(Term(t.name, (*t.powers, ("taught", 1), ("teacher", 1))) for t in terms)


def _columns(terms: tuple[Term, ...], runs: Runs) -> list[Array]:
    """For each term a matrix (R, 1 + powers) that its parameters are multiplied by."""
    return [
        np.stack([np.ones(len(runs)), *(sign * AMOUNTS[amount](runs) for amount, sign in term.powers)], axis=1)
        for term in terms
    ]  # fmt: skip


SETS: Mapping[str, tuple[Term, ...]] = {
    "size and images shown": (FLOOR, SIZE, SEEN),
    "different images and images shown": (FLOOR, UNIQUE, SEEN),
    "size, different images and images shown": (FLOOR, SIZE, UNIQUE, SEEN),
    "size, different images, images shown and learning by heart": (FLOOR, SIZE, UNIQUE, SEEN, BY_HEART),
    "size, different images, images shown by size and learning by heart": (
        FLOOR, SIZE, UNIQUE, SEEN_BY_SIZE, BY_HEART,
    ),
}  # fmt: skip
ALONE: tuple[Form, ...] = (
    *(sum_of_powers(name, terms) for name, terms in SETS.items()),
    fixed(supervised(), gamma=1.0),
    fixed(supervised(REPEATED), gamma=1.0),
    supervised(REPEATED),
)
"""What a law of students without a teacher is chosen from."""
TAUGHT: tuple[Form, ...] = (between(), distillation(REPEATED))
"""What a law of taught students alone is chosen from."""
TOGETHER: tuple[Form, ...] = tuple(
    sum_of_powers(f"{name}; with and without a teacher", _with_teacher(terms))
    for name, terms in SETS.items()
)
"""What a law of students with and without a teacher is chosen from: they share what no teacher changes."""
