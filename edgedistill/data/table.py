"""A CSV or TSV of paths and labels: the images lie below the folder of the file, and nowhere else."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedistill.data.dataset import Gathered, Progress, Split, printable
from edgedistill.data.folder import FolderStore
from edgedistill.data.kinds import Source, short_name
from edgedistill.data.labelling import (
    SPLIT_NAMES,
    Entry,
    Label,
    as_label,
    given_classes,
    name_items,
    skip,
)
from edgedistill.data.scan import scan
from edgedistill.errors import DataError
from edgedistill.result import Skipped
from edgedistill.schema import DataSection

PATHS = ("path", "file", "filename", "image", "filepath", "file_name", "image_path")
LABELS = ("label", "class", "labels", "class_name", "category")
MAX_TABLE_BYTES = 1_000_000_000
NEED = "Give a table whose header names a path and a label column, with the images beside or below the table."


@dataclass(frozen=True)
class _Row:
    """A line of the table; `label` is empty and `split` `None` where it says nothing."""

    line: int
    path: str
    label: str
    split: str | None


def gather_table(
    source: Source, section: DataSection, cache: Path | None, progress: Progress | None
) -> Gathered:
    """Images and labels of a table. Raises DataError."""
    table = source.root / source.files[0]
    rows = list(_rows(table, section))
    labels = {row.label for row in rows if row.label}
    numbers = all(isinstance(as_label(label), int) for label in labels)
    entries, bad = _entries(source.root, rows, numbers)
    files = sorted(entry.key for entry in entries)
    facts = scan(source.root, files, section.max_pixels, cache, progress)
    named = name_items(entries, facts, given_classes(source.root))
    return Gathered(
        name=short_name(str(table)),
        source=printable(str(table)),
        classes=named.classes,
        licence=None,
        parts=named.parts,
        sides={key: min(fact.width, fact.height) for key, fact in facts.items()},
        store=FolderStore(source.root, section.max_pixels),
        bad=tuple(sorted([*bad, *named.bad], key=lambda skipped: skipped.path)),
        words="train, val and test by the table" if any(row.split for row in rows) else "",
        empty="it has no rows",
        need=NEED,
    )


def _rows(table: Path, section: DataSection) -> Iterator[_Row]:
    """The lines of a table below its header. Raises DataError for what is no such table."""
    try:
        if (size := table.stat().st_size) > MAX_TABLE_BYTES:
            raise DataError(
                f"{table} has {size:,} bytes, and a table may have {MAX_TABLE_BYTES:,}."
            )
        text = table.read_text("utf-8-sig")
    except OSError as error:
        raise DataError(f"{table} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{table} is no text in UTF-8: {error.reason} at byte {error.start:,}."
        ) from None
    first = text.partition("\n")[0]
    delimiter = "\t" if table.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        at_path = _column(table, header, section.image_column, PATHS, "paths", "data.image_column")
        at_label = _column(
            table, header, section.label_column, LABELS, "labels", "data.label_column"
        )
        lower = [name.lower() for name in header]
        at_split = lower.index("split") if "split" in lower else None
        for fields in lines:
            if not fields:
                continue
            cells = [*map(str.strip, fields), *[""] * (len(header) - len(fields))]
            split = None if at_split is None else cells[at_split]
            yield _Row(lines.line_num, cells[at_path], cells[at_label], split)
    except csv.Error as error:
        raise DataError(
            f"{table} cannot be read as a table: line {lines.line_num}: {error}."
        ) from None


def _column(
    table: Path, header: Sequence[str], asked: str | None, usual: Sequence[str], what: str, key: str
) -> int:
    """Which column holds the paths or the labels. Raises DataError when none or several may."""
    found = [
        place
        for place, name in enumerate(header)
        if (name == asked if asked is not None else name.lower() in usual)
    ]
    if len(found) == 1:
        return found[0]
    fault = "several columns" if found else "no column"
    wanted = f'called "{asked}"' if asked is not None else f"of {what} ({', '.join(usual)})"
    columns = ", ".join(printable(name) for name in header[:40]) or "nothing"
    raise DataError(
        f"{table} has {fault} {printable(wanted)}. Its header says: {columns}. "
        f"Name the right one with --set {key}=..."
    )


def _entries(root: Path, rows: Sequence[_Row], numbers: bool) -> tuple[list[Entry], list[Skipped]]:
    """Rows as entries, and those that cannot be used with the reason."""
    real = root.resolve()
    entries: list[Entry] = []
    bad: list[Skipped] = []
    paths = [_inside(root, real, row.path) for row in rows]
    said: dict[str | None, set[str]] = {}
    for row, path in zip(rows, paths, strict=True):
        said.setdefault(path, set()).update([row.label] if row.label else [])
    lines: dict[str, int] = {}
    for row, path in zip(rows, paths, strict=True):
        split: Split | None = None if row.split is None else SPLIT_NAMES.get(row.split.lower())
        fault = None
        if path is None:
            fault = "its path leaves the folder of the table" if row.path else "no path"
        elif not row.label:
            fault = "no label"
        elif row.split is not None and split is None:
            fault = f'its split is "{row.split[:40]}"; allowed: train, val and test'
        elif len(said[path]) > 1:
            fault = "the same path stands under another label"
        elif path in lines:
            fault = f"the same path stands in line {lines[path]}"
        if fault is not None or path is None:
            bad.append(skip(row.path or "(empty)", f"line {row.line}: {fault}"))
            continue
        lines[path] = row.line
        label: Label = as_label(row.label) if numbers else row.label
        entries.append(Entry(path, split, label))
    return entries, bad


def _inside(root: Path, real: Path, text: str) -> str | None:
    """A path of the table relative to its folder; `None` when it leaves the folder, by name or by a link."""
    if not text or "\0" in text:
        return None
    if "\\" in text and "/" not in text:
        text = text.replace("\\", "/")
    path = os.path.normpath(os.path.join(root, text))
    inside = os.path.relpath(path, root)
    if inside in (".", "..") or inside.startswith("../"):
        return None
    try:
        if not Path(path).resolve().is_relative_to(real):
            return None
    except (OSError, RuntimeError):
        return None
    return Path(inside).as_posix()
