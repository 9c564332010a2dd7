"""The facts about a data set that the other rooms read, and what the parts of this room share."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edgedistill import result
from edgedistill.result import Skipped

if TYPE_CHECKING:
    from PIL.Image import Image

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
UNLABELLED = -1
"""The label of an image that has none."""

Progress = Callable[[int, int], None]
"""Called with (done, total) from time to time."""

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Item:
    """One image: `key` finds it in its store, `label` indexes the classes (-1: it has none), `sha256` is of its
    content.
    """

    key: str
    label: int
    sha256: str


class Store(Protocol):
    """Where the images lie."""

    def read(self, item: Item) -> Image:
        """The image as RGB. Raises DataError when it is no longer what was scanned."""


@dataclass(frozen=True)
class Gathered:
    """What a source holds before it is split: items of the parts that it came with.

    `empty` and `need` are the words of an error: what it means that there is no image, and what to give.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    licence: str | None
    parts: Mapping[Split, Sequence[Item]]
    sides: Mapping[str, int]
    store: Store
    bad: tuple[Skipped, ...] = ()
    outside: tuple[Skipped, ...] = ()
    words: str = ""
    empty: str = "its folders are empty"
    need: str = "Give one folder of images (JPEG, PNG, WebP, ...) for each class."


@dataclass(frozen=True)
class Dataset:
    """Images and labels, split. `image_side` is the median short side over train, in pixels.

    `unlabelled` are further images to learn from, with label -1 and of content that stands in no split.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    licence: str | None
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]
    skipped: tuple[Skipped, ...]
    duplicates: int
    split: str
    image_side: int
    sha256: str
    store: Store = field(repr=False, compare=False)
    unlabelled: tuple[Item, ...] = ()

    def items(self, split: Split) -> tuple[Item, ...]:
        """The images of one split."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    def parts(self) -> list[tuple[str, tuple[Item, ...]]]:
        """Every image, by split, the unlabelled ones last."""
        splits = [(str(split), self.items(split)) for split in SPLITS]
        return [*splits, ("unlabelled", self.unlabelled)]

    def read(self, item: Item) -> Image:
        """The image as RGB, upright. Raises DataError when its file has changed since."""
        return self.store.read(item)

    def document(self, most_skipped: int = 100) -> result.Data:
        """The part of the result document; `skipped_files` names at most `most_skipped` files."""
        per_class = np.bincount(labels(self.train), minlength=len(self.classes))
        return result.Data(
            name=self.name,
            source=self.source,
            classes=list(self.classes),
            train=len(self.train),
            val=len(self.val),
            test=len(self.test),
            sha256=self.sha256,
            skipped=len(self.skipped),
            skipped_files=list(self.skipped[:most_skipped]),
            duplicates=self.duplicates,
            split=self.split,
            per_class_train=[int(count) for count in per_class],
            licence=self.licence,
            unlabelled=len(self.unlabelled),
        )


def labels(items: Sequence[Item]) -> npt.NDArray[np.int64]:
    """Labels `(N,)` of `items`."""
    return np.array([item.label for item in items], dtype=np.int64)


def content_hash(
    classes: Sequence[str], parts: Mapping[Split, Sequence[Item]], unlabelled: Sequence[Item] = ()
) -> str:
    """SHA-256 over class names and the key, label, content and split of every image."""
    digest = hashlib.sha256()
    for name in classes:
        digest.update(f"class\0{name}\n".encode("utf-8", "surrogateescape"))
    for split, items in [*((str(s), parts[s]) for s in SPLITS), ("unlabelled", unlabelled)]:
        for item in sorted(items, key=lambda item: item.key):
            line = f"{split}\0{item.key}\0{item.label}\0{item.sha256}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def printable(name: str) -> str:
    """A file name as text that any document can hold: what is not text is escaped."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def workers() -> int:
    """Threads that decode images."""
    return max(1, min(8, os.cpu_count() or 1))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's warnings about odd files off the screen; what counts is in the result."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def threaded(function: Callable[[A], B], values: Iterable[A]) -> Iterator[B]:
    """`map` on a few threads, in order, with a bounded number of results in flight."""
    source = iter(values)
    pool = ThreadPoolExecutor(workers(), thread_name_prefix="images")
    try:
        waiting: deque[Future[B]] = deque(
            pool.submit(function, value) for value in islice(source, 3 * workers())
        )
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(function, value) for value in islice(source, 1))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
