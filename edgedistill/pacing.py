"""How fast this machine trains a student: measured by training it for a moment, on noise of the images' size.

Pixels do not change what a step costs, so noise does; everything else is the engine's own: views, both objectives, the
optimiser, validation. What a teacher says is noise of its width: reading stored outputs costs next to nothing.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.progress import silent
from edgedistill.rundir import Work

if TYPE_CHECKING:
    from torch import Tensor

    from edgedistill.data.views import Views
    from edgedistill.distill.spec import StudentSpec
    from edgedistill.nets import Ints, Look, Pixels
    from edgedistill.recipe import DistillSection
    from edgedistill.teacher.course import Lesson

FIRST_STEPS, MOST_STEPS = 3, 400
FEW, MANY = 8, 256
"""Images that are validated with at the end of a timed training, and where validation itself is timed."""


@dataclass(frozen=True)
class Pace:
    """Seconds of one image: of training on it with labels alone, with a teacher's outputs too, and of validation."""

    train_s: float
    taught_s: float
    validate_s: float


def pace_of(
    spec: StudentSpec,
    section: DistillSection,
    views: Views,
    look: Look,
    canvas: int,
    teacher_width: int,
    seconds: float = 1.5,
) -> Pace:
    """Train a student as `section`, which is resolved, says: some `seconds` with labels alone and with a teacher each.

    `canvas` is the side of the stored images in pixels, `look` what the student takes, `teacher_width` of the teacher's
    features.
    """
    validate_s = _validating(spec, look)
    plain, taught = (
        _training(spec, section, views, look, canvas, width, seconds, validate_s)
        for width in (None, teacher_width)
    )
    return Pace(plain, taught, validate_s)


class _Noise:
    """What a teacher might say, by the rows of a batch."""

    def __init__(self, width: int, classes: int, batch: int) -> None:
        import torch

        self.widths: tuple[int, ...] = (width,)
        self.classes = classes
        self.features, self.logits = torch.randn(batch, width), torch.randn(batch, classes)

    def __call__(self, lesson: Lesson, index: Ints) -> tuple[Tensor, Tensor]:
        """Features (B, D) and logits (B, C)."""
        return self.features[: len(index)], self.logits[: len(index)]


def _training(
    spec: StudentSpec,
    section: DistillSection,
    views: Views,
    look: Look,
    canvas: int,
    width: int | None,
    seconds: float,
    validate_s: float,
) -> float:
    """Seconds of training on one image, of a second training that is as long as the first one says."""
    steps, image_s = FIRST_STEPS, 0.0
    for _ in range(2):
        count = steps * int(section.batch_size)
        spent = _train(spec, section, views, look, canvas, width, count)
        image_s = max(1e-9, (spent - FEW * validate_s) / count)
        steps = int(np.clip(seconds / (image_s * int(section.batch_size)), FIRST_STEPS, MOST_STEPS))
    return image_s


def _train(
    spec: StudentSpec,
    section: DistillSection,
    views: Views,
    look: Look,
    canvas: int,
    width: int | None,
    count: int,
) -> float:
    """Seconds of one epoch of `count` images, validation included."""
    import torch

    from edgedistill.distill.facts import Images
    from edgedistill.distill.objectives import Distilled, Objective, Plain
    from edgedistill.distill.stage import new_student, schedule_of
    from edgedistill.distill.trainer import Trainer
    from edgedistill.teacher.course import Course

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (1, canvas, canvas, 3), dtype=np.uint8)
    labels = rng.integers(0, spec.classes, count)
    images = Images(
        np.broadcast_to(noise, (count, canvas, canvas, 3)), labels,
        _shown(noise, look, FEW), np.zeros(FEW, np.int64),
    )  # fmt: skip
    torch.manual_seed(0)
    model = new_student(spec)
    objective: Objective = Plain()
    if width is not None:
        features = int(getattr(model, "head_hidden_size", None) or model.num_features)  # type: ignore[arg-type]
        said = _Noise(width, spec.classes, int(section.batch_size))
        objective = Distilled(section, features, said, labels)
    plan = replace(schedule_of(section, 0), epochs=1, patience=None)
    trainer = Trainer("pace", model, objective, images, look, views, Course(1, 1), plan)
    with tempfile.TemporaryDirectory(prefix="edgedistill-pace-") as folder:
        return trainer.run(Work(Path(folder)), silent()).seconds


def _shown(noise: Pixels, look: Look, count: int) -> Pixels:
    """Images (V, S, S, 3) to validate with."""
    part = noise[:, : look.size, : look.size]
    return np.broadcast_to(part, (count, look.size, look.size, 3))


def _validating(spec: StudentSpec, look: Look) -> float:
    """Seconds of validating with one image, as after an epoch; the first look warms up and does not count."""
    from edgedistill.distill.stage import new_student
    from edgedistill.nets import outputs, pick_device

    device = pick_device()
    model = new_student(spec).to(device)
    noise = np.random.default_rng(0).integers(0, 256, (1, look.size, look.size, 3), dtype=np.uint8)
    spent = []
    for _ in range(3):
        began = time.perf_counter()
        outputs(model, _shown(noise, look, MANY), look, device, fast=True)
        spent.append(time.perf_counter() - began)
    return min(spent[1:]) / MANY
