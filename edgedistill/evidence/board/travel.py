"""What goes to a board and what is looked for there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgedistill.errors import DocumentError
from edgedistill.evidence.board.boardwords import plain
from edgedistill.files import sha256_file

BLOCK = 1 << 18


@dataclass(frozen=True)
class Looked:
    """What a board is and has: the interpreter for the kit, versions of its packages, and facts of the machine."""

    python: str
    versions: Mapping[str, str]
    machine: Mapping[str, Any]

    @property
    def words(self) -> str:
        """One line for a person."""
        memory = self.machine.get("memory_bytes")
        parts = [
            str(self.machine.get("board") or self.machine.get("os") or "unknown machine"),
            str(self.machine.get("arch")),
        ]
        parts += [f"{memory / 1e9:.1f} GB"] if isinstance(memory, int) else []
        return plain(", ".join([*parts, *(f"{k} {v}" for k, v in self.versions.items())]))


@dataclass(frozen=True)
class Sent:
    """A file of the bundle as it travels."""

    name: str
    path: Path
    size: int
    sha256: str

    @property
    def row(self) -> tuple[str, int, str]:
        """What the board is told of it."""
        return (self.name, self.size, self.sha256)


def needs_of(arguments: Sequence[str]) -> tuple[str, ...]:
    """The packages that a command of the kit needs, beside the standard library."""
    engine = arguments[0] == "build-engine" or any(
        pair == ("--provider", "engine") for pair in pairwise(arguments)
    )
    if arguments[0] == "info":
        return ("numpy",)
    return ("numpy", "tensorrt" if engine else "onnxruntime")


def travelling(bundle: Path) -> list[Sent]:
    """The files of a bundle, of a second one in `other/`, and of an evaluation set in `evalset/`; nothing else of the
    folder. Raises `DocumentError` for what is no bundle.
    """
    from edgedistill.deploy.archive import known_files, read_bundle

    names = known_files(read_bundle(bundle))
    if (bundle / "other").is_dir():
        names += [f"other/{name}" for name in known_files(read_bundle(bundle / "other"))]
    names += [
        f"evalset/{name}"
        for name in ("evalset.json", "pixels.npy", "labels.npy")
        if (bundle / "evalset" / name).is_file()
    ]
    absent = [name for name in names if not (bundle / name).is_file()]
    if absent:
        raise DocumentError(f"{bundle} is not whole: {', '.join(absent[:5])} is missing")
    return [
        Sent(n, bundle / n, (bundle / n).stat().st_size, sha256_file(bundle / n)) for n in names
    ]


def rest_of(files: Sequence[Sent], missing: Sequence[Any]) -> list[tuple[Sent, int]]:
    """The files that the board misses, each with the place that it goes on from: where what the board has of it is how
    it begins here.
    """
    return [
        (files[i], at if at and _begins(files[i], at, digest) else 0) for i, at, digest in missing
    ]


def _begins(sent: Sent, size: int, digest: str) -> bool:
    found = hashlib.sha256()
    with sent.path.open("rb") as file:
        while size > 0 and (block := file.read(min(BLOCK, size))):
            found.update(block)
            size -= len(block)
    return size == 0 and found.hexdigest() == digest


def bytes_of(files: Sequence[tuple[Sent, int]]) -> Iterator[bytes]:
    """The files one behind the other, each from its place on, as they are read."""
    for sent, at in files:
        with sent.path.open("rb") as file:
            file.seek(at)
            while block := file.read(BLOCK):
                yield block
