"""From a resolved recipe to what the teacher says: views, course, the stored outputs, and who asks for them.

Stages are arguments, so that a finished run can be looked at without building anything. Nothing heavy is imported
until it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedistill.progress import Face
from edgedistill.recipe import Recipe
from edgedistill.rundir import Done, Work
from edgedistill.stages import number
from edgedistill.teacher.course import Course, about_views

if TYPE_CHECKING:
    from edgedistill.data.views import Views
    from edgedistill.teacher.cache import StoredTargets, Targets
    from edgedistill.teacher.lecturer import Lecturer

VIEW_KEYS = {"flip", "min_crop", "randaugment", "erasing", "mix", "mix_alpha"}
"""What a recipe says of views: data that stage 01 does not depend on."""


def views_of(recipe: Recipe, count: int, own: int = 0) -> Views:
    """How training views are made, `count` of each image; the first `own` are not mixed with the rest."""
    from edgedistill.data.views import Views

    data = recipe.data
    return Views(
        recipe.seed, data.min_crop, data.flip, count, data.randaugment, data.erasing, data.mix,
        data.mix_alpha, own,
    )  # fmt: skip


def is_live(recipe: Recipe) -> bool:
    """Whether the teacher is asked at each step, and nothing is stored."""
    return recipe.distill.targets == "live"


def view_count(recipe: Recipe) -> int:
    """Different views of each image; with a live teacher every epoch has its own."""
    return number(recipe.distill.epochs if is_live(recipe) else recipe.distill.views)


def course_of(recipe: Recipe, teacher: Done) -> Course:
    """Which teacher speaks in which epoch, of which view."""
    return Course(number(recipe.distill.epochs), view_count(recipe), _teachers(recipe, teacher))


def _teachers(recipe: Recipe, teacher: Done) -> int:
    """How many teachers speak one after the other: those of a ladder, or early states and the last one."""
    combine, early = teacher.facts["combine"], recipe.distill.curriculum == "teacher_checkpoints"
    several = combine == "ladder" or (combine == "checkpoints" and early)
    return len(teacher.facts["members"]) if several else 1


def targets_key(recipe: Recipe, teacher: Done) -> dict[str, Any]:
    """What stored outputs depend on, beside pixels and teacher. No torch: a stage that is done is found at once."""
    if is_live(recipe):
        return {"live": True}
    return {
        "lessons": [vars(lesson) for lesson in course_of(recipe, teacher).lessons()],
        "seed": recipe.seed,
        "views": recipe.data.model_dump(include=VIEW_KEYS),
        "top_k": recipe.distill.top_k,
    }


def about_of(recipe: Recipe, pixels: Done, teacher: Done) -> dict[str, str]:
    """What the stored outputs are of."""
    views = views_of(recipe, 0, mixed_apart(pixels))
    return about_views(teacher, pixels, views.about(), _top_k(recipe))


def mixed_apart(pixels: Done) -> int:
    """How many images are not mixed with the synthetic ones behind them; 0 where there are none."""
    from edgedistill.data.stage import open_arrays

    arrays = open_arrays(pixels.folder)
    return arrays.own if len(arrays.asked) else 0


def _top_k(recipe: Recipe) -> int | None:
    top_k = recipe.distill.top_k
    assert top_k != "auto", "distill.top_k is not resolved"
    return top_k


def lecturers_of(recipe: Recipe, pixels: Done, teacher: Done) -> list[Lecturer]:
    """The teachers of a finished stage, each ready to speak of the training images."""
    from edgedistill.data.stage import open_arrays
    from edgedistill.nets import pick_device
    from edgedistill.teacher.lecturer import lecturers

    views = views_of(recipe, view_count(recipe), mixed_apart(pixels))
    found = lecturers(teacher, open_arrays(pixels.folder).train, views, pick_device())
    return found[-_teachers(recipe, teacher) :]  # without a curriculum, the last state alone


def store_targets(
    work: Work, recipe: Recipe, pixels: Done, teacher: Done, face: Face
) -> dict[str, Any]:
    """The work of stage 06. A live teacher leaves nothing on disk."""
    from edgedistill.teacher.records import Content
    from edgedistill.teacher.storing import store

    course, images = course_of(recipe, teacher), _images(pixels)
    if is_live(recipe):
        return {"views": course.views, "images": images, "passes": 0, "bytes": 0}
    found = lecturers_of(recipe, pixels, teacher)
    widths = tuple(lecturer.features for lecturer in found)
    content = Content(
        tuple(course.lessons()), images, widths, int(teacher.facts["classes"]), _top_k(recipe),
        about_of(recipe, pixels, teacher),
    )  # fmt: skip
    return store(work, content, found, face)


def stored_targets(recipe: Recipe, pixels: Done, teacher: Done, stored: Done) -> StoredTargets:
    """The outputs that stage 06 stored. Raises `DocumentError` when they are of something else."""
    from edgedistill.teacher.cache import StoredTargets

    return StoredTargets(
        stored.folder, about_of(recipe, pixels, teacher), course_of(recipe, teacher).lessons(),
        _images(pixels), int(teacher.facts["classes"]),
    )  # fmt: skip


def targets_of(recipe: Recipe, pixels: Done, teacher: Done, stored: Done) -> Targets:
    """What the distilled arm asks for the teacher's outputs: the stored ones, or the teacher itself."""
    if is_live(recipe):
        return live_targets(recipe, pixels, teacher)
    return stored_targets(recipe, pixels, teacher, stored)


def live_targets(recipe: Recipe, pixels: Done, teacher: Done) -> Targets:
    """The teacher itself, asked at each step."""
    from edgedistill.teacher.cache import LiveTargets

    classes = int(teacher.facts["classes"])
    return LiveTargets(lecturers_of(recipe, pixels, teacher), classes)


def _images(pixels: Done) -> int:
    from edgedistill.data.stage import open_arrays

    return len(open_arrays(pixels.folder).train_labels)
