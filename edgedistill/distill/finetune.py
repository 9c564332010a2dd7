"""Fine-tuning a teacher: the same engine as the student's, labels only."""

from __future__ import annotations

from torch import nn

from edgedistill.data.stage import Arrays
from edgedistill.data.views import Views
from edgedistill.distill.facts import Images, Schedule
from edgedistill.distill.objectives import Plain
from edgedistill.distill.stage import run
from edgedistill.distill.trainer import Trainer
from edgedistill.nets import Look
from edgedistill.progress import Face
from edgedistill.recipe import TeacherSection
from edgedistill.rundir import Work
from edgedistill.teacher.course import Course
from edgedistill.teacher.pupil import FineTune, FineTuned

WEIGHT_DECAY = 0.01
WARMUP = 0.15


def finetuner(
    work: Work,
    section: TeacherSection,
    arrays: Arrays,
    views: Views,
    seed: int,
    face: Face,
    precision: str = "float32",
) -> FineTune:
    """A function that trains a network in place with the teacher's settings, resumable in `work`.

    It leaves `teacher.epoch<n>.safetensors` for each epoch that it is told to keep.
    """

    def tune(model: nn.Module, look: Look, keep: tuple[int, ...] = ()) -> FineTuned:
        assert isinstance(section.epochs, int)
        schedule = Schedule(
            section.epochs,
            section.batch_size,
            section.lr,
            WEIGHT_DECAY,
            WARMUP,
            seed,
            section.frozen_norm,
            float(section.frozen_share),
            body_lr_ratio=section.body_lr_ratio,
            precision=precision,
            keep=keep,
        )
        images = Images(*arrays.labelled_train, arrays.teacher_val, arrays.val_labels)
        trainer = Trainer(
            "teacher", model, Plain(section.label_smoothing), images, look, views,
            Course(section.epochs, section.epochs), schedule,
        )  # fmt: skip
        fitted = run(trainer, work, face)
        return FineTuned(fitted.val_top1, fitted.curve, fitted.seconds, fitted.passes, fitted.notes)

    return tune
