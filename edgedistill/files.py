"""Files that are there whole or not at all: written aside and renamed, removed by way of a rename, and told apart."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

WHOLE_HASH_BYTES = 64_000_000


def user_folder() -> Path:
    """Where what belongs to the user is kept: `$EDGEDISTILL_HOME`, else in the configuration folder."""
    home = os.environ.get("EDGEDISTILL_HOME")
    if home:
        return Path(home)
    config = os.environ.get("XDG_CONFIG_HOME")
    base = Path(config) if config else Path.home() / ".config"
    return base / "edgedistill"


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write `data` aside, sync it, and rename it to `path`; a reader sees the old file or the new one."""
    raw = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, is a disk (or a quota) that is full."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(link):
            return True
        seen.add(id(link))
        link = link.__cause__ or link.__context__
    return False


def stamp(path: Path) -> list[Any]:
    """Size of a file, and its SHA-256 unless it is large (large files carry their own checks)."""
    size = path.stat().st_size
    return [size, sha256_file(path) if size <= WHOLE_HASH_BYTES else None]


def remove(path: Path) -> None:
    """Remove a file or a folder by way of a rename, so that it is there whole or not at all."""
    if not path.exists() and not path.is_symlink():
        return
    if path.is_dir() and not path.is_symlink():
        trash = path.with_name(f".trash-{path.name}-{os.getpid()}")
        path.replace(trash)
        shutil.rmtree(trash, ignore_errors=True)
    else:
        path.unlink()


def replace_folder(source: Path, target: Path) -> None:
    """Put the folder `source` in the place of `target`: two renames, then the old one is removed."""
    old = target.with_name(f".trash-{target.name}-{os.getpid()}")
    there = target.exists() or target.is_symlink()
    if there:
        target.replace(old)
    source.replace(target)
    if there:
        remove(old)
