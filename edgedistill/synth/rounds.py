"""From nothing to as many good images as were asked for: rounds of making, looking and judging.

The first round makes what is asked for and a little more; each further one what is still lacking, by the share that was
kept so far, until all is there or the limit on tries is reached. The ledger is written anew after each round. Rounds,
units and verdicts are functions of the job, so whoever goes on ends in the same place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgedistill.errors import GeneratorError
from edgedistill.synth.curate import (
    Floats,
    Measure,
    Rules,
    Seen,
    Verdict,
    judge,
    lacking,
    next_round,
    tally,
)
from edgedistill.synth.generators import ImageSource
from edgedistill.synth.job import Job, Starts
from edgedistill.synth.ledger import Line, write_lines
from edgedistill.synth.score import Look, joined, scored
from edgedistill.synth.units import Part

LEDGER = "ledger.jsonl"
MORE = 1.15
"""The first round makes this many times what is asked for."""


@dataclass(frozen=True)
class Asked:
    """How many images of each class (C,) are wanted, and how many may be made of each at most."""

    wanted: tuple[int, ...]
    most: tuple[int, ...]


@dataclass(frozen=True)
class Teaching:
    """Who judges: the hash of the teacher's weights, how it looks at pixels, features of real images by split, and what
    they say of copies and outliers.
    """

    key: str
    look: Look
    real: Mapping[str, Floats]
    known: Measure
    rules: Rules


@dataclass(frozen=True)
class Outcome:
    """How it ended: lines of the ledger, what each class lacks (C,), and how many images broke each rule."""

    lines: tuple[Line, ...]
    lacking: tuple[int, ...]
    dropped: Mapping[str, int]

    @property
    def kept(self) -> list[Line]:
        """The images to learn from."""
        return [line for line in self.lines if line.kept]


def first_round(asked: Asked) -> list[int]:
    """Images of each class that the first round makes."""
    return [
        min(math.ceil(MORE * n), most) for n, most in zip(asked.wanted, asked.most, strict=True)
    ]


def fill(
    job: Job,
    source: Callable[[], ImageSource],
    asked: Asked,
    teaching: Teaching,
    part: Part = Part(),
    starts: Starts | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Outcome | None:
    """Make and judge until the job is full; `None` where other parts have units to make first.

    Raises `GeneratorError` for a class of which no image was kept after all tries; the ledger is written before.
    """
    if not job.rounds():
        job.plan_round(first_round(asked))
    while True:
        job.make(source, part, starts, advance)
        if job.missing():
            return None
        units = [unit for index in range(len(job.rounds())) for unit in job.units(index)]
        seen = joined([scored(job, unit, teaching.key, teaching.look) for unit in units])
        verdicts = judge(seen, teaching.real, teaching.known, teaching.rules, asked.wanted)
        lines = _judged(list(job.lines()), verdicts)
        write_lines(job.folder / LEDGER, lines)
        lack = lacking(seen.labels, verdicts, asked.wanted)
        counts = next_round(seen.labels, verdicts, lack, _left(seen, asked))
        if not any(counts):
            _require_some(job, seen, verdicts, asked)
            return Outcome(tuple(lines), tuple(lack), tally(verdicts))
        job.plan_round(counts)


def _left(seen: Seen, asked: Asked) -> list[int]:
    """How many images of each class may still be made (C,)."""
    return [max(0, most - int((seen.labels == k).sum())) for k, most in enumerate(asked.most)]


def _judged(lines: Sequence[Line], verdicts: Sequence[Verdict]) -> list[Line]:
    return [
        line.model_copy(
            update={
                "scores": verdict.scores,
                "kept": verdict.reason is None,
                "reason": verdict.reason,
            }
        )
        for line, verdict in zip(lines, verdicts, strict=True)
    ]


def _require_some(job: Job, seen: Seen, verdicts: Sequence[Verdict], asked: Asked) -> None:
    """Raise `GeneratorError` where a class has no image after all tries."""
    for label, name in enumerate(job.plan.classes):
        rows = [i for i, k in enumerate(seen.labels) if k == label]
        if asked.wanted[label] and not any(verdicts[i].reason is None for i in rows):
            why = tally([verdicts[i] for i in rows])
            words = ", ".join(f"{reason}: {count:,}" for reason, count in why.items())
            raise GeneratorError(
                f"none of {len(rows):,} images of class {name} was accepted ({words}). Look at them in "
                f"{job.folder / 'units'}, and say better what they should show (prompts, guidance), take another "
                "generator, or leave synthetic images out. What was made is kept."
            )
