"""What the tests of synthesis share: a small job of the public fake."""

from __future__ import annotations

from pathlib import Path

from edgedistill.synth.generators import FakeSource
from edgedistill.synth.job import Job, Plan
from edgedistill.synth.ledger import Maker
from edgedistill.synth.prompts import book_for

CLASSES = ("boot", "bag", "dress")
MAKER = Maker(
    kind="fake", model="fake", sha256=None, revision=None, licence=None, pipeline="FakeSource",
    scheduler="none", steps=1, guidance=1.0, strength=None, negative="", device="cpu",
    precision="float32", packages={"numpy": "1"},
)  # fmt: skip


def plan_of(seed: int = 0, batch: int = 4, unit: int = 8) -> Plan:
    """A plan for three classes."""
    return Plan(CLASSES, seed, batch, unit, book_for(CLASSES, "product"), MAKER)


def job_in(folder: Path, counts: tuple[int, ...] = (7, 7, 6), seed: int = 0) -> Job:
    """A job with one round planned."""
    job = Job(folder, plan_of(seed))
    if not job.rounds():
        job.plan_round(counts)
    return job


def fake() -> FakeSource:
    """The generator of the tests."""
    return FakeSource(side=8, classes=len(CLASSES))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a job, but for how long it took."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.parent.name != "times"
    }
