"""How well laws say the dearest trainings of a ledger from the cheaper ones: fitted to 80 % by cost, held to the rest.

    python -m benchmarks.law_images [--ledger FILE]

Each way of learning has a law of its own, of the loss and of the error. A taught one may read what the law of students
without a teacher says, which is fitted to the cheaper rows too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.law_runs import LEDGER
from edgedistill.compute.ledger import Ledger, Row
from edgedistill.compute.predict import Law, What, asked_of, learn_both, value_of
from edgedistill.metrics import wilson

CHEAPER = 0.8
WHATS: tuple[What, ...] = ("loss", "error")


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table, and every held-out row below it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--ledger", type=Path, default=LEDGER)
    given = parser.parse_args(argv)
    found = Ledger(given.ledger).read()
    if found.words:
        print(found.words)
    print(
        "| way | of | fitted to | held to | form, size | median error | largest | in the 90 % band |"
    )
    print("|---|---|---|---|---|---|---|---|")
    details: list[str] = []
    for what in WHATS:
        _lines(found.rows, what, details)
    print("\n" + "\n".join(details))


def _lines(rows: Sequence[Row], what: What, details: list[str]) -> None:
    """A line for each way, of laws that were fitted to the cheaper rows of both."""
    early, later = [], []
    for taught in (False, True):
        own = [row for row in rows if (row.method is not None) == taught]
        own.sort(key=lambda row: sum(row.flops.values()))
        cut = round(CHEAPER * len(own))
        early.append(own[:cut])
        later.append(own[cut:])
    alone, beside = learn_both(early[0], early[1], what)
    off: list[float] = []
    for law, known, held in ((alone, early[0], later[0]), (beside, early[1], later[1])):
        if law is None:
            print(f"| {len(known)} rows | {what} | too few | | | | | |")
        else:
            off += _line(law, known, held, alone, details)
    print(
        f"both ways, {what}: median error {100 * np.median(off):.1f} %, n = {len(off)}", flush=True
    )


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
