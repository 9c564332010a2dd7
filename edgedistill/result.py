"""The result document: `result.json`, schema `edgedistill.result/1`. Everything that is shown is a view of it.

SI units inside and the unit in every name: seconds, bytes, fractions. Unknown is `None`, never 0.
A document read from disk is hostile until `load` has parsed it. `confusion` has a row for each true class; that of many
classes is a table beside the document, and empty here (`edgedistill.tables`). `mistakes` has the most frequent ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from edgedistill.accuracy import Arm as Arm
from edgedistill.accuracy import Calibration as Calibration
from edgedistill.accuracy import CurvePoint as CurvePoint
from edgedistill.accuracy import Gain as Gain
from edgedistill.accuracy import Proportion as Proportion
from edgedistill.accuracy import SeedGain as SeedGain
from edgedistill.accuracy import SeedTop1 as SeedTop1
from edgedistill.document import (
    Bytes,
    Count,
    Document,
    Finite,
    Fraction,
    Sealed,
    Seconds,
    Sha256,
    parse,
)
from edgedistill.document import describe as describe
from edgedistill.latencyresult import Conditions as Conditions
from edgedistill.latencyresult import Energy as Energy
from edgedistill.latencyresult import Evidence as Evidence
from edgedistill.latencyresult import Latency as Latency
from edgedistill.latencyresult import Layer as Layer
from edgedistill.synthresult import Synthetic as Synthetic
from edgedistill.synthresult import SyntheticClass as SyntheticClass

SCHEMA: Final = "edgedistill.result/1"

Status = Literal["pass", "fail", "unconfirmed"]
Precision = Literal["float32", "float16", "int8"]


class Skipped(Document):
    """One file that was left out, and why."""

    path: str
    reason: str


class Data(Document):
    name: str
    source: str
    classes: list[str]
    train: Count
    val: Count
    test: Count
    sha256: Sha256
    skipped: Count
    skipped_files: list[Skipped] = []
    duplicates: Count = 0
    split: str
    per_class_train: list[Count] = []
    per_class_test: list[Count] = []
    licence: str | None = None
    unlabelled: Count = 0


class Member(Document):
    """One of several teachers, or an early state of one; accuracy, calibration and entropy (nats) on validation."""

    model: str
    adaptation: str
    adaptation_reason: str = ""
    params: Count
    flops: Count | None = None
    input_size: Count
    val_top1: Fraction | None = None
    calibration: Calibration | None = None
    entropy: Finite | None = None
    licence: str | None = None


class Teacher(Document):
    """Who taught: one network, or `members` used as `combine` says. `entropy` is in nats, `entropy_unknowing` that of
    one that knows nothing; agreement between members is of their top-1 on validation, over all pairs.
    """

    model: str
    source: str
    revision: str | None = None
    adaptation: str
    adaptation_reason: str
    params: Count
    input_size: Count
    top1: Proportion
    val_top1: Fraction | None = None
    calibration: Calibration | None = None
    entropy: Finite | None = None
    entropy_unknowing: Finite | None = None
    student_agreement: Fraction | None = None
    combine: Literal["single", "ensemble", "ladder", "checkpoints"] = "single"
    members: list[Member] = []
    members_agreement: Fraction | None = None
    seconds: Seconds | None = None
    licence: str | None = None
    words: str


class Student(Document):
    model: str
    input_size: Count
    params: Count
    macs: Count
    weights: Literal["pretrained", "random"]
    weights_source: str
    weights_reason: str
    licence: str | None = None
    reason: str


class Candidate(Document):
    """A student that planning weighed, at one input size and precision.

    `tier` grades the prediction; `measured_s` is the median of runs with random weights on the machine that planned.
    """

    model: str
    input_size: Count
    precision: Precision
    pretrained: bool
    params: Count
    macs: Count
    size_bytes: Bytes
    latency_s: Seconds | None = None
    latency_band_s: tuple[Seconds, Seconds] | None = None
    tier: Literal["A", "B", "C", "D", "E"] | None = None
    measured_s: Seconds | None = None
    memory_bytes: Bytes | None = None
    expected_top1: Fraction | None = None
    fits: Literal["safe", "possible", "no"]
    reason: str


class Attempt(Document):
    """A candidate that was trained and packaged, and missed a limit after all."""

    candidate: Candidate
    missed: list[str]


class Plan(Document):
    """The choice. `front` has no candidate that another beats in both expected accuracy and predicted latency."""

    considered: Count
    chosen: Candidate
    runners_up: list[Candidate] = []
    rejected: list[Candidate] = []
    front: list[Candidate] = []
    attempts: list[Attempt] = []
    input_size_reason: str = ""


class Parity(Document):
    """The exported file against the torch model, on logits of the same real images."""

    max_abs: Finite
    max_rel: Finite
    cosine: Finite
    top1_agreement: Fraction
    n: Count
    against: str


class BuilderAnswer(Document):
    """What TensorRT's parser and a builder that needs no GPU say of a file: no `reasons` is yes, for one SM.

    It is no word of the board's own TensorRT.
    """

    builder: str
    sm: str
    reasons: list[str]
    engine_bytes: Bytes | None = None
    seconds: Seconds | None = None


class BoardTop1(Document):
    """Top-1 of a file as a board computed it, on the images that were there; `record` is the kit document."""

    machine: str
    evidence: Evidence
    top1: Proportion
    record: str


class Artifact(Document):
    """One file that could ship, with the accuracy of that very file as the kit runs it."""

    name: str
    path: str
    sha256: Sha256
    size_bytes: Bytes
    precision: Precision
    runtime: str
    opset: Count
    input: str
    top1: Proportion | None = None
    val_top1: Fraction | None = None
    balanced_accuracy: Fraction | None = None
    per_class_recall: list[Fraction | None] = []
    drop: Gain | None = None
    parity: Parity | None = None
    latency: list[Latency] = []
    boards: list[BoardTop1] = []
    builder: BuilderAnswer | None = None
    layers: list[Layer] = []
    made: str = ""
    eligible: bool = True
    reason: str = ""


class Limits(Document):
    """The budget. `None` is no limit."""

    latency_s: Seconds | None = None
    size_bytes: Bytes | None = None
    memory_bytes: Bytes | None = None
    min_top1: Fraction | None = None
    max_top1_drop: Fraction | None = None


class VerdictRow(Document):
    limit: str
    allowed: Finite
    observed: Finite | None = None
    evidence: Evidence | None = None
    status: Status
    note: str = ""
    advice: str = ""


class Verdict(Document):
    status: Status
    sentence: str
    rows: list[VerdictRow]
    remarks: list[str] = []


class Mistake(Document):
    """Test images of class `label` that the chosen file took for `predicted`: `count` of the `total` of that class."""

    label: Count
    predicted: Count
    count: Count
    total: Count


class Example(Document):
    """A test image, made small, with the prediction of the chosen file; `png` is base64, `name` that of its file."""

    png: str
    name: str = ""
    label: Count
    predicted: Count
    confidence: Fraction


class Table(Document):
    """A file beside `result.json` with data too large for it."""

    path: str
    sha256: Sha256
    what: str


class Environment(Document):
    cpu: str
    cores: Count
    memory_bytes: Bytes | None = None
    gpu: str | None = None
    os: str
    python: str
    packages: dict[str, str]
    git: str | None = None


class StageTime(Document):
    name: str
    seconds: Seconds


class Result(Sealed):
    schema_: Literal["edgedistill.result/1"] = Field(default=SCHEMA, alias="schema")
    run: str
    created_utc: str
    version: str
    command: str
    seed: int
    recipe_sha256: Sha256
    environment: Environment
    device: dict[str, Any]
    budget: Limits
    data: Data
    plan: Plan
    teacher: Teacher
    student: Student
    arms: list[Arm]
    chosen_arm: str
    synthetic: Synthetic | None = None
    artifacts: list[Artifact]
    chosen: str
    chosen_reason: str
    bundle_bytes: Bytes
    confusion: list[list[Count]]
    mistakes: list[Mistake] = []
    examples: list[Example] = []
    tables: dict[str, Table] = {}
    stages: list[StageTime] = []
    verdict: Verdict

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), populate_by_name=True
    )

    def artifact(self, name: str) -> Artifact:
        """The artifact of that name."""
        return next(a for a in self.artifacts if a.name == name)


def load(path: Path) -> Result:
    """`result.json` at `path`, or in the folder `path`. Raises `DocumentError`."""
    return parse("result", Result, path / "result.json" if path.is_dir() else path)
