"""Which test images a file gets right, one by one: from a run's hashed tables, or from the bits of a baseline.

An image is known by the hash of its content and the name of its class, so that two runs are paired on the images
that both tested, whatever their order, and an image whose label changed is another one.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgedistill.checkresult import Predictions
from edgedistill.errors import DocumentError
from edgedistill.files import sha256_file
from edgedistill.metrics import Bools, correct
from edgedistill.result import Result, Table

MOST_KEPT = 50_000
"""Images whose bits a baseline keeps: more would not be small."""
MOST_TABLE_BYTES = 1_000_000_000
_SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Scored:
    """`right` (N,) in the order of the images' keys; `keys` is empty where only their hash is known."""

    right: Bools
    keys: tuple[str, ...]
    test_sha256: str


@dataclass(frozen=True)
class Pair:
    """Two files on the images common to both: `new` and `old` (N,) bool."""

    new: Bools
    old: Bools


def scored(result: Result, name: str, folder: Path) -> Scored | None:
    """What the file `name` of a run gets right, from the tables in `folder`; `None` where they are not there.

    Raises `DocumentError` for tables that are damaged, or that do not belong to the result.
    """
    logits_at, split_at = (
        _place(folder, result.tables.get(key)) for key in ("file_logits", "split")
    )
    if logits_at is None or split_at is None:
        return None
    labels, keys = _images(split_at, result.data.classes)
    logits = _logits(logits_at, f"logits_{name}", (len(labels), len(result.data.classes)))
    if not labels:
        return None
    order = sorted(range(len(keys)), key=keys.__getitem__)
    right = correct(logits, np.asarray(labels, dtype=np.int64))[order]
    ordered = tuple(keys[i] for i in order)
    return Scored(right, ordered, hashlib.sha256("\n".join(ordered).encode()).hexdigest())


def _place(folder: Path, table: Table | None) -> Path | None:
    """A table that is there and whole. Raises `DocumentError` for another file in its place."""
    if table is None:
        return None
    root = folder.resolve()
    try:
        place = (root / table.path).resolve()
        there = place.is_relative_to(root) and place.is_file()
    except (OSError, ValueError):
        there = False
    if not there:
        return None
    if place.stat().st_size > MOST_TABLE_BYTES or sha256_file(place) != table.sha256:
        raise DocumentError(
            f"{place} is not the table that result.json speaks of (its hash differs): copy the whole run folder "
            "again, or build it anew"
        )
    return place


def _images(split: Path, classes: Sequence[str]) -> tuple[list[int], list[str]]:
    """Label and key of each test image, in the order in which they were scored."""
    labels, keys, seen = [], [], Counter[str]()
    try:
        lines = split.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"{split} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        part, _, rest = line.partition("\t")
        if part != "test":
            continue
        label, _, rest = rest.partition("\t")
        sha = rest.partition("\t")[0]
        if not (label.isascii() and label.isdecimal() and len(label) < 9 and _SHA.fullmatch(sha)):
            raise DocumentError(f"{split}, line {number}, is no image with its label and hash")
        if int(label) >= len(classes):
            raise DocumentError(f"{split}, line {number}, has class {label} of {len(classes)}")
        key = f"{sha} {classes[int(label)]}"
        seen[key] += 1
        labels.append(int(label))
        keys.append(f"{key} {seen[key]}")
    return labels, keys


def _logits(path: Path, name: str, shape: tuple[int, int]) -> Any:
    """One array of an .npz file, of the shape that it must have; nothing larger is ever unpacked."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            found, dtype = _header(member)
            if found == shape and dtype.kind == "f" and dtype.itemsize <= 8:
                count = shape[0] * shape[1]
                data = member.read(count * dtype.itemsize + 1)
                if len(data) == count * dtype.itemsize:
                    return np.frombuffer(data, dtype).reshape(shape)
            fault = f"holds {name} as {dtype} {found}, not {shape[0]} images of {shape[1]} classes"
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        fault = f"cannot be read: {str(error)[:200]}"
    except (NotImplementedError, RuntimeError, TypeError, AttributeError) as error:
        fault = f"is no table of this kind: {str(error)[:200]}"  # encryption, another compression
    raise DocumentError(f"{path} {fault}")


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError(f"version {version} of .npy")
    shape, fortran, dtype = read[version](member)
    if fortran or dtype.hasobject:
        raise ValueError("its numbers are not stored row by row")
    return shape, dtype


def packed(known: Scored | None) -> Predictions | None:
    """The bits for a baseline; `None` where there are none, or too many."""
    if known is None or len(known.right) > MOST_KEPT:
        return None
    bits = zlib.compress(np.packbits(known.right).tobytes(), 9)
    return Predictions(
        n=len(known.right),
        test_sha256=known.test_sha256,
        right=base64.b64encode(bits).decode("ascii"),
    )


def unpacked(kept: Predictions, where: str) -> Scored:
    """The bits of a baseline. Raises `DocumentError` for any that do not hold."""
    size = (kept.n + 7) // 8
    try:
        if not 0 < kept.n <= MOST_KEPT:
            raise ValueError(f"predictions of 1 to {MOST_KEPT:,} images are kept, not {kept.n:,}")
        stream = zlib.decompressobj()
        data = stream.decompress(base64.b64decode(kept.right, validate=True), size + 1)
        if len(data) != size or not stream.eof or stream.unused_data:
            raise ValueError(f"predictions.right does not hold {kept.n:,} bits")
        bits = np.unpackbits(np.frombuffer(data, np.uint8))
        if bits[kept.n :].any():
            raise ValueError(f"predictions.right holds more than {kept.n:,} bits")
    except (ValueError, zlib.error) as error:
        raise DocumentError(f"baseline {where} does not hold: {error}") from None
    return Scored(bits[: kept.n].astype(np.bool_), (), kept.test_sha256)


def pair(new: Scored | None, old: Scored | None) -> Pair | None:
    """Both on the images common to both; `None` where that cannot be known, or there are none."""
    if new is None or old is None:
        return None
    if new.test_sha256 == old.test_sha256 and len(new.right) == len(old.right):
        return Pair(new.right, old.right)
    if not (new.keys and old.keys):
        return None
    place = {key: i for i, key in enumerate(old.keys)}
    both = [(i, place[key]) for i, key in enumerate(new.keys) if key in place]
    if not both:
        return None
    ours, theirs = np.asarray(both).T
    return Pair(new.right[ours], old.right[theirs])
