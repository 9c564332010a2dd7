"""How well laws say trainings that they were not fitted to: the dearest fifth of a ledger from its cheaper four fifths,
by cost within each way of learning, or with --later those rows of another ledger that are in none of the first.

    python -m benchmarks.law_images [--ledger FILE]... [--later FILE]

Of the loss and of the error (of top-1) on validation, as `plan --compute` learns them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.law_runs import LEDGER
from edgedistill.compute.learn import learn_both
from edgedistill.compute.ledger import Ledger, Row
from edgedistill.compute.predict import Law, What, asked_of, value_of
from edgedistill.metrics import wilson

CHEAPER = 0.8
WHATS: tuple[What, ...] = ("loss", "error")


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table, and every held-out row below it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--ledger", type=Path, action="append")
    parser.add_argument("--later", type=Path, help="a ledger of further trainings")
    given = parser.parse_args(argv)
    rows = _rows(given.ledger or [LEDGER])
    later = None
    if given.later is not None:
        every = _rows([given.later])
        later = [row for name, row in every.items() if name not in rows]
        print(f"{len(later)} rows of {given.later.name}; {len(every) - len(later)} are known")
    print(
        "| way | of | fitted to | held to | form, size | median error | largest | in the 90 % band |"
    )
    print("|---|---|---|---|---|---|---|---|")
    details: list[str] = []
    for what in WHATS:
        _lines(list(rows.values()), later, what, details)
    print("\n" + "\n".join(details))


def _rows(ledgers: Sequence[Path]) -> dict[str, Row]:
    """Each row of some ledgers once, by its identity."""
    found: dict[str, Row] = {}
    for ledger in ledgers:
        read = Ledger(ledger).read()
        if read.words:
            print(f"{ledger.name}: {read.words}")
        found |= {row.id: row for row in read.rows}
    return found


def _lines(
    rows: Sequence[Row], further: Sequence[Row] | None, what: What, details: list[str]
) -> None:
    """A line for each way."""
    early, later = [], []
    for taught in (False, True):
        own = _of(rows, taught)
        cut = round(CHEAPER * len(own)) if further is None else len(own)
        early.append(own[:cut])
        later.append(own[cut:] if further is None else _of(further, taught))
    alone, beside = learn_both(early[0], early[1], what)
    off: list[float] = []
    for law, known, held in ((alone, early[0], later[0]), (beside, early[1], later[1])):
        if law is None:
            print(f"| {len(known)} rows | {what} | too few | | | | | |")
        elif held:
            off += _line(law, known, held, alone, details)
    print(
        f"both ways, {what}: median error {100 * np.median(off):.1f} %, n = {len(off)}", flush=True
    )


def _of(rows: Sequence[Row], taught: bool) -> list[Row]:
    """The rows of a way, the cheapest first."""
    own = [row for row in rows if (row.method is not None) == taught]
    return sorted(own, key=lambda row: sum(row.flops.values()))


def _line(
    law: Law, known: Sequence[Row], later: Sequence[Row], alone: Law | None, details: list[str]
) -> list[float]:
    what = law.what
    said = law.say_all(asked_of(later, what, alone if law.way.taught else None))
    truth = [value_of(row, what) for row in later]
    off = np.array([abs(one.value / value - 1) for one, value in zip(said, truth, strict=True)])
    inside = sum(one.low <= value <= one.high for one, value in zip(said, truth, strict=True))
    low, high = wilson(inside, len(later))
    way = "labels alone" if law.way.method is None else f"taught ({law.way.method})"
    print(
        f"| {way} | {what} | {len(known)} | {len(later)} | {law.fitted.form.name}, {law.size} "
        f"| {100 * np.median(off):.1f} % | {100 * off.max():.1f} % | {inside} of {len(later)} "
        f"({100 * low:.0f} to {100 * high:.0f} %) |",
        flush=True,
    )
    details += [
        f"{way}, {what}: {row.student.model}, {row.data.train} images x {row.epochs}: {value:.4f}, said "
        f"{one.value:.4f} ({one.low:.4f} to {one.high:.4f})"
        for row, one, value in zip(later, said, truth, strict=True)
    ]
    return [float(one) for one in off]


if __name__ == "__main__":
    main()
