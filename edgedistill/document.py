"""What every document of edgedistill is made of: frozen models without infinity, read from hostile files.

A document that cannot be read or does not hold is a `DocumentError` with each problem on its line. One that was written
with its `seal`, a hash of all that it says, is held to it: a changed digit is found, whoever changed it.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgedistill.errors import DocumentError

MAX_DOCUMENT_BYTES = 64_000_000


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Finite = Annotated[float, AfterValidator(_finite)]
Fraction = Annotated[float, AfterValidator(_finite), Field(ge=0, le=1)]
Seconds = Annotated[float, AfterValidator(_finite), Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Document(BaseModel):
    """Frozen, closed (an unknown key is an error), and written with sorted meaning rather than order."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


D = TypeVar("D", bound=BaseModel)
SEAL = "seal"
"""The last key of a sealed document: SHA-256 of everything else in it, however it is laid out."""


class Sealed(Document):
    """A document that carries its seal where it is written. `parse` holds it to it."""

    @model_validator(mode="before")
    @classmethod
    def _unseal(cls, data: Any) -> Any:
        """The seal is about the text and no part of what the document says."""
        return {k: v for k, v in data.items() if k != SEAL} if isinstance(data, dict) else data

    def dumps(self) -> str:
        """The document as JSON text with its seal, one key a line; ends with a newline."""
        return json.dumps(sealed(self.model_dump(mode="json", by_alias=True)), indent=1) + "\n"


def sealed(data: dict[str, Any]) -> dict[str, Any]:
    """A document as it is written, with its seal as the last key."""
    return {**data, SEAL: _seal_of(data)}


def _seal_of(data: Any) -> str:
    text = json.dumps(_plain(data), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(data: Any) -> Any:
    """`data` with every whole number as an integer: a tool that writes 1.0 as 1 has changed nothing."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_plain(value) for value in data]
    return int(data) if isinstance(data, float) and data.is_integer() else data


def describe(error: ValidationError) -> list[str]:
    """Each problem of a document on one line: its path, what was got, what is allowed."""
    lines = []
    for item in error.errors(include_url=False):
        path = ".".join(str(part) for part in item["loc"]) or "document"
        got = repr(item.get("input"))
        msg = "must be a mapping" if item["type"] == "model_type" else item["msg"].lower()
        lines.append(f"{path}  {msg}; got {got[:80]}")
    return lines


def _number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of a document")


def parse(
    kind: str,
    model: type[D],
    path: Path,
    max_bytes: int = MAX_DOCUMENT_BYTES,
    *,
    must_seal: bool = False,
) -> D:
    """A document of `model` read from `path`; any damage is a `DocumentError` that names the file. `must_seal`: one
    without its seal is damaged too.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
        if len(raw) > max_bytes:
            raise DocumentError(f"{kind} {path} has more than the {max_bytes:,} bytes allowed")
        data = json.loads(raw.decode("utf-8"), parse_constant=_no_number, parse_float=_number)
        found = model.model_validate(data)
        held = issubclass(model, Sealed) and (must_seal or SEAL in data)
        if held and data.pop(SEAL, None) != _seal_of(data):
            raise DocumentError(
                f"{kind} {path} was changed or damaged after it was written: its seal does not fit what it says. "
                "Copy it anew, or write it again with the command that made it."
            )
        return found
    except FileNotFoundError:
        raise DocumentError(f"{kind} {path} does not exist") from None
    except ValidationError as error:
        problems = "\n".join(f"  {line}" for line in describe(error)[:20])
        raise DocumentError(f"{kind} {path} does not hold:\n{problems}") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DocumentError(f"{kind} {path} cannot be read: {error}") from None
