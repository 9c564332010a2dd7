"""A small student, a small set and a teacher that knows the answers, for tests of the engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from edgedistill.data.views import Views
from edgedistill.derive import resolve
from edgedistill.distill.facts import Fitted, Images, Schedule
from edgedistill.distill.hard import HardStage
from edgedistill.distill.methods import method_values
from edgedistill.distill.objectives import Distilled, Objective
from edgedistill.distill.trainer import Trainer
from edgedistill.nets import Ints, Look, state_bytes
from edgedistill.progress import Advance, Face
from edgedistill.recipe import DistillSection, Layered, Recipe
from edgedistill.rundir import Work
from edgedistill.teacher.course import Course, Lesson

LOOK = Look(32, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))
VIEWS = Views(seed=3, min_crop=0.7, flip=True, count=2)
WIDTH, TEACHER_WIDTH, CLASSES = 256, 12, 3


def images(n: int = 20, unlabelled: int = 0) -> Images:
    """`n` small images whose colour is their class, the last `unlabelled` of them without a label."""
    rng = np.random.default_rng(0)
    labels = np.arange(n, dtype=np.int64) % CLASSES
    canvas = rng.integers(0, 80, (n, 36, 36, 3), dtype=np.uint8)
    canvas[np.arange(n), :, :, labels] += 120
    val = canvas[:6, 2:34, 2:34].copy()
    val_labels = labels[:6].copy()
    if unlabelled:
        labels[-unlabelled:] = -1
    return Images(canvas, labels, val, val_labels)


def schedule(**changes: Any) -> Schedule:
    """Three epochs of six images a step, with changes."""
    base: dict[str, Any] = {
        "epochs": 3, "batch_size": 6, "lr": 2e-3, "weight_decay": 0.01, "warmup": 0.2, "seed": 5,
    }  # fmt: skip
    return Schedule(**{**base, **changes})


def network() -> nn.Module:
    """A student with every kind of randomness that a timm net has: dropout and drop path."""
    torch.manual_seed(1)
    model: nn.Module = timm.create_model(
        "test_efficientnet", num_classes=CLASSES, drop_rate=0.3, drop_path_rate=0.2
    )
    return model


class Knowing:
    """A teacher (or several) that knows the answer; its features depend on image and view."""

    classes = CLASSES

    def __init__(self, widths: tuple[int, ...] = (TEACHER_WIDTH,)) -> None:
        self.widths = widths
        self.asked: list[tuple[int, int]] = []

    def __call__(self, lesson: Lesson, index: Ints) -> tuple[Tensor, Tensor]:
        """Features (B, D) and logits (B, C)."""
        self.asked.append((lesson.view, len(index)))
        rng = np.random.default_rng(lesson.view)
        width = self.widths[lesson.teacher]
        features = torch.from_numpy(rng.standard_normal((64, width)).astype(np.float32))
        logits = torch.eye(CLASSES)[torch.from_numpy(index) % CLASSES] * 5
        return features[torch.from_numpy(index)], logits


def section(**changes: Any) -> DistillSection:
    """A resolved section of a recipe."""
    base = Recipe.model_validate({"distill": {"projection_dim": 8, **changes}})
    return resolve(Layered(base), method_values(base)).recipe.distill


def taught(teacher: Knowing | None = None, **changes: Any) -> Distilled:
    """What a distilled arm minimises."""
    torch.manual_seed(2)
    return Distilled(section(**changes), WIDTH, teacher or Knowing(), images().labels)


def make(
    objective: Objective, data: Images | None = None, hard: bool = False, teachers: int = 1,
    views: Views = VIEWS, **changes: Any,
) -> Trainer:  # fmt: skip
    """A trainer of the small student."""
    plan = schedule(**changes)
    course = Course(plan.epochs, 2, teachers)
    stage = HardStage(Knowing(), views, course, 1) if hard else None
    return Trainer(
        "student", network(), objective, data or images(), LOOK, views, course, plan, stage
    )


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


class Killing(Face):
    """A face under which the process dies after so many steps of this try."""

    def __init__(self, steps: int) -> None:
        super().__init__(verbosity=0)
        self.steps = steps

    @contextlib.contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """Counts down."""
        left = [self.steps + 1]  # the first call says where this try starts

        def advance(step: int) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed

        yield advance


def work(folder: Path) -> Work:
    """A stage's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return Work(folder)


def outcome(fitted: Fitted, trainer: Trainer) -> tuple[Any, ...]:
    """All that a training left, but for the time it took."""
    extra = [state_bytes(m) for m in trainer.objective.modules]
    curve = [point.model_copy(update={"seconds": None}) for point in fitted.curve]
    return state_bytes(trainer.model), extra, curve, fitted.steps, fitted.val_top1
