"""The runs that the laws for images are fitted to: students of several families and widths, six amounts of data, four
teachers and several lengths of training on Fashion-MNIST, drawn from a fixed list, into one ledger.

    python -m benchmarks.law_runs --out DIR [--count 36] [--only plain|taught]

The images are those of the Debian package dataset-fashion-mnist; 6,000 of them validate. A run whose row is in the
ledger is not done again, so that the list can be done in parts, on several machines.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from edgedistill.compute.ledger import SWITCH, Ledger, Row

HOME = Path(__file__).resolve().parent
LEDGER = HOME / "ledgers" / "fashion_mnist.jsonl"
FOLDER = "/usr/share/datasets/fashion-mnist"
STUDENTS = (
    "mobilenetv3_small_050", "mobilenetv3_small_075", "mobilenetv3_small_100",
    "mobilenetv4_conv_small_050", "mobilenetv4_conv_small", "mobilenetv2_050",
    "lcnet_050", "lcnet_100",
)  # fmt: skip
SIDE, IMAGES = 48, (500, 1000, 2000, 5000, 10_000, 25_000)
SEEN = (6_000, 15_000, 40_000, 100_000, 250_000)
MOST_EPOCHS = 120
TEACHERS: dict[str, dict[str, Any]] = {
    "lite0-probe": {"model": "bundled:efficientnet_lite0", "adapt": "probe"},
    "lite2-probe": {"model": "bundled:efficientnet_lite2", "adapt": "probe"},
    "lite0-tuned": {"model": "bundled:efficientnet_lite0", "adapt": "finetune"},
    "lite2-tuned": {"model": "bundled:efficientnet_lite2", "adapt": "finetune"},
}
MOST_ARMS = 40


@dataclass(frozen=True)
class Planned:
    """One run of the list."""

    student: str
    images: int
    epochs: int
    teacher: str | None

    @property
    def name(self) -> str:
        """The name of its arm."""
        short = self.student.replace("mobilenet", "").replace("conv_small", "cs")
        return f"{short}-{self.images}x{self.epochs}" + (f"-{self.teacher}" if self.teacher else "")

    @property
    def arm(self) -> dict[str, Any]:
        """What a study says of it."""
        arm: dict[str, Any] = {
            "data": {"max_train": self.images},
            "student": {"model": self.student},
            "distill": {"epochs": self.epochs},
        }
        if self.teacher is None:
            return {"arm": "plain", **arm}
        return {**arm, "teacher": dict(TEACHERS[self.teacher])}  # a copy: YAML would write an alias

    def is_of(self, row: Row) -> bool:
        """Whether a row is of this run."""
        same = (row.student.model, row.data.train, row.epochs, row.student.input_size) == (
            self.student, self.images, self.epochs, SIDE,
        )  # fmt: skip
        if row.teacher is None or self.teacher is None:
            return same and row.teacher is None and self.teacher is None
        teacher = TEACHERS[self.teacher]
        tuned = row.teacher.adaptation == "fine-tuned"
        return (
            same
            and row.teacher.model == teacher["model"]
            and tuned == (teacher["adapt"] == "finetune")
        )


def planned(count: int, taught: bool) -> list[Planned]:
    """The first `count` runs of the list: amounts of data and of training in turn, students and teachers drawn."""
    rng = np.random.default_rng(1 if taught else 0)
    places = [
        (images, max(1, round(seen / images)))
        for images, seen in itertools.product(IMAGES, SEEN)
        if 1 <= seen / images <= MOST_EPOCHS
    ]
    found: list[Planned] = []
    while len(found) < count:
        for k in rng.permutation(len(places)):
            student = STUDENTS[rng.integers(len(STUDENTS))]
            teacher = list(TEACHERS)[rng.integers(len(TEACHERS))] if taught else None
            run = Planned(student, places[k][0], places[k][1], teacher)
            if run not in found:
                found.append(run)
    return found[:count]


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the studies")
    parser.add_argument("--ledger", type=Path, default=LEDGER)
    parser.add_argument("--count", type=int, default=36, help="runs of each kind")
    parser.add_argument("--only", choices=["plain", "taught"])
    given = parser.parse_args(argv)
    os.environ[SWITCH] = str(given.ledger)
    given.out.mkdir(parents=True, exist_ok=True)
    for kind in [given.only] if given.only else ["plain", "taught"]:
        rows = Ledger(given.ledger).read().rows
        every = planned(given.count, kind == "taught")
        todo = [run for run in every if not any(run.is_of(row) for row in rows)]
        print(f"{kind}: {len(every) - len(todo)} of {len(every)} runs are in {given.ledger}")
        for part in range(0, len(todo), MOST_ARMS):
            _study(given.out, kind, part, todo[part : part + MOST_ARMS])


def _study(out: Path, kind: str, part: int, runs: Sequence[Planned]) -> None:
    from edgedistill.cli import main as edgedistill

    tree = {
        "name": f"law-{kind}",
        "recipe": {
            "data": {"source": FOLDER, "val_fraction": 0.1},
            "student": {"weights": "random", "input_size": SIDE},
        },
        "seeds": 1,
        "arms": {run.name: run.arm for run in runs},
    }
    file = out / f"{kind}-{part}.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    sys.argv = ["edgedistill", "study", str(file), "--out", str(out / f"{kind}-{part}")]
    edgedistill()


if __name__ == "__main__":
    main()
