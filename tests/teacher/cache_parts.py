"""What the tests of stored targets share: a teacher that is a pure function, and small caches of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgedistill.data.transforms import uniforms
from edgedistill.files import sha256_file
from edgedistill.nets import Ints
from edgedistill.progress import silent
from edgedistill.rundir import Work
from edgedistill.teacher import records
from edgedistill.teacher.cache import INDEX, StoredTargets
from edgedistill.teacher.course import Course
from edgedistill.teacher.records import Content
from edgedistill.teacher.storing import store

IMAGES, WIDTH, CLASSES = 21, 6, 5
ABOUT = {"teacher": "a" * 64, "pixels": "b" * 64, "top_k": "None", "views.seed": "3"}
ROWS = 8
"""Images of a shard in these tests; 21 images are three shards."""


class Formula:
    """A teacher whose features and logits are a formula of (image, view)."""

    def __init__(self, classes: int = CLASSES, width: int = WIDTH, seed: int = 0) -> None:
        self.features, self.classes, self.seed = width, classes, seed
        self.asked: list[tuple[int, int]] = []

    def __call__(self, index: Ints, view: int) -> tuple[Tensor, Tensor]:
        """Features in 0..4 and logits in -6..6."""
        self.asked += [(int(image), view) for image in index]
        u = torch.from_numpy(uniforms(self.seed, index, view, self.features + self.classes))
        return 4 * u[:, : self.features].float(), 12 * u[:, self.features :].float() - 6


def content(
    views: int = 2,
    images: int = IMAGES,
    top_k: int | None = None,
    classes: int = CLASSES,
    about: dict[str, str] = ABOUT,
    teachers: int = 1,
) -> Content:
    """What a cache of formulas holds; each teacher's features are two wider than those of the one before."""
    lessons = tuple(Course(views * teachers, views, teachers).lessons())
    widths = tuple(WIDTH + 2 * teacher for teacher in range(teachers))
    return Content(lessons, images, widths, classes, top_k, about)


def formulas(held: Content) -> list[Formula]:
    """The teachers of a cache."""
    return [Formula(held.classes, width, seed) for seed, width in enumerate(held.widths)]


def keep(folder: Path, held: Content) -> Path:
    """A finished cache in `folder`."""
    folder.mkdir(exist_ok=True)
    store(Work(folder), held, formulas(held), silent())
    return folder


def reader(folder: Path, held: Content) -> StoredTargets:
    """Reads a cache as what it is."""
    return StoredTargets(folder, held.about, held.lessons, held.images, held.classes)


def forge(folder: Path, name: str, data: bytes) -> None:
    """Put `data` in the place of a shard, with an index that says so."""
    (folder / name).write_bytes(data)
    index = json.loads((folder / INDEX).read_text("utf-8"))
    for entry in index["shards"]:
        if entry["name"] == name:
            entry["sha256"], entry["bytes"] = sha256_file(folder / name), len(data)
    (folder / INDEX).write_text(json.dumps(index), "utf-8")


def all_of(targets: StoredTargets) -> list[np.ndarray]:
    """Every number of a cache."""
    every = np.arange(targets.index.images)
    return [
        tensor.numpy() for lesson in targets.content.lessons for tensor in targets(lesson, every)
    ]


def small_shards(rows: int = ROWS) -> None:
    """Shards of a few images, for this process."""
    records.SHARD_IMAGES = rows
