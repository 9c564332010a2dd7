"""Data sets of the library datasets as items: rows keep their place in Arrow files that are mapped from disk.

A row may name a file of this machine in place of an image's bytes; that is followed only into the cache of the hub.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ontarget.preprocess import DecodeError, decode

from edgedistill.data.columns import find_columns
from edgedistill.data.dataset import Gathered, Item, Progress, Split, printable
from edgedistill.data.fetch import Say
from edgedistill.data.hfload import load_rows
from edgedistill.data.kinds import Source, short_name
from edgedistill.data.labelling import (
    SPLIT_NAMES,
    Entry,
    Label,
    given_classes,
    name_items,
    skip,
)
from edgedistill.data.scan import (
    Facts,
    State,
    file_state,
    inspect_bytes,
    most_bytes,
    scan_keys,
    too_large,
    unusable,
)
from edgedistill.errors import DataError
from edgedistill.result import Skipped
from edgedistill.schema import DataSection

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class RowStore:
    """Images in rows: the data set and row of each key, the image's column, and where files may lie that rows name."""

    shown: str
    max_pixels: int
    image: str
    splits: Mapping[str, Any]
    rows: Mapping[str, tuple[str, int]]
    trusted: Path | None

    def bytes_of(self, key: str) -> bytes:
        """The encoded image. Raises OSError, with the reason, where a row has none."""
        split, row = self.rows[key]
        value = self.splits[split][row][self.image]
        data = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(data, bytes):
            return data
        path = value.get("path") if isinstance(value, dict) else None
        if path and self.trusted is not None:
            place = Path(str(path)).resolve()
            if place.is_relative_to(self.trusted.resolve()) and place.is_file():
                return place.read_bytes()
        raise OSError("the row names a file and holds no image" if path else "the row is empty")

    def look(self, key: str) -> Facts:
        """Facts about one image. Never raises for what it may be."""
        try:
            data = self.bytes_of(key)
        except Exception as error:  # a damaged Arrow file raises kinds of its own
            return unusable(f"cannot be read: {' '.join(str(error).split())[:120]}")
        if len(data) > most_bytes(self.max_pixels):
            return too_large(len(data), self.max_pixels)
        return inspect_bytes(data, self.max_pixels)

    def read(self, item: Item) -> Image:
        """The image as RGB, upright. Raises DataError when the rows are not what was scanned."""
        reason = "its content is another one"
        try:
            data = self.bytes_of(item.key)
            if hashlib.sha256(data).hexdigest() == item.sha256:
                return decode(io.BytesIO(data), self.max_pixels)
        except (OSError, DecodeError) as error:
            reason = str(error)
        raise DataError(
            f"image {printable(item.key)} of {self.shown} changed since it was read ({reason}). "
            "Leave the files as they are during a build, then give the command again."
        )


def gather_rows(
    source: Source,
    section: DataSection,
    labelled: bool,
    folder: Path,
    cache: Path | None,
    progress: Progress | None,
    say: Say,
) -> Gathered:
    """Images and labels of a data set of rows; what is made of Parquet files goes to `folder`. Raises DataError."""
    shown = printable(source.shown)
    found, licence, trusted = load_rows(source, folder, labelled, say)
    splits, outside = _roles(found, shown, labelled)
    first = next(iter(splits.values()))[1]
    columns = find_columns(
        first.features, section.image_column, section.label_column, labelled, shown
    )
    tables: dict[str, Any] = {}
    entries: list[Entry] = []
    rows: dict[str, tuple[str, int]] = {}
    states: dict[str, State | None] = {}
    bad: list[Skipped] = []
    for name, (split, table) in splits.items():
        if missing := [c for c in columns.names if c not in table.column_names]:
            outside.append(skip(name, f"this split has no column {missing[0]}"))
            continue
        labels = _labels(table, columns.label, columns.classes is not None)
        if labelled and split != "train" and all(label is None for label in labels):
            outside.append(skip(name, "no row of this split has a label"))
            continue
        tables[name] = _bytes_only(table, columns.image, columns.decodes)
        state = _state(table)
        for row, label in enumerate(labels):
            key = f"{name}/{row:08d}"
            if labelled and label is None:
                bad.append(skip(key, "no label"))
                continue
            entries.append(Entry(key, split if len(splits) > 1 else None, label))
            rows[key], states[key] = (name, row), state
    store = RowStore(shown, section.max_pixels, columns.image, tables, rows, trusted)
    facts = scan_keys(list(rows), store.look, states, section.max_pixels, cache, progress)
    given = columns.classes or (given_classes(source.root) if source.files and labelled else None)
    named = name_items(entries, facts, given)
    return Gathered(
        name=short_name(source.shown),
        source=shown,
        classes=named.classes,
        licence=licence,
        parts=named.parts,
        sides={key: min(fact.width, fact.height) for key, fact in facts.items()},
        store=store,
        bad=tuple(sorted([*bad, *named.bad], key=lambda skipped: skipped.path)),
        outside=tuple(outside),
        words="train, val and test splits as given" if len(splits) > 1 else "",
        empty="it has no rows",
        need="Give a data set with a column of images and a column of labels.",
    )


def _roles(
    found: Mapping[str, Any], shown: str, labelled: bool
) -> tuple[dict[str, tuple[Split, Any]], list[Skipped]]:
    """Which data set is which split, by name; those of other names are left out and named. Raises DataError."""
    if not labelled:
        return {name: ("train", table) for name, table in found.items()}, []
    if len(found) == 1:
        return {name: ("train", table) for name, table in found.items()}, []
    splits: dict[str, tuple[Split, Any]] = {}
    outside = []
    for name, table in found.items():
        split = SPLIT_NAMES.get(name.lower())
        if split is None or split in {s for s, _ in splits.values()}:
            outside.append(
                skip(name, "this split is not used: its name is none of train, val, test")
            )
        else:
            splits[name] = (split, table)
    if "train" not in {split for split, _ in splits.values()}:
        raise DataError(
            f"{shown} has the splits {', '.join(map(printable, found))}, and none of them is called train. Save "
            "the one to train on by itself, and give that."
        )
    return dict(sorted(splits.items(), key=lambda pair: pair[1][0] != "train")), outside


def _labels(table: Any, column: str | None, names: bool) -> list[Label | None]:
    """The label of each row, `None` where it has none (-1 where the column has names)."""
    if column is None:
        return [None] * len(table)
    values = table.with_format(None).select_columns([column])[:][column]
    return [
        value.strip()
        if isinstance(value, str) and value.strip()
        else value
        if type(value) is int and not (names and value < 0)
        else None
        for value in values
    ]


def _bytes_only(table: Any, image: str, decodes: bool) -> Any:
    """The image column alone, as encoded bytes."""
    import datasets

    table = table.with_format(None).select_columns([image])
    return table.cast_column(image, datasets.Image(decode=False)) if decodes else table


def _state(table: Any) -> State | None:
    """Rows and files behind them, as numbers that change when those do; `None` for a table that is in memory only."""
    files = [file_state(Path(file["filename"])) for file in table.cache_files]
    if not files:
        return None
    digest = hashlib.sha256(repr(files).encode()).hexdigest()
    return [len(table), int(digest[:15], 16), 0]
