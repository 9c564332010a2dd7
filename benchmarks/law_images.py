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
from edgedistill.compute.predict import Law, What, asked_of, learn, value_of
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
    alone: dict[What, Law] = {}
    for taught in (False, True):
        rows = [row for row in found.rows if (row.method is not None) == taught]
        for what in WHATS:
            law = _line(rows, what, alone.get(what) if taught else None, details)
            if law is not None and not taught:
                alone[what] = law
    print("\n" + "\n".join(details))


def _line(rows: Sequence[Row], what: What, alone: Law | None, details: list[str]) -> Law | None:
    ordered = sorted(rows, key=lambda row: sum(row.flops.values()))
    cut = round(CHEAPER * len(ordered))
    law = learn(ordered[:cut], what, alone)
    if law is None:
        print(f"| {len(rows)} rows | {what} | too few | | | | | |")
        return None
    later = ordered[cut:]
    said = law.say_all(asked_of(later, what, alone))
    truth = [value_of(row, what) for row in later]
    off = np.array([abs(one.value / value - 1) for one, value in zip(said, truth, strict=True)])
    inside = sum(one.low <= value <= one.high for one, value in zip(said, truth, strict=True))
    low, high = wilson(inside, len(later))
    way = "labels alone" if law.way.method is None else f"taught ({law.way.method})"
    print(
        f"| {way} | {what} | {cut} | {len(later)} | {law.fitted.form.name}, {law.size} | {100 * np.median(off):.1f} % "
        f"| {100 * off.max():.1f} % | {inside} of {len(later)} ({100 * low:.0f} to {100 * high:.0f} %) |",
        flush=True,
    )
    details += [
        f"{way}, {what}: {row.student.model}, {row.data.train} images x {row.epochs}: {value:.4f}, said "
        f"{one.value:.4f} ({one.low:.4f} to {one.high:.4f})"
        for row, one, value in zip(later, said, truth, strict=True)
    ]
    return law


if __name__ == "__main__":
    main()
