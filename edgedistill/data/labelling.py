"""From what a source calls things to splits and classes: names of files, columns and labels are the user's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedistill.data.dataset import UNLABELLED, Item, Split, printable
from edgedistill.data.scan import Facts
from edgedistill.errors import DataError
from edgedistill.result import Skipped

SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
CLASS_FILES = ("classes.txt", "dataset.json")
MAX_CLASS_FILE_BYTES = 10_000_000
_SHOWN = 40

Label = int | str
"""An index into the classes, or a class's name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image as its source names it; `split` is `None` where nothing is said, `label` where none is wanted."""

    key: str
    split: Split | None
    label: Label | None


@dataclass(frozen=True)
class Named:
    """Classes, the items of each split, and what has no place among them."""

    classes: tuple[str, ...]
    parts: Mapping[Split, Sequence[Item]]
    bad: tuple[Skipped, ...]


def split_of(path: str) -> Split | None:
    """The split that a file's path names: a folder called so, or a part of the file's own name."""
    *folders, name = path.lower().split("/")
    if folders and folders[-1] in SPLIT_NAMES:
        return SPLIT_NAMES[folders[-1]]
    words = re.split(r"[^a-z]+", name)
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def splits_of(paths: Sequence[str], source: str) -> dict[str, Split | None]:
    """The split of each file by name, or `None` for all. Raises DataError where some have none, or none is train."""
    found = {path: split_of(path) for path in paths}
    if not any(found.values()):
        return found
    if nameless := [path for path, split in found.items() if split is None]:
        raise DataError(
            f"some files of {source} have a split in their names, and {printable(nameless[0])} has none. "
            "Name each file or its folder train, val or test, or none of them to have the splits drawn."
        )
    if "train" not in found.values():
        raise DataError(
            f"{source} has files for {', '.join(sorted({str(s) for s in found.values()}))}, but none for train. "
            "Add them, or name no split at all to have the splits drawn."
        )
    return found


def given_classes(folder: Path) -> tuple[str, ...] | None:
    """Class names from `classes.txt` (one a line) or `dataset.json` ({"classes": [...]}); `None` without such a file.

    Raises DataError for a file that does not hold them.
    """
    for name in CLASS_FILES:
        path = folder / name
        if not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                text = file.read(MAX_CLASS_FILE_BYTES).decode("utf-8-sig")
            if name.endswith(".txt"):
                names = [line.strip() for line in text.splitlines() if line.strip()]
            else:
                document = json.loads(text)
                if "classes" not in document:
                    continue
                names = document["classes"]
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise DataError(f"class names cannot be read from {path}: {error}.") from None
        sound = isinstance(names, list) and all(isinstance(n, str) and n.strip() for n in names)
        if not sound or len(set(names)) != len(names) or not names:
            raise DataError(
                f"{path} must name each class once, as text, in the order of the labels: one a line in classes.txt, "
                'or {"classes": ["...", "..."]} in dataset.json.'
            )
        return tuple(names)
    return None


def name_classes(
    labels: Iterable[Label], given: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[Label, int]]:
    """Class names, and the index of each label that has one.

    With `given` names an integer counts from 0 among them. Without, integers stand in numerical order, and as soon as
    one label is text all are names, in order of the alphabet.
    """
    found = set(labels)
    if given is not None:
        index: dict[Label, int] = {name: place for place, name in enumerate(given)}
        known: dict[Label, int] = {
            label: label for label in found if isinstance(label, int) and 0 <= label < len(given)
        }
        return tuple(map(printable, given)), {**index, **known}
    if all(isinstance(label, int) for label in found):
        order: list[Label] = sorted(found, key=int)
    else:
        order = sorted(found, key=str)
    names = list(dict.fromkeys(str(label) for label in order))
    places = {name: place for place, name in enumerate(names)}
    return tuple(map(printable, names)), {label: places[str(label)] for label in found}


def as_label(text: str) -> Label:
    """A label written as text: an integer where it is one."""
    return int(text) if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII) else text


def name_items(
    entries: Sequence[Entry], facts: Mapping[str, Facts], given: Sequence[str] | None
) -> Named:
    """Entries as items of classes and splits; what is no image, or is of no class, is named as bad."""
    labels = [entry.label for entry in entries if entry.label is not None]
    classes, index = name_classes(labels, given)
    parts: dict[Split, list[Item]] = {"train": []}
    bad: list[Skipped] = []
    for entry in entries:
        fact = facts[entry.key]
        place = UNLABELLED if entry.label is None else index.get(entry.label)
        if fact.sha256 is None:
            bad.append(skip(entry.key, str(fact.reason)))
        elif place is None:
            shown = printable(str(entry.label))[:_SHOWN]
            bad.append(skip(entry.key, f"its label {shown} is none of the {len(classes)} classes"))
        else:
            parts.setdefault(entry.split or "train", []).append(Item(entry.key, place, fact.sha256))
    ordered = {split: sorted(part, key=lambda item: item.key) for split, part in parts.items()}
    return Named(classes, ordered, tuple(bad))


def skip(path: str, reason: str) -> Skipped:
    """A file or a row that is left out, with names that any document can hold."""
    return Skipped(path=printable(path), reason=printable(reason))
