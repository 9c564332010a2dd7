"""What the outputs of a classifier are called, and which output each class of the data is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedistill.errors import UsageError
from edgedistill.teacher.labels import MOST_NAMED, match

MOST_LABEL_BYTES = 16_000_000


@dataclass(frozen=True)
class Names:
    """Names of the outputs in their order, the output of each class of the data, and what a person should know."""

    outputs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    note: str | None = None


def names_for(
    model: str, count: int, own: tuple[str, ...] | None, data: Sequence[str] | None, source: str
) -> Names:
    """Names for the `count` outputs of `model`: its `own`, else those of the classes of the `data` from `source`.

    Raises `UsageError` for data whose classes are not the model's.
    """
    if own is not None:
        return Names(own, () if data is None else _rows(model, own, data, source))
    if data is None:
        words = 'nothing names the classes: they are called "class 0" and so on; name them with --labels FILE'
        return Names(tuple(f"class {k}" for k in range(count)), (), words)
    if len(data) != count:
        raise UsageError(
            f"{model} has {count:,} outputs and {source} {len(data):,} classes: these are not its images. Give the "
            "data that it was trained on, or the names of its outputs, one a line, with --labels FILE."
        )
    words = "the model does not name its classes: taken to be those of the data, in their order"
    return Names(tuple(data), tuple(range(count)), words)


def _rows(model: str, own: Sequence[str], data: Sequence[str], source: str) -> tuple[int, ...]:
    found = match(own, data)
    if not found.whole:
        few = ", ".join(found.missing[:MOST_NAMED])
        more = len(found.missing) - MOST_NAMED
        raise UsageError(
            f"{model} does not have {len(found.missing)} of the {len(data):,} classes of {source}: {few}"
            f"{f' and {more} more' if more > 0 else ''}. Give images of its own {len(own):,} classes, or their right "
            "names, one a line in the order of the outputs, with --labels FILE."
        )
    return tuple(row for row in found.rows if row is not None)


def read_names(path: Path, count: int) -> tuple[str, ...]:
    """Names of `count` outputs out of a text file, one a line. Raises `UsageError`."""
    try:
        if path.stat().st_size > MOST_LABEL_BYTES:
            raise UsageError(f"--labels {path} is larger than {MOST_LABEL_BYTES:,} bytes")
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--labels {path} cannot be read: {error}. Give a text file (UTF-8), one class a line."
        ) from None
    names = tuple(line.strip() for line in text.rstrip().split("\n"))
    if len(names) != count:
        raise UsageError(
            f"--labels {path} names {len(names):,} classes, and the model has {count:,} outputs. Give one name a line, "
            "in the order of the outputs."
        )
    if "" in names:
        raise UsageError(
            f"--labels {path}: line {names.index('') + 1} is empty; every output has a name"
        )
    return names
