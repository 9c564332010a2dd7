"""The large tables beside `result.json`: written apart from it, and read again only if they are what was written.

The confusion matrix of many classes is a TSV of its counts that are not 0: at most a line for each test image. A table
that is not there is missed and nothing more; one whose hash is another is a `DocumentError`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgedistill.errors import DocumentError
from edgedistill.result import Result, Table

CONFUSION = "confusion"
MOST_CLASSES = 100
"""With more classes than this the confusion matrix is a table beside the document."""
MOST_BYTES = 64_000_000
MOST_SQUARE = 2_500
"""The matrix of more classes is not read: no view can show it."""
HEAD = "true\tpredicted\timages"


def apart(result: Result, folder: str) -> tuple[Result, dict[str, str]]:
    """The document without its large tables, and these by file name: they must be written into `folder`, which is
    relative to the run folder.
    """
    if len(result.confusion) <= MOST_CLASSES:
        return result, {}
    name, text = f"{CONFUSION}.tsv", _text(result.confusion)
    table = Table(
        path=f"{folder}/{name}",
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        what="images of each true class by the class that the shipped file gave them",
    )
    tables = {**result.tables, CONFUSION: table}
    return result.model_copy(update={"confusion": [], "tables": tables}), {name: text}


def with_tables(result: Result, run: Path) -> Result:
    """The document with the tables that lie in its run folder. Raises `DocumentError` for one that was changed."""
    table = result.tables.get(CONFUSION)
    if table is None or result.confusion or len(result.data.classes) > MOST_SQUARE:
        return result
    text = _read(table, run)
    if text is None:
        return result
    counts = _counts(text, len(result.data.classes), run / table.path)
    return result.model_copy(update={"confusion": counts})


def _text(counts: list[list[int]]) -> str:
    lines = [
        f"{true}\t{predicted}\t{count}"
        for true, row in enumerate(counts)
        for predicted, count in enumerate(row)
        if count
    ]
    return "\n".join([HEAD, *lines]) + "\n"


def _read(table: Table, run: Path) -> str | None:
    """The text of a table, `None` where it is not there."""
    path = run / table.path
    try:
        if not path.resolve().is_relative_to(run.resolve()):
            raise DocumentError(f"table {table.path} does not lie in the run folder {run}")
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise DocumentError(f"table {path} cannot be read: {error}") from None
    if hashlib.sha256(raw).hexdigest() != table.sha256:
        raise DocumentError(
            f"table {path} is not the one that belongs to this result: its hash is another. Copy the whole run folder "
            "anew, or remove the table, and the views are made without it."
        )
    return raw.decode("utf-8", "replace")


def _counts(text: str, classes: int, path: Path) -> list[list[int]]:
    """The matrix. A table with the right hash may still be no table, as whoever wrote the hash wrote the file."""
    lines = text.splitlines()
    counts = [[0] * classes for _ in range(classes)]
    try:
        if lines[:1] != [HEAD]:
            raise ValueError(f"it does not begin with {HEAD!r}")
        for line in lines[1:]:
            true, predicted, count = (int(part) for part in line.split("\t"))
            if min(true, predicted) < 0 or count < 1 or counts[true][predicted]:
                raise ValueError(f"the line {line[:60]!r} is wrong or stands there twice")
            counts[true][predicted] = count
    except (IndexError, ValueError) as error:
        raise DocumentError(f"table {path} does not hold: {error}") from None
    return counts
