"""The stage between files and training: every split as arrays of pixels on disk, made once.

train.npy                   canvases (N, K, K, 3) that training views are cut from; images without labels stand last
train-labels.npy            their labels (N,), -1 for an image without one
val.npy, test/pixels.npy    (N, S, S, 3), exactly as the device will see them
teacher-val.npy, -test.npy  the same images at the teacher's size, where that is another one
train-asked.npy             the class asked for (M,) of each synthetic image, where the last M canvases are synthetic
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ontarget.contract import EVALSET_SCHEMA

from edgedistill.data.dataset import UNLABELLED, Dataset, labels
from edgedistill.data.pixels import open_pixels, pixels_bytes, write_pixels
from edgedistill.errors import StoppedError
from edgedistill.rundir import Work, sha256_file

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
CANVAS_MARGIN = 8 / 7
ASKED = "train-asked.npy"
UNCHANGED = (
    "val.npy", "val-labels.npy", "test/pixels.npy", "test/labels.npy", "test/evalset.json",
    "teacher-val.npy", "teacher-test.npy",
)  # fmt: skip
"""What synthetic training images leave as it is."""
BLOCK = 256
"""Images that are copied at once."""


@dataclass(frozen=True)
class Sizes:
    """Side of the training canvas, the student's and the teacher's input, in pixels."""

    canvas: int
    student: int
    teacher: int


@dataclass(frozen=True)
class Arrays:
    """What the stage left, mapped from disk: pixels (N, S, S, 3) and labels (N,) of each split.

    The rows of `train` are the labelled images, then those without a label, whose label is -1, and last the synthetic
    ones, whose label is -1 too; `asked` (M,) is what they were asked to show.
    """

    folder: Path
    train: Pixels
    val: Pixels
    test: Pixels
    teacher_val: Pixels
    teacher_test: Pixels
    train_labels: Ints
    val_labels: Ints
    test_labels: Ints
    asked: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def own(self) -> int:
        """How many rows of `train` are of the user; they are the first."""
        return len(self.train_labels) - len(self.asked)

    @property
    def labelled(self) -> int:
        """How many rows of `train` have a label; they are the first."""
        return int(np.count_nonzero(self.train_labels != UNLABELLED))

    @property
    def labelled_train(self) -> tuple[Pixels, Ints]:
        """Canvases (L, K, K, 3) and labels (L,) of the training images that have a label."""
        return self.train[: self.labelled], self.train_labels[: self.labelled]


def canvas_side(student: int, teacher: int, image_side: int) -> int:
    """Side of the canvas: the larger input, with a margin for crops where the images have more to give."""
    largest = max(student, teacher)
    return largest if image_side <= largest else round(largest * CANVAS_MARGIN)


def prepare(
    work: Work, dataset: Dataset, sizes: Sizes, counter: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write every array of the stage; files of a broken try are kept. Raises `StoppedError` when the disk is short."""
    train = (*dataset.train, *dataset.unlabelled)
    val, test = dataset.val, dataset.test
    jobs = [
        ("train.npy", train, sizes.canvas),
        ("val.npy", val, sizes.student),
        ("test/pixels.npy", test, sizes.student),
    ]
    if sizes.teacher != sizes.student:
        jobs += [("teacher-val.npy", val, sizes.teacher), ("teacher-test.npy", test, sizes.teacher)]
    needed = sum(pixels_bytes(len(items), side) for name, items, side in jobs if not work.has(name))
    _require_room(work.folder, needed)
    work.path("test").mkdir(exist_ok=True)
    for name, items, side in jobs:
        if not work.has(name):
            aside = work.path(name).with_name(f".{Path(name).name}.tmp")
            write_pixels(dataset, items, side, side, aside, counter)
            _place(aside, work.path(name))
    save_labels(work.path("train-labels.npy"), labels(train))
    save_labels(work.path("val-labels.npy"), labels(val))
    save_labels(work.path("test/labels.npy"), labels(test))
    about = {
        "schema": EVALSET_SCHEMA,
        "n": len(test),
        "of": len(test),
        "pixels_sha256": sha256_file(work.path("test/pixels.npy")),
        "labels_sha256": sha256_file(work.path("test/labels.npy")),
    }
    work.write("test/evalset.json", json.dumps(about, indent=1) + "\n")
    return {"canvas": sizes.canvas, "student": sizes.student, "teacher": sizes.teacher}


def extend(work: Work, folder: Path, more: Iterable[Pixels], asked: Ints) -> None:
    """The arrays of `folder` with synthetic training images behind its own: blocks (n, K, K, 3) of `more`, in all as
    many as classes were `asked` for. What does not change is the same file on disk. Raises `StoppedError`.
    """
    before = open_arrays(folder)
    side = before.train.shape[1]
    shape = (len(before.train) + len(asked), side, side, 3)
    _require_room(work.folder, pixels_bytes(shape[0], side))
    work.path("test").mkdir(exist_ok=True)
    for name in (name for name in UNCHANGED if (folder / name).exists()):
        work.path(name).unlink(missing_ok=True)
        _same_file(folder / name, work.path(name))
    aside = work.path(".train.npy.tmp")
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with aside.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(before.train), BLOCK):
            file.write(np.ascontiguousarray(before.train[start : start + BLOCK]).data)
        for block in more:
            file.write(np.ascontiguousarray(block).data)
    _place(aside, work.path("train.npy"))
    nothing = np.full(len(asked), UNLABELLED, dtype=np.int64)
    save_labels(work.path("train-labels.npy"), np.concatenate([before.train_labels, nothing]))
    save_labels(work.path(ASKED), asked)


def _same_file(path: Path, place: Path) -> None:
    """A second name of a file, or a copy where the disk knows no such thing."""
    try:
        os.link(path, place)
    except OSError:
        shutil.copyfile(path, place)


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StoppedError(
            f"the images take {needed / 1e9:.1f} GB as pixels and the disk has {free / 1e9:.1f} GB free. "
            "Free some space, use fewer images (--set data.max_train=...), or a smaller input size; "
            "then give the same command again."
        )


def save_labels(path: Path, values: Ints) -> None:
    """Write classes (N,) whole or not at all."""
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("wb") as file:
        np.lib.format.write_array(file, values)
    _place(aside, path)


def _place(aside: Path, path: Path) -> None:
    """Sync a finished file and give it its name, so that also a lost power leaves it whole or not at all."""
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    aside.replace(path)


def open_arrays(folder: Path) -> Arrays:
    """The arrays of a finished stage."""
    val, test = open_pixels(folder / "val.npy"), open_pixels(folder / "test" / "pixels.npy")
    own, asked = (folder / "teacher-val.npy").exists(), folder / ASKED
    return Arrays(
        folder=folder,
        train=open_pixels(folder / "train.npy"),
        val=val,
        test=test,
        teacher_val=open_pixels(folder / "teacher-val.npy") if own else val,
        teacher_test=open_pixels(folder / "teacher-test.npy") if own else test,
        train_labels=np.load(folder / "train-labels.npy", allow_pickle=False),
        val_labels=np.load(folder / "val-labels.npy", allow_pickle=False),
        test_labels=np.load(folder / "test" / "labels.npy", allow_pickle=False),
        asked=np.load(asked, allow_pickle=False) if asked.exists() else np.empty(0, np.int64),
    )
