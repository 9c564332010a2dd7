"""What lies where in a WebDataset shard: each sample with the place of its image and its label, nothing unpacked.

Convention (the library webdataset): files that follow each other and share their name up to the first dot of the last
part are a sample. tarfile finds the members; it reads through a window that refuses what a sound archive never asks
for, so that a hostile one cannot fill the memory. Nothing that an archive calls a path is ever used as one.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from edgedistill.data.labelling import Label, as_label

MAX_LABEL_BYTES = 1_000_000
_MOST_AT_ONCE = 1 << 20
_MAX_NAME = 4_096
IMAGE_SUFFIXES = frozenset(
    (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "gif", "tif", "tiff", "ppm"),
        *("pgm", "pbm", "pnm", "jp2", "avif", "ico", "img", "image"),
    )
)
_LABELS = ("cls", "json")

Place = tuple[int, int]
"""Offset and size in bytes."""
Member = tuple[str, Place]
"""Name and place."""


@dataclass(frozen=True)
class Sample:
    """A sample that can be used: its key, the name and place of its image, and its label."""

    key: str
    image: str
    place: Place
    label: Label | None


@dataclass(frozen=True)
class Wanted:
    """What is looked for in a sample: whether a label, and where not the usual, the suffix of its image and the key of
    its label in `.json`. Without labels the suffix is a wish only.
    """

    labelled: bool = True
    image: str | None = None
    label: str | None = None


@dataclass
class Index:
    """What a shard holds: samples, members and samples left out with the reason, and what damaged the shard."""

    samples: list[Sample] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    damage: str | None = None


class _Window(io.RawIOBase):
    """A binary file that gives little at once; tarfile reads headers and long names, which are small."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, size: int | None = -1) -> bytes:
        """At most a megabyte; more is no header. Raises tarfile.ReadError."""
        if size is None or not 0 <= size <= _MOST_AT_ONCE:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; a place before the beginning is damage. Raises tarfile.ReadError."""
        if offset < 0:
            raise tarfile.ReadError("a member before the beginning")
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Where the file is."""
        return self.file.tell()


def read_index(path: Path, wanted: Wanted) -> Index:
    """The samples of a shard. Never raises for what it may hold; OSError where it cannot be read."""
    index = Index()
    seen: set[str] = set()
    with path.open("rb") as file:
        group: dict[str, Member] = {}
        current: str | None = None
        for name, place, fault in _members(file, path.stat().st_size, index):
            key, suffix = split_name(name)
            if fault is not None:
                index.bad.append((name, fault))
            elif key is not None:
                if key != current and current is not None:
                    _close(index, current, group, seen, file, wanted)
                    group = {}
                current = key
                if suffix in group:
                    index.bad.append((name, "stands twice in its sample"))
                group.setdefault(suffix, (name, place))
        if current is not None:
            _close(index, current, group, seen, file, wanted)
    return index


def split_name(name: str) -> tuple[str | None, str]:
    """Key and suffix (in small letters) of a member's name: `a/b.seg.PNG` is `a/b` and `seg.png`; no key for others."""
    found = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", name, re.DOTALL)
    return (found[1], found[2].lower()) if found else (None, "")


def _members(file: BinaryIO, size: int, index: Index) -> Iterator[tuple[str, Place, str | None]]:
    """Name, place and fault of each member that may matter; notes in `index` what ends the archive too early."""
    count, last = 0, -1
    try:
        with tarfile.open(fileobj=_Window(file), mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]
                count += 1
                place = (member.offset_data, member.size)
                if place[0] <= last or place[1] < 0:
                    raise tarfile.ReadError("a member that lies before the one ahead of it")
                last = place[0]
                if sum(place) > size:
                    index.bad.append((member.name[:_MAX_NAME], "cut off: the shard ends within it"))
                    raise tarfile.ReadError("unexpected end of data")
                if not member.isdir() and not re.match(r"__[^/]*__(?:$|/)", member.name):
                    yield member.name, place, _fault(member)
            file.seek(tar.offset)
            if (end := file.read(tarfile.BLOCKSIZE)) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("a damaged header" if end else "no end mark")
    except Exception as error:  # tarfile lets through whatever a damaged header causes
        if isinstance(error, OSError) and error.errno is not None:
            raise
        text = " ".join(str(error).split())[:120] or type(error).__name__
        index.damage = f"damaged or truncated after {count:,} members ({text})"


def _fault(member: tarfile.TarInfo) -> str | None:
    """Why a member is left out; `None` for a plain file inside the archive."""
    name = member.name
    if member.issym() or member.islnk():
        return "a link; links in shards are not followed"
    if not member.isreg() or member.issparse():
        return "not a plain file"
    if name.startswith("/") or "\\" in name or ".." in name.split("/") or "\0" in name:
        return "its path leaves the shard"
    if len(name) > _MAX_NAME:
        return f"its name is longer than {_MAX_NAME:,} characters"
    return None


def _close(
    index: Index,
    key: str,
    group: dict[str, Member],
    seen: set[str],
    file: BinaryIO,
    wanted: Wanted,
) -> None:
    """File a finished sample as usable or bad."""
    chosen = _image_of(group, wanted)
    if key in seen:
        chosen = "this sample stands in the shard before"
    seen.add(key)
    label: Label | None = None
    if wanted.labelled and not isinstance(chosen, str):
        try:
            label = _label_of(group, file, wanted.label)
        except ValueError as error:
            chosen = str(error)
    if isinstance(chosen, str):
        index.bad.append((key, chosen))
    else:
        index.samples.append(Sample(key, *chosen, label))


def _image_of(group: dict[str, Member], wanted: Wanted) -> Member | str:
    """Name and place of the image of a sample, or what is wrong with it."""
    suffix = (wanted.image or "").lower().lstrip(".")
    if suffix and (suffix in group or wanted.labelled):
        return group.get(suffix, f"it has no .{suffix}")
    images = [name for name in group if name in IMAGE_SUFFIXES]
    if not images:
        images = [name for name in group if name.rpartition(".")[2] in IMAGE_SUFFIXES]
    if not images:
        return "it has no image"
    if len(images) > 1:
        return f"it has {len(images)} images (.{', .'.join(sorted(images))}); data.image_column says which counts"
    return group[images[0]]


def _label_of(group: dict[str, Member], file: BinaryIO, label_key: str | None) -> Label:
    """The label of a sample. Raises ValueError with the reason when it has none."""
    suffix = next((s for s in (_LABELS if label_key is None else ("json",)) if s in group), None)
    if suffix is None:
        raise ValueError(f"it has no label ({'.cls or .json' if label_key is None else '.json'})")
    offset, size = group[suffix][1]
    if size > MAX_LABEL_BYTES:
        raise ValueError(f"its .{suffix} has {size:,} bytes, at most {MAX_LABEL_BYTES:,} are read")
    key = label_key or "label"
    file.seek(offset)
    try:
        text = file.read(size).decode("utf-8").strip()
        value = as_label(text) if suffix == "cls" else _in_json(text, key)
    except (ValueError, RecursionError):
        raise ValueError(f"its .{suffix} cannot be read") from None
    if value is None or value == "":
        raise ValueError("its .cls is empty" if suffix == "cls" else f'its .json has no "{key}"')
    return value


def _in_json(text: str, key: str) -> Label | None:
    """The label in a JSON object: an integer or a text; anything else is none."""
    document = json.loads(text)
    value = document.get(key) if isinstance(document, dict) else None
    return value if isinstance(value, str) or type(value) is int else None
