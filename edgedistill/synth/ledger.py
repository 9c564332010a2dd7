"""The ledger: one line of JSON for every synthetic image, kept or not, and why.

A line holds all that makes the image again: its number, class, prompt and seed, the batch that it was made in (a
network's last bits change with the batch), and the generator with its settings. Curation adds scores and the verdict.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from edgedistill.document import Document, Finite, Sha256, describe
from edgedistill.errors import DocumentError
from edgedistill.files import write_atomic

MAX_LINE_BYTES = 100_000


class Maker(Document):
    """The generator and how it was used; `None` is unknown, or does not apply."""

    kind: str
    model: str
    sha256: Sha256 | None
    revision: str | None
    licence: str | None
    pipeline: str
    scheduler: str
    steps: int
    guidance: Finite
    strength: Finite | None
    negative: str
    device: str
    precision: str
    packages: dict[str, str]


class Scores(Document):
    """What curation measured. Cosine similarities; `None` where there was nothing to compare with."""

    teacher_label: int
    teacher_confidence: Finite
    asked_probability: Finite
    nearest_real: Finite | None
    nearest_real_split: str | None
    nearest_kept: Finite | None
    class_similarity: Finite


class Line(Document):
    """One image. `batch` is the first number of its batch and the one after its last; `start` is the training image
    that it was made from, by the hash of its content. `reason` says why it was dropped; `kept` and `scores` are `None`
    before curation.
    """

    number: Annotated[int, Field(ge=0)]
    round: Annotated[int, Field(ge=0)]
    unit: Annotated[str, Field(pattern=r"^\d{1,9}-\d{5,9}$")]
    batch: tuple[int, int]
    label: Annotated[int, Field(ge=0)]
    cls: str
    prompt: str
    seed: Annotated[int, Field(ge=0)]
    start: str | None = None
    sha256: Sha256
    side: Annotated[int, Field(ge=1)]
    maker: Maker
    scores: Scores | None = None
    kept: bool | None = None
    reason: str | None = None


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a ledger in order. Raises `DocumentError` that names the line which does not hold."""
    try:
        with path.open("rb") as file:
            place = 0
            while raw := file.readline(MAX_LINE_BYTES + 1):
                place += 1
                yield _line(raw, path, place)
    except OSError as error:
        raise DocumentError(f"ledger {path} cannot be read: {error.strerror}") from None


def _line(raw: bytes, path: Path, place: int) -> Line:
    if len(raw) > MAX_LINE_BYTES:
        raise DocumentError(f"ledger {path}, line {place}: longer than {MAX_LINE_BYTES:,} bytes")
    try:
        return Line.model_validate(json.loads(raw.decode("utf-8"), parse_constant=_refuse))
    except ValidationError as error:
        raise DocumentError(f"ledger {path}, line {place}: {describe(error)[0]}") from None
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"ledger {path}, line {place} cannot be read: {error}") from None


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no number of a document")


def ledger_bytes(lines: Iterable[Line]) -> bytes:
    """Lines as the file holds them; the same lines always give the same bytes."""
    return b"".join(line.model_dump_json(exclude_none=False).encode() + b"\n" for line in lines)


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """Write a ledger whole or not at all."""
    write_atomic(path, ledger_bytes(lines))
