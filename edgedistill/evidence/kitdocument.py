"""A kit document, checked before anything is believed: its fields, that what it says of its samples follows from them,
and its hash.

Whoever carries one here may have cut it short, changed it or taken another one; a newer kit may say more, which is let
by. It is the one way in for every document, whether it comes from a board, by hand or from this machine.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from ontarget.document import content_sha256
from ontarget.measure import MOST_SAMPLES
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from edgedistill.document import Bytes, Finite, Fraction, Seconds, Sha256, describe
from edgedistill.errors import DocumentError
from edgedistill.evidence.kitfigures import QUANTILES, uncentred, unfounded
from edgedistill.latencyresult import Tier

Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Words = Annotated[str, StringConstraints(max_length=4000)]
Whole = Annotated[int, Field(ge=0, le=10**9)]
Sample = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Ratio = Annotated[float, Field(gt=1e-6, lt=1e6)]
Hertz = Annotated[int, Field(ge=0, le=10**12)]
MAX_KIT_BYTES = 128_000_000
"""What a kit may write: 32 measurements with all the samples that one keeps, 20 bytes each."""
MOST_DIGITS = 20
MOST_RATIOS = 500


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


class Moment(_Part):
    """The machine before or after a measurement."""

    temperature_c: Finite | None = None
    cpu_clock_hz: Hertz | None = None
    gpu_clock_hz: Hertz | None = None
    governor: Words | None = None
    power_mode: Words | None = None
    throttled: Annotated[list[Words], Field(max_length=100)] = []
    busy: Fraction | None = None


class Power(_Part):
    """What the board's own sensors told."""

    source: Words
    joules: Finite
    watts: Finite
    idle_watts: Finite


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
    low: Annotated[dict[str, Seconds], Field(max_length=10)] = {}
    n: Annotated[int, Field(ge=1, le=MOST_SAMPLES)]
    samples_s: Annotated[list[Sample], Field(min_length=1, max_length=MOST_SAMPLES)]
    mean_s: Seconds | None = None
    max_s: Seconds | None = None
    quantiles_s: Annotated[list[Seconds], Field(max_length=QUANTILES)] = []
    tier: Tier | None = None
    arrival: Literal["back_to_back", "paced"] = "back_to_back"
    fps: Annotated[float, Field(gt=0, le=1e6)] | None = None
    late: Whole | None = None
    scope: Literal["model", "end_to_end"] = "model"
    parts_s: Annotated[dict[Text, Seconds], Field(max_length=20)] = {}
    inputs: Words | None = None
    load_s: Seconds | None = None
    first_run_s: Seconds | None = None
    warmup_runs: Whole | None = None
    warmup_s: Seconds | None = None
    affinity: Annotated[list[Whole], Field(max_length=4096)] = []
    placement: Annotated[dict[Text, Whole], Field(max_length=20)] = {}
    peak_rss_bytes: Bytes | None = None
    energy: Power | None = None
    before: Moment | None = None
    after: Moment | None = None
    stable: bool | None = None
    cv: Finite | None = None
    drift: Finite | None = None
    warnings: Annotated[list[Words], Field(max_length=100)] = []


class Side(_Part):
    """One of two files that took turns."""

    name: Text
    file: Text
    sha256: Sha256
    p50_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    n: Annotated[int, Field(ge=1, le=10**9)]


class Turns(_Part):
    """Two files against each other."""

    old: Side
    new: Side
    ratio: Ratio
    low: Ratio
    high: Ratio
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    ratios: Annotated[list[Ratio], Field(min_length=1, max_length=MOST_RATIOS)]
    runtime: Text
    provider: Text
    threads: Whole
    batch: Annotated[int, Field(ge=1, le=100_000)]
    warnings: Annotated[list[Words], Field(max_length=100)] = []


class Failed(_Part):
    """A model that could not run."""

    model: Text
    text: Annotated[str, StringConstraints(max_length=100_000)]


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
    content_sha256: Sha256
    machine: Machine
    bundle: Origin
    rows: Annotated[list[Row], Field(max_length=2000)] = []
    scores: Annotated[list[Score], Field(max_length=1000, alias="eval")] = []
    failures: Annotated[list[Failed], Field(max_length=2000)] = []
    compare: Turns | None = None


def read_document(path: Path) -> tuple[bytes, dict[str, Any], KitDocument]:
    """The bytes of a kit document, what they hold, and the part of it that is checked. Raises `DocumentError`."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_KIT_BYTES + 1)
        if len(raw) > MAX_KIT_BYTES:
            raise DocumentError(
                f"{path} has more than the {MAX_KIT_BYTES:,} bytes of a kit document. Measure fewer models at once: "
                "--model NAME, or --threads 1."
            )
        tree = json.loads(
            raw.decode("utf-8"),
            parse_constant=_no_constant,
            parse_int=_whole,
            parse_float=_number,
            object_pairs_hook=_unique,
        )
    except FileNotFoundError:
        raise DocumentError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DocumentError(
            f"{path} cannot be read as a kit document ({str(error)[:200]}). Copy it from the board again; it is what  "
            "ontarget.pyz bench . --json result.json  wrote."
        ) from None
    found = _checked(tree, str(path))
    if found.content_sha256 != content_sha256(tree):
        raise DocumentError(
            f"kit document {path} is not as the kit wrote it: its content has another hash than it says. Copy it again."
        )
    return raw, tree, found


def _checked(tree: Any, where: str) -> KitDocument:
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
    if "content_sha256" not in tree:
        raise DocumentError(
            f"kit document {where} does not carry the hash of its content: it was changed, or is of a kit from before "
            "0.1.0. Measure again with the ontarget.pyz of this edgedistill, which  edgedistill bench  brings along."
        )
    try:
        found = KitDocument.model_validate(tree)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in describe(error)[:20])
        raise DocumentError(f"kit document {where} does not hold:\n{lines}") from None
    problems = [f"rows.{i}.{text}" for i, row in enumerate(found.rows) for text in unfounded(row)]
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
    if found.compare is not None:
        turns = found.compare
        said = {"ratio": turns.ratio, "low": turns.low, "high": turns.high}
        problems += [f"compare.{text}" for text in uncentred(said, turns.ratios, turns.confidence)]
    if problems:
        lines = "\n".join(f"  {line}" for line in problems[:20])
        raise DocumentError(
            f"kit document {where} does not hold; it was changed or damaged:\n{lines}"
        )
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of a document")


def _number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_constant(text)


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError("a whole number with too many digits")
    return int(text)
