"""What a check says: one model as a few facts that a baseline file keeps, and two of them held against limits.

SI units inside: bytes, seconds, fractions. Unknown is `None`; operators that are not known are an empty mapping.
"""

from __future__ import annotations

import json
from typing import Final, Literal

from pydantic import ConfigDict, Field

from edgedistill.accuracy import Gain, Proportion
from edgedistill.document import Bytes, Count, Document, Finite, Sealed, Sha256, sealed
from edgedistill.latencyresult import Comparison

CHECK: Final = "edgedistill.check/1"
BASELINE: Final = "edgedistill.baseline/1"

LimitName = Literal[
    "max-size-growth",
    "max-size-mb",
    "max-latency-growth",
    "max-latency-ms",
    "max-memory-mb",
    "max-drop",
    "min-top1",
]
GROWTHS: Final[tuple[LimitName, ...]] = ("max-size-growth", "max-latency-growth", "max-drop")
"""Limits on the way from one model to another; the others stand by themselves."""

Ending = Literal["pass", "unconfirmed", "inconclusive", "regress", "fail"]
"""How a limit ends, from good to bad: `regress` against another model, `fail` by itself."""
Verdict = Literal["pass", "unconfirmed", "inconclusive", "fail"]


_NAMED = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), populate_by_name=True)
"""Of a document that names its schema."""


class Predictions(Document):
    """Which of `n` test images are right, one bit each in the order of their hashes: zlib, then base64.

    `test_sha256` is of the hashes and class names of those images, so that only the same images are paired.
    """

    n: Count
    test_sha256: Sha256
    right: str


class Snapshot(Sealed):
    """One model. `files` are its ONNX file and all that it names; `sha256` is of what they hold.

    `layers` are bytes by layer, by short names; a baseline keeps the largest and adds the rest up.
    """

    model_config = _NAMED

    schema_: Literal["edgedistill.baseline/1"] = Field(default=BASELINE, alias="schema")
    name: str
    precision: str | None = None
    sha256: Sha256
    size_bytes: Bytes
    files: dict[str, Bytes]
    opset: Count | None = None
    params: Count | None = None
    operators: dict[str, Count] = {}
    layers: dict[str, Bytes] = {}
    other_layers_bytes: Bytes = 0
    top1: Proportion | None = None
    predictions: Predictions | None = None

    def dumps(self) -> str:
        """The text of a baseline file: sorted, a fact a line, its seal the last; ends with a newline."""
        facts = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        ordered = json.loads(json.dumps(facts, sort_keys=True))
        return json.dumps(sealed(ordered), indent=1, ensure_ascii=False) + "\n"


class Allowed(Document):
    """A limit and who set it: an option, a file, or nobody ("default")."""

    value: Finite
    unit: Literal["fraction", "bytes", "seconds"]
    origin: str


class CheckRow(Document):
    """One limit. `observed` is what is held against it (a growth or a value), `low` to `high` its interval."""

    limit: LimitName
    allowed: Allowed
    old: Finite | None = None
    new: Finite | None = None
    observed: Finite | None = None
    low: Finite | None = None
    high: Finite | None = None
    status: Ending
    note: str = ""
    advice: str = ""


class Change(Document):
    """A layer, an operator or a file in both models; `None` where it is not there."""

    name: str
    old: Count | None
    new: Count | None


class Changes(Document):
    """What differs, what grew most first. `other_layers` are those that a baseline has only the sum of; `rest` is what
    belongs to no layer: the graph itself, names, metadata.
    """

    files: list[Change] = []
    layers: list[Change] = []
    other_layers: Change | None = None
    rest: Change | None = None
    operators: list[Change] = []


class Check(Document):
    """The outcome: `status` of the worst row, and the exit code that follows from it and from `strict`."""

    model_config = _NAMED

    schema_: Literal["edgedistill.check/1"] = Field(default=CHECK, alias="schema")
    status: Verdict
    strict: bool
    exit_code: Literal[0, 1]
    sentence: str
    new: Snapshot
    old: Snapshot | None = None
    rows: list[CheckRow]
    changes: Changes = Changes()
    gain: Gain | None = None
    comparison: Comparison | None = None
    remarks: list[str] = []

    def dumps(self) -> str:
        """The document as JSON text, ends with a newline."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1) + "\n"
