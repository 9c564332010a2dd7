"""Files from an address, once and whole: written aside in the cache, counted, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgedistill.data.dataset import printable
from edgedistill.data.kinds import shown_url
from edgedistill.data.labelling import CLASS_FILES
from edgedistill.errors import DataError, StoppedError
from edgedistill.files import is_disk_full

Say = Callable[[str], None]
"""Tells a person one line."""
_CHUNK = 1 << 22
_MB = 1e6
_TELL_EVERY_S = 5.0


def fetch_shards(urls: Sequence[str], folder: Path, say: Say) -> list[Path]:
    """The files of `urls` under `folder`, in order; those that are there already are not fetched again.

    They keep their names, in a folder for the part of the addresses before them. Class names that lie beside the first
    come along. Raises DataError for what cannot be fetched, StoppedError when the disk is too small for it.
    """
    places = [_place(url, folder) for url in urls]
    todo = [(url, path) for url, path in zip(urls, places, strict=True) if not path.exists()]
    if not todo:
        return places
    sizes = [_size(url) for url, _ in todo]
    known = sum(size or 0 for size in sizes)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    amount = f"{known / _MB:,.1f} MB" if all(sizes) else "of unknown size"
    if known > free:
        raise StoppedError(
            f"the shards are {amount} and the disk has {free / _MB:,.1f} MB free. Free some space, or name fewer "
            "shards; then give the same command again."
        )
    say(f"fetching {len(todo):,} shards, {amount}, into {folder}")
    done, told = 0, time.monotonic()

    def count(size: int) -> None:
        nonlocal done, told
        done += size
        if time.monotonic() - told > _TELL_EVERY_S:
            told = time.monotonic()
            say(f"fetched {done / _MB:,.1f} MB of {amount}")

    for (url, path), size in zip(todo, sizes, strict=True):
        _fetch(url, path, size, count)
    say(f"fetched {len(todo):,} shards, {done / _MB:,.1f} MB")
    for name in CLASS_FILES:
        _beside(urls[0], places[0], name)
    return places


def _place(url: str, folder: Path) -> Path:
    """Where a file goes: its name, under its folder's name, under what tells its address from all others."""
    head, _, name = shown_url(url).rpartition("/")
    origin = hashlib.sha256(head.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[-100:]
    last = "".join(c if c.isalnum() or c in "-_" else "_" for c in head.rpartition("/")[2])[-50:]
    return folder / origin / (last or "shards") / safe


def _open(url: str) -> tuple[Any, str]:
    """The file system of an address and the path in it. Raises DataError."""
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except Exception as error:  # each file system raises kinds of its own, even for a bad address
        raise DataError(
            f"{printable(shown_url(url))} cannot be read here: {_text(error)}. Install what it names, or fetch the "
            "files first and give their folder."
        ) from None
    return fs, str(path)


def _size(url: str) -> int | None:
    """Bytes at an address, `None` where it does not say. Raises DataError when there is nothing."""
    fs, path = _open(url)
    try:
        size = fs.info(path).get("size")
    except Exception as error:  # each file system raises kinds of its own
        raise _failed(url, error) from None
    return int(size) if isinstance(size, int) and size >= 0 else None


def _fetch(url: str, path: Path, size: int | None, count: Callable[[int], None]) -> None:
    """Fetch one file aside and rename it; `count` gets the bytes that came. Raises DataError when it is not whole."""
    fs, source = _open(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    done = 0
    try:
        with fs.open(source, "rb") as remote, aside.open("wb") as local:
            while chunk := remote.read(_CHUNK):
                local.write(chunk)
                done += len(chunk)
                count(len(chunk))
            local.flush()
            os.fsync(local.fileno())
        if size is not None and done != size:
            raise EOFError(f"{done:,} of {size:,} bytes came")
        aside.replace(path)
    except Exception as error:
        if is_disk_full(error):
            raise StoppedError(
                f"the disk is full after {done / _MB:,.1f} MB of {printable(path.name)}. Free some space, then give "
                "the same command again; what came whole is kept."
            ) from None
        raise _failed(url, error) from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _beside(url: str, path: Path, name: str) -> None:
    """Fetch a small file that may lie beside a shard."""
    other = url.partition("?")[0].rpartition("/")[0] + f"/{name}"
    with contextlib.suppress(DataError):
        _fetch(other, path.with_name(name), _size(other), lambda _: None)


def _failed(url: str, error: Exception) -> DataError:
    return DataError(
        f"{printable(shown_url(url))} could not be fetched ({type(error).__name__}: {_text(error)}). Give the same "
        "command again to go on, or fetch the files by other means and give their folder."
    )


def _text(error: Exception) -> str:
    """The first words of a foreign error, without the query of an address in it."""
    words = [word.partition("?")[0] if "://" in word else word for word in str(error).split()]
    return printable(" ".join(words))[:300]
