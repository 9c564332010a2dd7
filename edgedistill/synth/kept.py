"""What a finished job leaves for training and for people: the kept images as shards, and counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgedistill.files import remove, replace_folder, write_atomic
from edgedistill.synth.job import Job
from edgedistill.synth.rounds import Outcome
from edgedistill.synth.shard import reader, shard_bytes

KEPT = "kept"
SHARD = 1_000
"""Images of a shard."""


def place_kept(job: Job, outcome: Outcome) -> None:
    """Write what was kept as shards into `kept/`, with the names of the classes beside them."""
    aside, target = job.folder / ".kept.tmp", job.folder / KEPT
    remove(aside)
    aside.mkdir()
    images = reader(job.folder, outcome.lines)
    kept = outcome.kept
    for place, start in enumerate(range(0, len(kept), SHARD)):
        lines = kept[start : start + SHARD]
        data = shard_bytes(lines, [images(line) for line in lines])
        write_atomic(aside / f"train-{place:05}.tar", data)
    write_atomic(aside / "classes.txt", "".join(f"{name}\n" for name in job.plan.classes))
    replace_folder(aside, target)


def summary_of(outcome: Outcome, classes: Sequence[str]) -> dict[str, Any]:
    """Counts of a finished job, for people and tools."""
    kept = [line.label for line in outcome.kept]
    agreed = [
        line for line in outcome.lines if line.scores and line.scores.teacher_label == line.label
    ]
    return {
        "made": len(outcome.lines),
        "kept": len(kept),
        "agreement": len(agreed) / max(1, len(outcome.lines)),
        "kept_per_class": {name: kept.count(k) for k, name in enumerate(classes)},
        "lacking_per_class": dict(zip(classes, outcome.lacking, strict=True)),
        "dropped": dict(outcome.dropped),
    }
