"""Which teacher speaks in which epoch, and of which view: what has to be stored, and what a step asks for. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgedistill.rundir import Done


def about_views(
    teacher: Done, pixels: Done, views: Mapping[str, str], top_k: int | None
) -> dict[str, str]:
    """What stored outputs are of; reading checks every word of it. `views` are the facts of `Views.about`.

    The fingerprint of `pixels` holds the hash of the training images and the size of their canvas.
    """
    return {
        "teacher": teacher.fingerprint,
        "pixels": pixels.fingerprint,
        "top_k": str(top_k),
        **{f"views.{key}": value for key, value in views.items()},
    }


@dataclass(frozen=True)
class Lesson:
    """What an epoch is about: the teacher (0 is the first of a ladder) and the view of each image."""

    teacher: int
    view: int


@dataclass(frozen=True)
class Course:
    """Epochs over `views` different views of each image, and `teachers` that teach one after the other.

    Each teacher has an equal share of the epochs, in order; with fewer epochs than teachers the last ones speak. Views
    come round again.
    """

    epochs: int
    views: int
    teachers: int = 1

    def lesson(self, epoch: int) -> Lesson:
        """What `epoch` (from 0) shows."""
        if self.epochs < self.teachers:
            return Lesson(self.teachers - self.epochs + epoch, epoch % self.views)
        return Lesson(epoch * self.teachers // self.epochs, epoch % self.views)

    def lessons(self) -> list[Lesson]:
        """Every different lesson of the course, by teacher and view."""
        found = {self.lesson(epoch) for epoch in range(self.epochs)}
        return sorted(found, key=lambda lesson: (lesson.teacher, lesson.view))
