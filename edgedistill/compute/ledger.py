"""The ledger of runs: what every training of this user cost and gave, a line each, for the laws that plan the next one.

A JSONL file in the user's own folder, which is only ever added to, and never leaves the machine by itself. Files of
several machines are merged by the identity of their rows. A line that is damaged or of another version stays where it
is, is counted and left out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from edgedistill.document import Count, Document, Finite, Fraction, Seconds, Sha256, describe
from edgedistill.errors import BusyError, DocumentError, UsageError
from edgedistill.files import user_folder, write_atomic

SCHEMA: Literal["edgedistill.ledger/1"] = "edgedistill.ledger/1"
FILE, SWITCH = "ledger.jsonl", "EDGEDISTILL_LEDGER"
MOST_LINE_BYTES, MOST_ROWS = 64_000, 1_000_000
WAIT_S = 20.0
NOT_OF_THE_RUN = {"id", "created_utc", "version", "seconds"}
"""What may differ between two accounts of the same run."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Score(Document):
    """Mean cross entropy in nats and top-1 of `n` images."""

    loss: Finite
    top1: Fraction
    n: Count


class LedgerData(Document):
    """The images: `judged_sha256` is of those for validation, so that rows of one value can be compared.

    `train` are the different images that the training saw, `synthetic` and `unlabelled` among them.
    """

    name: str
    judged_sha256: Sha256
    classes: Count
    train: Count
    synthetic: Count = 0
    unlabelled: Count = 0


class LedgerStudent(Document):
    """The student as it was trained; `macs` of one image at `input_size` pixels."""

    model: str
    input_size: Count
    params: Count
    macs: Count
    start: Literal["random", "pretrained", "pruned"]


class LedgerTeacher(Document):
    """Who taught; `flops` of a pass of one image, `key` tells teachers of one name apart. Its loss is on validation."""

    model: str
    key: str
    adaptation: str
    params: Count
    flops: Finite | None
    val: Score | None


class Row(Document):
    """One training. `kind` is the arm, `settings_sha256` of how it learned but for how long; `seen` counts repeats.

    `flops` and `seconds` are by part of the work.
    """

    schema_: Literal["edgedistill.ledger/1"] = Field(default=SCHEMA, alias="schema")
    id: Sha256
    created_utc: str
    version: str
    machine: dict[str, str]
    data: LedgerData
    student: LedgerStudent
    kind: str
    method: str | None
    targets: Literal["stored", "live"] | None
    views: Count | None
    settings_sha256: Sha256
    weights_sha256: Sha256
    seed: Count
    epochs: Count
    steps: Count
    seen: Count
    teacher: LedgerTeacher | None
    val: Score
    test: Score | None
    flops: dict[str, Finite]
    seconds: dict[str, Seconds]


def row(**facts: Any) -> Row:
    """A row with its identity: a hash of all that is of the run itself."""
    known = Row.model_validate({**facts, "id": "0" * 64})
    return known.model_copy(update={"id": identity(known)})


def identity(found: Row) -> str:
    """The identity of a row: the same run twice has one, whenever and however fast it ran."""
    told = found.model_dump(mode="json", by_alias=True, exclude=NOT_OF_THE_RUN)
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Fault:
    """A line that is left out, from 1, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Rows:
    """What a ledger holds: each run once, in the order of the file, and the lines that are left out."""

    rows: tuple[Row, ...]
    faults: tuple[Fault, ...] = ()

    @property
    def words(self) -> str | None:
        """One sentence about the lines that are left out; `None` where there are none."""
        if not self.faults:
            return None
        first = self.faults[0]
        count = len(self.faults)
        what = "line is" if count == 1 else "lines are"
        return f"{count} {what} left out (line {first.line}: {first.reason})"


@dataclass(frozen=True)
class Ledger:
    """A ledger file, which need not be there yet."""

    path: Path

    def read(self) -> Rows:
        """Every run of the file. Raises `DocumentError` where the file itself cannot be read."""
        try:
            with self.path.open("rb") as file:
                return _rows(file)
        except FileNotFoundError:
            return Rows(())
        except OSError as error:
            raise DocumentError(
                f"the ledger {self.path} cannot be read: {error.strerror}."
            ) from None

    def add(self, rows: Iterable[Row]) -> int:
        """Add the rows that are not there yet; how many these were. What stands in the file is not touched.

        Raises `BusyError` where another process holds the file for long, `OSError` where it cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=WAIT_S):
                known = {found.id for found in self.read().rows}
                new = {found.id: found for found in rows if found.id not in known}
                self._append(list(new.values()))
        except Timeout:
            raise BusyError(
                f"another process holds the ledger {self.path}. Try again when it has ended."
            ) from None
        return len(new)

    def _append(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        text = "".join(f"{found.model_dump_json(by_alias=True)}\n" for found in rows)
        if not self.path.exists():
            write_atomic(self.path, text)
            return
        with self.path.open("rb+") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a line that broke off stays a line of its own
                    text = "\n" + text
            try:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise


def _rows(file: Iterable[bytes]) -> Rows:
    found: dict[str, Row] = {}
    faults: list[Fault] = []
    for number, line in enumerate(_lines(file), start=1):
        if len(found) >= MOST_ROWS:
            faults.append(Fault(number, f"more than {MOST_ROWS:,} rows"))
            break
        if not line.strip():
            continue
        got = _parsed(line)
        if isinstance(got, str):
            faults.append(Fault(number, got))
        else:
            found.setdefault(got.id, got)
    return Rows(tuple(found.values()), tuple(faults))


def _lines(file: Any) -> Iterator[bytes]:
    """Lines of a file, those that are too long cut off, so that none of them fills the memory."""
    while line := file.readline(MOST_LINE_BYTES + 1):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(MOST_LINE_BYTES + 1)


def _parsed(line: bytes) -> Row | str:
    """The row of a line, or what is wrong with it."""
    if len(line) > MOST_LINE_BYTES:
        return f"more than {MOST_LINE_BYTES:,} bytes"
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return "it is no JSON"
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        said = data.get("schema") if isinstance(data, dict) else None
        return f"it is of another kind or version ({str(said)[:40]!r} instead of {SCHEMA!r})"
    try:
        found = Row.model_validate(data)
    except ValidationError as error:
        return describe(error)[0]
    except RecursionError:
        return "it is nested too deep"
    if found.id != identity(found):
        return "it was changed after it was written: its id does not fit what it says"
    return found


def user_ledger() -> Ledger | None:
    """The ledger of this user: `$EDGEDISTILL_LEDGER`, else in the user's own folder; `None` where that is `off`."""
    said = os.environ.get(SWITCH)
    if said == "off":
        return None
    return Ledger(Path(said).expanduser() if said else user_folder() / FILE)


def required_ledger() -> Ledger:
    """The ledger of this user. Raises `UsageError` where there is none by their own will."""
    found = user_ledger()
    if found is None:
        raise UsageError(
            f"{SWITCH} is off, so there is no ledger of runs. Unset it, or set it to the path of a file."
        )
    return found
