"""Class names: which row of a teacher's head speaks of which class of the data."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from edgedistill.errors import TeacherError, nearest

MOST_NAMED = 8


@dataclass(frozen=True)
class Match:
    """The head's row of each class of the data, `None` where there is none or more than one; why, by class."""

    rows: tuple[int | None, ...]
    missing: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether every class has a row of its own."""
        return not self.missing


def cleaned(name: str) -> str:
    """A name as it is compared: one case, words apart by one blank, whatever stood between them."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return " ".join(re.sub(r"[\W_]+", " ", text).split())


def match(labels: Sequence[str], names: Sequence[str]) -> Match:
    """Rows of a head with `labels` for the data's classes `names`.

    A label may hold synonyms with commas between them, as ImageNet's do. The whole label counts before a synonym; a
    synonym of several rows means none of them, and no row serves two classes.
    """
    whole, part = _index(labels, False), _index(labels, True)
    rows: list[int | None] = []
    missing: list[str] = []
    for name in names:
        found = whole.get(cleaned(name)) or part.get(cleaned(name)) or []
        if len(found) == 1 and found[0] not in rows:
            rows.append(found[0])
            continue
        rows.append(None)
        if len(found) > 1:
            missing.append(f'"{name}" (which {len(found)} of its classes are called)')
        elif found:
            missing.append(f'"{name}" (the same class as another one of the data)')
        else:
            missing.append(f'"{name}"{_hint(name, part)}')
    return Match(tuple(rows), tuple(missing))


def _index(labels: Sequence[str], synonyms: bool) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        for word in {cleaned(p) for p in (label.split(",") if synonyms else [label])} - {""}:
            found.setdefault(word, []).append(row)
    return found


def _hint(name: str, known: dict[str, list[int]]) -> str:
    near = nearest(cleaned(name), known)
    return f" (it has {near.removeprefix('; did you mean ').removesuffix('?')})" if near else ""


def rows_or_error(teacher: str, asked: str, found: Match, labels: Sequence[str]) -> list[int]:
    """Every row, or the `TeacherError` that names the classes of the data which the teacher does not have."""
    if found.whole:
        return [row for row in found.rows if row is not None]
    few = ", ".join(found.missing[:MOST_NAMED])
    more = len(found.missing) - MOST_NAMED
    shown = ", ".join(f'"{label}"' for label in labels[:3])
    raise TeacherError(
        f"{teacher} does not have {len(found.missing)} of the {len(found.rows)} classes of the data: "
        f"{few}{f' and {more} more' if more > 0 else ''}. Its {len(labels):,} classes begin with {shown}. "
        f"{asked} takes its head as it is, so nothing was trained: rename the classes as the teacher "
        "calls them, or use --set teacher.adapt=probe or finetune."
    )
