"""The stages by name, what a person asks of them, and what each says when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgedistill.errors import UsageError, unknown
from edgedistill.recipe import Layered
from edgedistill.rundir import Done

STAGES = (
    "01-data", "02-plan", "03-pixels", "04-teacher", "05-synth", "06-targets", "07-start",
    "08-plain", "09-distilled", "10-export", "11-quantize", "12-bundle", "13-bench", "14-score",
    "15-report",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What a person asked for: the layered recipe, where to put it, where to stop, and the command to go on.

    `log` is "tensorboard" where training curves are wanted for a viewer too; no result depends on it.
    """

    layered: Layered
    out: Path
    command: str
    until: str | None = None
    fresh: bool = False
    log: str = "none"


def stage_name(text: str) -> str:
    """The stage that `--until` names, by its name with or without the number."""
    for name in STAGES:
        if text in (name, name.partition("-")[2]):
            return name
    raise UsageError(unknown("stage", text, [s.partition("-")[2] for s in STAGES]))


def summary(name: str, done: Done) -> str:
    """What a stage found, in a few words."""
    facts = done.facts
    if name == "01-data":
        left_out = f", {facts['skipped']} left out" if facts["skipped"] else ""
        if facts.get("unlabelled"):
            left_out += f", {facts['unlabelled']:,} more without labels"
        return (
            f"{facts['train']:,} train, {facts['val']:,} val, {facts['test']:,} test, "
            f"{len(facts['classes'])} classes{left_out}"
        )
    if name == "02-plan":
        chosen = facts["plan"]["chosen"]
        start = "pretrained" if chosen["pretrained"] else "random weights"
        return f"{chosen['model']} at {chosen['input_size']} px in {chosen['precision']}, {start}"
    if name == "03-pixels":
        return f"{facts['student']} px for the student, {facts['teacher']} px for the teacher"
    if name == "04-teacher":
        return f"{facts['adaptation']}, validation top-1 {facts['val_top1']:.3f}"
    if name == "05-synth":
        return f"{_count(facts['kept'], 'image')} kept of {facts['made']:,} made"
    if name == "06-targets":
        return f"{_count(facts['views'], 'view')} of {_count(facts['images'], 'image')}"
    if name == "07-start":
        return str(facts["source"])
    if name in ("08-plain", "09-distilled"):
        return f"validation top-1 {facts['val_top1']:.3f}, {_count(facts['steps'], 'step')}"
    return str(facts.get("summary", ""))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def number(value: object) -> int:
    """A resolved number; `auto` here is a bug."""
    assert isinstance(value, int), f"{value!r} is not resolved"
    return value
