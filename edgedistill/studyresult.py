"""The document of a study: `study.json`, schema `edgedistill.study/1`. Its table, chart and page are views of it.

SI units inside and the unit in every name, as in `result.json`. A study that was stopped has a document too: arms
without runs say so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from edgedistill.document import Count, Document, Finite, Fraction, Sealed, Seconds, Sha256, parse
from edgedistill.result import Environment, Gain, Proportion, SeedGain

SCHEMA: Final = "edgedistill.study/1"
FILE: Final = "study.json"

Value = str | int | float | bool | list[Any] | None


class SeedRun(Document):
    """One training with one seed. `gain` is against the baseline with the same seed, on the same test images.

    `seconds` are those of training alone.
    """

    seed: int
    top1: Proportion
    val_top1: Fraction | None = None
    gain: Gain | None = None
    seconds: Seconds
    steps: Count
    epochs: Count
    passes: Count
    weights_sha256: Sha256
    notes: list[str] = []


class Mean(Document):
    """Mean top-1 over seeds with its 95 % t interval; `None` for a single seed, or where the seed changes nothing."""

    value: Fraction
    ci95: tuple[Fraction, Fraction] | None = None
    seeds: Count


class StudyTeacher(Document):
    """Who taught an arm: `key` is the same where it is the same teacher."""

    key: str
    model: str
    adaptation: str
    val_top1: Fraction | None = None
    top1: Proportion
    seconds: Seconds


class StudyArm(Document):
    """One arm: `changes` are its own values of the recipe, by dotted path; `runs` its seeds.

    `seed_gain` is paired by seed (what another seed would change), `image_gain` by image over the same seeds (what
    other test images would change); both `None` for the baseline. `seconds_parts` and `flops_parts` are means over
    seeds, with teacher preparation and storing counted in full, whoever else uses them.
    """

    name: str
    factor: str | None = None
    kind: str
    what: str
    changes: dict[str, Value] = {}
    student: str | None = None
    input_size: Count | None = None
    start: str | None = None
    train_images: Count | None = None
    runs: list[SeedRun] = []
    top1: Mean | None = None
    val_top1: Mean | None = None
    seed_gain: SeedGain | None = None
    image_gain: Gain | None = None
    passes: Finite | None = None
    seconds: Seconds | None = None
    seconds_total: Seconds | None = None
    seconds_parts: dict[str, Seconds] = {}
    flops_parts: dict[str, Finite] = {}
    teacher: StudyTeacher | None = None


Verdict = Literal[
    "holds here", "does not hold here", "cannot be told", "not all run yet", "not run yet"
]


class StudyClaim(Document):
    """A claim that arm `better` has more than `by` (a share of the images) over arm `than`, with what the runs say.

    It holds where both gains lie above `by` with their whole 95 % intervals, does not hold where both lie below, and
    is not judged before every seed has run.
    """

    says: str
    source: str | None = None
    better: str
    than: str
    by: Finite = 0.0
    seed_gain: SeedGain | None = None
    image_gain: Gain | None = None
    verdict: Verdict


class StudyData(Document):
    """The images that every arm is tested on."""

    name: str
    source: str
    classes: Count
    val: Count
    test: Count
    test_sha256: Sha256


class StudyResult(Sealed):
    """The whole study. `seconds_spent` counts each stage once, whatever number of arms uses it."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgedistill.study/1"] = Field(default=SCHEMA, alias="schema")
    study: str
    created_utc: str
    version: str
    command: str
    seeds: list[int]
    baseline: str
    environment: Environment
    data: StudyData
    arms: list[StudyArm]
    claims: list[StudyClaim] = []
    seconds_spent: Seconds
    headline: str
    remarks: list[str] = []


def load(path: Path) -> StudyResult:
    """`study.json` at `path`, or in the folder `path`. Raises `DocumentError`."""
    return parse("study", StudyResult, path / FILE if path.is_dir() else path)
