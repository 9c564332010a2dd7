"""The ledger of runs as a table: a row for each student and way of learning, with ranges and sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from edgedistill.compute.ledger import Ledger, Row, Rows
from edgedistill.evidence.view import figures
from edgedistill.evidence.view.terminal import grid, words

COLUMNS = ("student", "learns", "runs", "seen", "val. loss", "best")


def ledger_view(ledger: Ledger, found: Rows) -> Any:
    """Where the ledger is, what it holds, and what of it is left out."""
    count = len(found.rows)
    head = words(f"{ledger.path}: {count:,} run{'' if count == 1 else 's'}")
    parts: list[Any] = [head]
    groups: dict[str, list[Row]] = {}
    for row in found.rows:
        groups.setdefault(f"{row.data.name}, {row.data.classes} classes", []).append(row)
    for name, own in sorted(groups.items()):
        seconds = sum(row.seconds.get("training", 0.0) for row in own)
        title = words(f"{name}: {len(own):,} of them, {figures.duration(seconds)} of training")
        parts += [Text(), title, _table(own)]
    if not found.rows:
        parts.append(words("It fills by itself: every build and every arm of a study adds a row."))
    if found.words is not None:
        parts.append(words(f"{found.words}; the file keeps them", "yellow"))
    return Group(*parts)


def _table(rows: Sequence[Row]) -> Any:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(_group(row), []).append(row)
    table = grid(*COLUMNS, right=COLUMNS[2:])
    for key, own in sorted(groups.items()):
        table.add_row(
            *(words(text) for text in key),
            f"{len(own):,}",
            _range([row.seen for row in own], _short),
            _range([row.val.loss for row in own], lambda loss: f"{loss:.3f}"),
            f"{100 * max(row.val.top1 for row in own):.1f} %",
        )
    return table


def _group(row: Row) -> tuple[str, ...]:
    """Student, and how it learns; a start from random weights is not said."""
    how = row.kind if row.method is None else row.method
    if row.data.synthetic:
        how += ", synthetic"
    if row.student.start != "random":
        how += f", {row.student.start}"
    return f"{row.student.model} {row.student.input_size} px", how


def _short(count: float) -> str:
    return f"{count / 1000:,.0f} k" if count >= 10_000 else f"{count:,.0f}"


def _range(values: Sequence[float], said: Callable[[float], str]) -> str:
    low, high = said(min(values)), said(max(values))
    return low if low == high else f"{low} to {high}"
