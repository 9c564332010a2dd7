"""Which files are images that can be used: each is hashed and decoded once, and remembered in an
index.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ontarget.preprocess import DecodeError, decode

from edgedistill.data.dataset import Progress, quiet, threaded

MAX_ASPECT = 50
"""Longer shapes are left out: they do not survive a resize of the shorter side and a centre crop.
"""

INDEX_SCHEMA = "edgedistill.index/1"
_FILE_SLACK_BYTES = 64_000_000
State = list[int]
"""Three numbers that change when what lies behind a key does."""
_SAVE_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What one file is: content hash and size in pixels, or the reason why it cannot be used."""

    sha256: str | None
    width: int
    height: int
    reason: str | None


def most_bytes(max_pixels: int) -> int:
    """Largest encoded image that is read into memory."""
    return 8 * max_pixels + _FILE_SLACK_BYTES


def inspect(path: Path, max_pixels: int) -> Facts:
    """Hash and decode one file. Never raises for what a file may hold."""
    try:
        with path.open("rb") as file:
            if (size := os.fstat(file.fileno()).st_size) > most_bytes(max_pixels):
                return too_large(size, max_pixels)
            data = file.read(size)
    except OSError as error:
        return unusable(f"cannot be read: {error.strerror or error}")
    return inspect_bytes(data, max_pixels)


def inspect_bytes(data: bytes, max_pixels: int) -> Facts:
    """Hash and decode one encoded image. Never raises for what it may hold."""
    try:
        image = decode(io.BytesIO(data), max_pixels)
    except DecodeError as error:
        return unusable(str(error))
    width, height = image.size
    if max(width, height) > MAX_ASPECT * min(width, height):
        return unusable(f"too long: {width} x {height} pixels, at most {MAX_ASPECT} to 1")
    return Facts(hashlib.sha256(data).hexdigest(), width, height, None)


def unusable(reason: str) -> Facts:
    """Facts about what cannot be used."""
    return Facts(None, 0, 0, reason)


def too_large(size: int, max_pixels: int) -> Facts:
    """Facts about an encoded image of more bytes than are read."""
    return unusable(f"too large: {size:,} bytes, at most {most_bytes(max_pixels):,} are read")


def scan(
    root: Path,
    files: Sequence[str],
    max_pixels: int,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Facts]:
    """Facts about each of `files` (paths relative to `root`), decoding only what `cache` does not know."""
    states = {file: file_state(root / file) for file in files}
    return scan_keys(
        files, lambda file: inspect(root / file, max_pixels), states, max_pixels, cache, progress
    )


def scan_keys(
    keys: Sequence[str],
    look: Callable[[str], Facts],
    states: Mapping[str, State | None],
    max_pixels: int,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Facts]:
    """Facts about each of `keys` by `look`, asked only for what `cache` does not know in this state.

    The cache is a JSON file: state (of a file: size, time, inode) and facts of each key. A damaged one, or one made
    with another limit or another Pillow, is made again. It is saved every half minute, so that a scan that was stopped
    goes on.
    """
    stamp = _stamp(max_pixels)
    known = _load(cache, stamp) if cache else {}
    entries = {
        key: known[key]
        for key in keys
        if key in known and states[key] and known[key][:3] == states[key]
    }
    todo = [key for key in keys if key not in entries]
    done, saved = len(keys) - len(todo), time.monotonic()
    with quiet():
        for key, fact in zip(todo, threaded(look, todo), strict=True):
            state = states[key] or [0, 0, 0]
            entries[key] = [*state, fact.sha256, fact.width, fact.height, fact.reason]
            done += 1
            if progress:
                progress(done, len(keys))
            if cache and time.monotonic() - saved > _SAVE_EVERY_S:
                _save(cache, stamp, entries)
                saved = time.monotonic()
    if cache and (todo or entries.keys() != known.keys()):
        _save(cache, stamp, entries)
    return {key: Facts(*entries[key][3:]) for key in keys}


def _stamp(max_pixels: int) -> dict[str, Any]:
    import PIL

    return {
        "schema": INDEX_SCHEMA,
        "pillow": PIL.__version__,
        "max_pixels": max_pixels,
        "max_aspect": MAX_ASPECT,
    }


def file_state(path: Path) -> State | None:
    """Size, time and inode of a file; `None` when it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _load(cache: Path, stamp: Mapping[str, Any]) -> dict[str, list[Any]]:
    try:
        document = json.loads(cache.read_text("utf-8"))
        entries = document.pop("files")
        return dict(entries) if document == stamp and _holds(entries) else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _holds(entries: Mapping[str, Any]) -> bool:
    """Whether each entry is [size, mtime_ns, inode, sha256?, width, height, reason?]."""
    return all(
        isinstance(entry, list)
        and len(entry) == 7
        and all(type(entry[k]) is int for k in (0, 1, 2, 4, 5))
        and (
            (isinstance(entry[3], str) and len(entry[3]) == 64 and entry[6] is None)
            or (entry[3] is None and isinstance(entry[6], str))
        )
        for entry in entries.values()
    )


def _save(cache: Path, stamp: Mapping[str, Any], entries: Mapping[str, list[Any]]) -> None:
    """Write aside, then rename. A cache that cannot be written costs time, not the build."""
    aside = cache.with_name(f"{cache.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps({**stamp, "files": entries}), "utf-8")
        os.replace(aside, cache)
    with contextlib.suppress(OSError):
        aside.unlink(missing_ok=True)
