"""Stored targets: the teacher's features and logits for exactly the views that the student sees.

    t0-v0003-s0001.safetensors   records of teacher 0, view 3, second shard: at most 8,192 images or 64 MB
    index.json                   what the records are of, and rows, bytes and SHA-256 of every shard; written last

A cache that is of something else, or of which one byte was changed, is refused and named. `LiveTargets` asks the
teacher at each step instead.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol, get_args

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from edgedistill.document import Document, Sha256, parse
from edgedistill.errors import DocumentError, TeacherError
from edgedistill.files import sha256_file
from edgedistill.nets import Ints
from edgedistill.teacher.course import Lesson
from edgedistill.teacher.records import (
    ABOUT,
    Content,
    Shard,
    digest_of,
    mark_of,
    shard_name,
    unpack_logits,
)

SCHEMA: Final = "edgedistill.targets/1"
INDEX = "index.json"
MAX_HEADER_BYTES = 100_000
AGAIN = "Nothing was trained on it. Remove the folder and give the same command again."


class Lectures(Protocol):
    """A teacher that says what it sees: features (B, D) and logits (B, C) of (image indices, view)."""

    @property
    def features(self) -> int:
        """Width D of its features."""
        ...

    def __call__(self, index: Ints, view: int) -> tuple[Tensor, Tensor]: ...


class Targets(Protocol):
    """What a student asks: float32 features (B, D) and logits (B, C), up to a constant a row, of a lesson's views."""

    widths: tuple[int, ...]
    classes: int

    def __call__(self, lesson: Lesson, index: Ints) -> tuple[Tensor, Tensor]: ...


Arithmetic = Literal["float32", "bfloat16"]
"""What the teacher computed in."""


class Entry(Document):
    """A shard in the index."""

    name: str
    teacher: int = Field(ge=0)
    view: int = Field(ge=0)
    first: int = Field(ge=0)
    rows: int = Field(ge=1)
    arithmetic: Arithmetic
    bytes: int = Field(ge=1)
    sha256: Sha256

    @property
    def lesson(self) -> Lesson:
        """Whose records of which view."""
        return Lesson(self.teacher, self.view)


class Index(Document):
    """`index.json` of a cache."""

    schema_: Literal["edgedistill.targets/1"] = Field(default=SCHEMA, alias="schema")
    about: dict[str, str]
    images: int = Field(ge=1)
    widths: list[Annotated[int, Field(ge=1)]]
    classes: int = Field(ge=1)
    top_k: int | None = Field(ge=1)
    shards: list[Entry]

    def content(self) -> Content:
        """What the cache holds."""
        lessons = tuple(dict.fromkeys(entry.lesson for entry in self.shards))
        return Content(
            lessons, self.images, tuple(self.widths), self.classes, self.top_k, self.about
        )


def read_index(folder: Path) -> Index:
    """The index of a cache. Raises `DocumentError` when it is damaged, or does not hold together."""
    path = folder / INDEX
    index = parse("index of stored teacher outputs", Index, path)
    ends: dict[Lesson, tuple[int, int]] = {}
    good = len(index.shards) > 0
    for entry in index.shards:
        number, end = ends.get(entry.lesson, (0, 0))
        good = good and entry.first == end and entry.name == shard_name(entry.lesson, number)
        good = good and entry.teacher < len(index.widths)
        ends[entry.lesson] = (number + 1, end + entry.rows)
    if not good or {end for _, end in ends.values()} != {index.images}:
        raise DocumentError(
            f"index of stored teacher outputs {path} does not hold: its shards are not all images "
            f"of each view in order. {AGAIN}"
        )
    return index


def check_about(
    folder: Path, index: Index, about: Mapping[str, str], images: int, classes: int
) -> None:
    """Raise `DocumentError` that names each difference when a cache is of something else."""
    was = {**index.about, "images": f"{index.images:,}", "classes": f"{index.classes:,}"}
    wanted = {**about, "images": f"{images:,}", "classes": f"{classes:,}"}
    differ = [
        f"{key} was {was.get(key, 'not said')}, expected {wanted.get(key, 'nothing')}"
        for key in sorted({*was, *wanted})
        if was.get(key) != wanted.get(key)
    ]
    if differ:
        raise DocumentError(
            f"stored teacher outputs {folder} are of something else: {'; '.join(differ)}. {AGAIN}"
        )


# -- reading ---------------------------------------------------------------------------------------


class Records:
    """One shard, mapped from disk after its SHA-256 was checked. Raises `DocumentError`."""

    def __init__(self, folder: Path, content: Content, shard: Shard, sha256: str | None) -> None:
        self.path = folder / shard.name
        self.classes = content.classes
        rows = shard.rows * content.row_bytes(shard.lesson.teacher)
        try:
            size = self.path.stat().st_size
            if not rows < size <= rows + MAX_HEADER_BYTES:
                raise ValueError(f"{size:,} bytes, and {shard.rows:,} records take {rows:,}")
            if sha256 is not None and sha256_file(self.path) != sha256:
                raise ValueError("the SHA-256 is not the one in the index")
            with safe_open(self.path, framework="pt") as file:
                mark = json.loads((file.metadata() or {})[ABOUT])
                self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self._check(content, shard, mark)
        except FileNotFoundError:
            raise DocumentError(
                f"stored teacher outputs {self.path} are missing. {AGAIN}"
            ) from None
        except (
            OSError, SafetensorError, ValueError, TypeError, LookupError, AttributeError, RuntimeError,
        ) as error:  # fmt: skip
            raise DocumentError(
                f"stored teacher outputs {self.path} are damaged: {error}. {AGAIN}"
            ) from None

    def _check(self, content: Content, shard: Shard, mark: Any) -> None:
        self.scale, self.digest = mark.pop("scale"), mark.pop("sha256")
        self.arithmetic: Arithmetic = mark.pop("arithmetic")
        if mark != mark_of(content, shard):
            raise ValueError("the header is that of another shard, or of something else")
        if not (isinstance(self.scale, float) and 0 < self.scale < math.inf):
            raise ValueError(f"the scale is {self.scale!r}")
        if self.arithmetic not in get_args(Arithmetic):
            raise ValueError(f"the arithmetic is {self.arithmetic!r}")
        layout = content.layout(shard.lesson.teacher)
        found = {name: (t.dtype, tuple(t.shape)) for name, t in self.tensors.items()}
        wanted = {
            name: (kind, (shard.rows, width) if width else (shard.rows,))
            for name, (kind, width) in layout.items()
        }
        if found != wanted:
            raise ValueError(f"they hold {found}, and should hold {wanted}")
        ids = self.tensors.get("classes")
        if ids is not None and not 0 <= int(ids.int().min()) <= int(ids.int().max()) < self.classes:
            raise ValueError(f"they name classes beyond {self.classes:,}")

    def whole(self) -> bool:
        """Whether the numbers are those that were written."""
        return bool(self.digest == digest_of(self.tensors))

    def rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 features (B, D) and logits (B, C) of `rows` (B,) of the shard."""
        taken = {name: _take(tensor, rows) for name, tensor in self.tensors.items()}
        features = taken.pop("features").float()
        return features if self.scale == 1 else features * self.scale, unpack_logits(
            taken, self.classes
        )


def _take(tensor: Tensor, rows: Tensor) -> Tensor:
    """Rows of a tensor; torch picks none from unsigned numbers of 16 bits."""
    if tensor.dtype == torch.uint16:
        return tensor.view(torch.int16)[rows].int() & 0xFFFF
    return tensor[rows]


class StoredTargets:
    """Reads a finished cache: rows of any order of one lesson at a time, mapped from disk.

    Raises `DocumentError` for a cache of something else, with other views or images, and for a damaged shard.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, str],
        lessons: Sequence[Lesson],
        images: int,
        classes: int,
    ) -> None:
        self.folder, self.index = folder, read_index(folder)
        check_about(folder, self.index, about, images, classes)
        self.content = self.index.content()
        lacking = [lesson for lesson in lessons if lesson not in self.content.lessons]
        if lacking:
            raise DocumentError(
                f"stored teacher outputs {folder} lack {len(lacking)} of the {len(lessons)} views, "
                f"the first is view {lacking[0].view} of teacher {lacking[0].teacher}. {AGAIN}"
            )
        self.widths, self.classes = tuple(self.index.widths), self.index.classes
        self.checked: set[str] = set()
        self.lesson: Lesson | None = None
        self.entries: list[Entry] = []
        self.opened: dict[int, Records] = {}

    def __call__(self, lesson: Lesson, index: Ints) -> tuple[Tensor, Tensor]:
        """Features (B, D) and logits (B, C), float32, of images `index` (B,) in a lesson's view."""
        if lesson != self.lesson:
            self._turn_to(lesson)
        if len(self.entries) == 1:
            return self._shard(0).rows(torch.from_numpy(index))
        shard = np.searchsorted(self.firsts, index, side="right") - 1
        features = torch.empty(len(index), self.widths[lesson.teacher])
        logits = torch.empty(len(index), self.classes)
        for number in np.unique(shard):
            at = torch.from_numpy(np.flatnonzero(shard == number))
            rows = torch.from_numpy(index - self.firsts[number])[at]
            features[at], logits[at] = self._shard(int(number)).rows(rows)
        return features, logits

    def _turn_to(self, lesson: Lesson) -> None:
        entries = [entry for entry in self.index.shards if entry.lesson == lesson]
        self.lesson, self.entries, self.opened = lesson, entries, {}
        self.firsts = np.array([entry.first for entry in entries])

    def _shard(self, number: int) -> Records:
        found = self.opened.get(number)
        if found is None:
            entry = self.entries[number]
            shard = Shard(entry.lesson, number, entry.first, entry.rows)
            sha256 = None if shard.name in self.checked else entry.sha256
            found = self.opened[number] = Records(self.folder, self.content, shard, sha256)
            self.checked.add(shard.name)
        return found


class JoinedTargets:
    """Stored outputs of training images, and from image `first` on those of synthetic ones, which have `few` views."""

    def __init__(self, real: Targets, made: Targets, first: int, few: int) -> None:
        self.real, self.made, self.first, self.few = real, made, first, few
        self.widths, self.classes = real.widths, real.classes

    def __call__(self, lesson: Lesson, index: Ints) -> tuple[Tensor, Tensor]:
        """Features (B, D) and logits (B, C), float32, of images `index` (B,) in a lesson's view."""
        behind = index >= self.first
        features = torch.empty(len(index), self.widths[lesson.teacher])
        logits = torch.empty(len(index), self.classes)
        fewer = Lesson(lesson.teacher, lesson.view % self.few)
        for targets, which, asked, rows in (
            (self.real, ~behind, lesson, index),
            (self.made, behind, fewer, index - self.first),
        ):
            at = np.flatnonzero(which)
            if len(at):
                features[at], logits[at] = targets(asked, rows[at])
        return features, logits


class LiveTargets:
    """Asks the teacher at each step. Raises `TeacherError` when it gives a number that is not finite."""

    def __init__(self, lecturers: Sequence[Lectures], classes: int) -> None:
        self.lecturers, self.classes = lecturers, classes
        self.widths = tuple(lecturer.features for lecturer in lecturers)

    def __call__(self, lesson: Lesson, index: Ints) -> tuple[Tensor, Tensor]:
        """Features (B, D) and logits (B, C), float32, of images `index` (B,) in a lesson's view."""
        features, logits = said(self.lecturers[lesson.teacher], lesson, index)
        # copies: what inference mode made takes part in no gradient
        return features.clone(), logits - logits.amax(dim=1, keepdim=True)


def said(lecturer: Lectures, lesson: Lesson, index: Ints) -> tuple[Tensor, Tensor]:
    """What a teacher says of images `index` in float32. Raises `TeacherError` where that is not a finite number."""
    features, logits = (tensor.float() for tensor in lecturer(index, lesson.view))
    for name, tensor in (("features", features), ("logits", logits)):
        finite = torch.isfinite(tensor).all(dim=1)
        if not bool(finite.all()):
            first = int(index[int((~finite).nonzero()[0])])
            raise TeacherError(
                f"teacher {lesson.teacher} gives {name} that are not finite for view {lesson.view}, "
                f"first of image {first}; take another teacher, or another checkpoint of it"
            )
    return features, logits
