"""A kit document from elsewhere, checked before anything is believed: its fields, and that what it says of its samples
follows from them.

Whoever carries one here may have cut it short, changed it or taken another one; a newer kit may say more, which is let
by. `checked` gives the document as it was read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from ontarget.document import content_sha256
from ontarget.percentiles import PERCENTILES, upper_percentile
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from edgedistill.document import (
    MAX_DOCUMENT_BYTES,
    Bytes,
    Finite,
    Fraction,
    Seconds,
    Sha256,
    describe,
)
from edgedistill.errors import DocumentError

Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Words = Annotated[str, StringConstraints(max_length=4000)]
Whole = Annotated[int, Field(ge=0, le=10**9)]
MOST_SAMPLES = 2_000_000
MOST_DIGITS = 20
ALWAYS = ("p50", "p90", "p99")
"""Percentiles that every kit has written where the samples carry them."""
ROUNDED_S = 1e-9
"""Samples are written to the nanosecond; what is made of them before that differs by as much."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=(), strict=True)


class Machine(_Part):
    """What a machine says of itself, as far as anything here rests on it."""

    board: Words | None = None
    cpu: Words | None = None
    arch: Words | None = None
    cores: Whole | None = None
    memory_bytes: Bytes | None = None
    power_mode: Words | None = None
    l4t: Words | None = None


class Row(_Part):
    """One measurement."""

    model: Text
    sha256: Sha256
    runtime: Text
    runtime_version: Words | None = None
    provider: Text
    threads: Whole
    batch: Annotated[int, Field(ge=1, le=100_000)]
    p50_s: Seconds | None = None
    p90_s: Seconds | None = None
    p95_s: Seconds | None = None
    p99_s: Seconds | None = None
    p999_s: Seconds | None = None
    n: Annotated[int, Field(ge=1, le=MOST_SAMPLES)]
    samples_s: Annotated[list[Seconds], Field(min_length=1, max_length=MOST_SAMPLES)]
    load_s: Seconds | None = None
    first_run_s: Seconds | None = None
    peak_rss_bytes: Bytes | None = None
    stable: bool | None = None
    cv: Finite | None = None
    drift: Finite | None = None
    warnings: Annotated[list[Words], Field(max_length=100)] = []


class Score(_Part):
    """One accuracy; of images without labels only their number is known."""

    model: Text
    n: Annotated[int, Field(ge=1, le=10**9)]
    correct: Whole | None = None
    top1: Fraction | None = None


class Origin(_Part):
    """Which bundle."""

    manifest_sha256: Sha256


class KitDocument(_Part):
    """The whole of it."""

    schema_: Literal["edgedistill.kit/1"] = Field(alias="schema")
    kit_version: Text
    content_sha256: Sha256 | None = None
    machine: Machine
    bundle: Origin
    rows: Annotated[list[Row], Field(max_length=2000)] = []
    scores: Annotated[list[Score], Field(max_length=1000, alias="eval")] = []


def read_document(path: Path) -> tuple[bytes, dict[str, Any], KitDocument]:
    """The bytes of a kit document, what they hold, and the part of it that is checked. Raises `DocumentError`."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_DOCUMENT_BYTES + 1)
        if len(raw) > MAX_DOCUMENT_BYTES:
            raise DocumentError(
                f"{path} has more than the {MAX_DOCUMENT_BYTES:,} bytes of a kit document"
            )
        tree = json.loads(
            raw.decode("utf-8"),
            parse_constant=_no_constant,
            parse_int=_whole,
            object_pairs_hook=_unique,
        )
    except FileNotFoundError:
        raise DocumentError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DocumentError(
            f"{path} cannot be read as a kit document ({str(error)[:200]}). Copy it from the board again; it is what  "
            "ontarget.pyz bench . --json result.json  wrote."
        ) from None
    found = checked(tree, str(path))
    if found.content_sha256 is not None and found.content_sha256 != content_sha256(tree):
        raise DocumentError(
            f"kit document {path} is not as the kit wrote it: its content has another hash than it says. Copy it again."
        )
    return raw, tree, found


def checked(tree: Any, where: str) -> KitDocument:
    """The checked part of a kit document. Raises `DocumentError` with each problem on its line."""
    schema = tree.get("schema") if isinstance(tree, dict) else None
    if schema != "edgedistill.kit/1":
        shown = ascii(schema)[:60]
        kit = (
            f" (kit {str(tree.get('kit_version'))[:20]!a})"
            if isinstance(tree, dict) and "kit_version" in tree
            else ""
        )
        raise DocumentError(
            f"{where} is no kit document that this edgedistill reads: its schema is {shown}{kit}, not "
            f"edgedistill.kit/1. "
            "Give what the ontarget.pyz of the same bundle wrote, or use the edgedistill that made the bundle."
        )
    try:
        found = KitDocument.model_validate(tree)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in describe(error)[:20])
        raise DocumentError(f"kit document {where} does not hold:\n{lines}") from None
    problems = [p for i, row in enumerate(found.rows) for p in _unfounded(i, row)]
    problems += [
        f"eval.{i}  {score.correct} of {score.n} right is no top-1 of {score.top1}"
        for i, score in enumerate(found.scores)
        if score.correct is not None
        and (
            score.correct > score.n
            or score.top1 is None
            or abs(score.top1 - score.correct / score.n) > 1e-6
        )
    ]
    if problems:
        lines = "\n".join(f"  {line}" for line in problems[:20])
        raise DocumentError(
            f"kit document {where} does not hold; it was changed or damaged:\n{lines}"
        )
    return found


def _unfounded(index: int, row: Row) -> list[str]:
    """What a row says of its samples and does not follow from them."""
    samples = np.asarray(row.samples_s, np.float64)
    if len(samples) != row.n:
        return [f"rows.{index}  n is {row.n}, and there are {len(samples)} samples"]
    problems = []
    for name, share in PERCENTILES:
        said, holds = getattr(row, f"{name}_s"), upper_percentile(samples, share)
        if said is None and (holds is None or name not in ALWAYS):
            continue
        if said is None or holds is None or abs(said - holds) > 2 * ROUNDED_S + 1e-9 * holds:
            shown = "unknown" if said is None else f"{said} s"
            problems.append(
                f"rows.{index}.{name}_s  {shown} does not follow from its {row.n} samples"
            )
    return problems


def machine_of(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """The machine of a document that was checked."""
    found = tree["machine"]
    assert isinstance(found, Mapping)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of a document")


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError("a whole number with too many digits")
    return int(text)
