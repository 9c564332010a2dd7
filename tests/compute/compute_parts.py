"""Rows of a ledger whose losses follow a law that is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgedistill.compute.flops import training_flops
from edgedistill.compute.ledger import Row, row

STUDENTS = {
    "small": (500_000, 2_000_000), "middle": (1_000_000, 6_000_000), "large": (3_000_000, 20_000_000),
}  # fmt: skip
"""Parameters and multiply-accumulates."""
TEACHERS = {"poor": 0.6, "fair": 0.4, "good": 0.25}
"""Validation loss; a teacher's error is a third of it."""
NOISE = 0.01


def plain_loss(macs: float, unique: float, seen: float) -> float:
    """The law of students without a teacher."""
    return float(0.15 + 20 / macs**0.3 + 8 / unique**0.5 + 60 / seen**0.6)


def taught_loss(macs: float, unique: float, seen: float, teacher: float) -> float:
    """The law of taught students: between themselves without a teacher and the teacher."""
    return float(plain_loss(macs, unique, seen) ** 0.7 * teacher**0.3)


def made(
    student: str, unique: int, epochs: int, teacher: str | None, noise: float = 0.0, **more: Any
) -> Row:
    """The row of one training."""
    params, macs = STUDENTS[student]
    seen = unique * epochs
    loss = plain_loss(macs, unique, seen)
    if teacher is not None:
        loss = taught_loss(macs, unique, seen, TEACHERS[teacher])
    loss *= float(np.exp(noise))
    facts: dict[str, Any] = {
        "created_utc": "2026-11-28T10:00:00Z", "version": "0.1.0", "machine": {"cpu": "a processor"},
        "data": {"name": "flowers", "judged_sha256": "a" * 64, "classes": 5, "train": unique},
        "student": {"model": student, "input_size": 64, "params": params, "macs": macs, "start": "random"},
        "kind": "plain" if teacher is None else "distilled", "method": None if teacher is None else "kd",
        "targets": None if teacher is None else "stored", "views": None if teacher is None else 3,
        "settings_sha256": ("b" if teacher is None else "d") * 64, "weights_sha256": "c" * 64, "seed": 0,
        "epochs": epochs, "steps": seen // 64, "seen": seen,
        "teacher": None if teacher is None else {
            "model": teacher, "key": teacher, "adaptation": "fine-tuned", "params": 10_000_000,
            "flops": 1e9, "val": {"loss": TEACHERS[teacher], "top1": 1 - TEACHERS[teacher] / 3, "n": 900},
        },
        "val": {"loss": loss, "top1": 1 - min(1.0, loss / 3), "n": 900}, "test": None,
        "flops": {"training": training_flops(macs, seen)}, "seconds": {"training": seen * macs / 1e10},
    }  # fmt: skip
    return row(**{**facts, **more})


def rows(count: int, taught: bool, seed: int = 0) -> list[Row]:
    """Different trainings with 1 % of noise."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        teacher = str(rng.choice(list(TEACHERS))) if taught else None
        unique, epochs = int(rng.choice([500, 2000, 8000])), int(rng.choice([2, 6, 20, 60]))
        student = str(rng.choice(list(STUDENTS)))
        found.append(made(student, unique, epochs, teacher, rng.normal(0, NOISE)))
    return found
