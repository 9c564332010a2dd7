"""The stage between files and training: every split as arrays of pixels on disk, made once.

train.npy                   canvases (N, K, K, 3) that training views are cut from; images without labels stand last
train-labels.npy            their labels (N,), -1 for an image without one
val.npy, test/pixels.npy    (N, S, S, 3), exactly as the device will see them
teacher-val.npy, -test.npy  the same images at the teacher's size, where that is another one
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Sizes:
    """Side of the training canvas, the student's and the teacher's input, in pixels."""

    canvas: int
    student: int
    teacher: int


@dataclass(frozen=True)
class Arrays:
    """What the stage left, mapped from disk: pixels (N, S, S, 3) and labels (N,) of each split.

    The rows of `train` are the labelled images, then those without a label, whose label is -1.
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
    free = shutil.disk_usage(work.folder).free
    if needed > free:
        raise StoppedError(
            f"the images take {needed / 1e9:.1f} GB as pixels and the disk has {free / 1e9:.1f} GB free. "
            "Free some space, use fewer images (--set data.max_train=...), or a smaller input size; "
            "then give the same command again."
        )
    work.path("test").mkdir(exist_ok=True)
    for name, items, side in jobs:
        if not work.has(name):
            aside = work.path(name).with_name(f".{Path(name).name}.tmp")
            write_pixels(dataset, items, side, side, aside, counter)
            _place(aside, work.path(name))
    arrays = {"train": labels(train), "val": labels(val)}
    for split, values in arrays.items():
        _save(work.path(f"{split}-labels.npy"), values)
    _save(work.path("test/labels.npy"), labels(test))
    about = {
        "schema": EVALSET_SCHEMA,
        "n": len(test),
        "of": len(test),
        "pixels_sha256": sha256_file(work.path("test/pixels.npy")),
        "labels_sha256": sha256_file(work.path("test/labels.npy")),
    }
    work.write("test/evalset.json", json.dumps(about, indent=1) + "\n")
    return {"canvas": sizes.canvas, "student": sizes.student, "teacher": sizes.teacher}


def _save(path: Path, values: Ints) -> None:
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
    own = (folder / "teacher-val.npy").exists()
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
    )
