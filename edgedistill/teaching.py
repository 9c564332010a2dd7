"""From a resolved recipe to what the teacher says: views, course, the stored outputs, and who asks for them.

Stages are arguments, so that a finished run can be looked at without building anything. Nothing heavy is imported
until it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from edgedistill.progress import Face
from edgedistill.recipe import Recipe
from edgedistill.rundir import Done, Work
from edgedistill.stages import number
from edgedistill.teacher.course import Course, Lesson, about_views

if TYPE_CHECKING:
    from edgedistill.data.views import Views
    from edgedistill.teacher.cache import StoredTargets, Targets
    from edgedistill.teacher.lecturer import Lecturer

VIEW_KEYS = {"flip", "min_crop", "randaugment", "erasing", "mix", "mix_alpha"}
"""What a recipe says of views: data that stage 01 does not depend on."""


class Behind(NamedTuple):
    """Synthetic images behind `own` others; `few` views are stored of each of the `images`."""

    own: int
    images: int
    few: int

    def lessons(self, course: Iterable[Lesson]) -> list[Lesson]:
        """The lessons of theirs that a course comes to; their views come round sooner."""
        found = {Lesson(lesson.teacher, lesson.view % self.few) for lesson in course}
        return sorted(found, key=lambda lesson: (lesson.teacher, lesson.view))


def views_of(recipe: Recipe, count: int, made: Behind | None = None) -> Views:
    """How training views are made, `count` of each image but for those that were `made`."""
    from edgedistill.data.views import Views

    data, (own, few) = recipe.data, (made.own, made.few) if made else (0, 0)
    return Views(
        recipe.seed, data.min_crop, data.flip, count, data.randaugment, data.erasing, data.mix,
        data.mix_alpha, own, few,
    )  # fmt: skip


def behind(recipe: Recipe, pixels: Done) -> Behind | None:
    """The synthetic images of a stage of pixels; `None` where it has none.

    In the steps of an arm without them, each is seen `share * own / images` times as often as an image there, and has
    so many times its views.
    """
    from edgedistill.data.stage import open_arrays

    arrays, views = open_arrays(pixels.folder), view_count(recipe)
    if not len(arrays.asked):
        return None
    seen = float(recipe.synth.share) * arrays.own / len(arrays.asked)
    few = views if is_live(recipe) else min(views, math.ceil(seen * views))
    return Behind(arrays.own, len(arrays.asked), few)


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


def lessons_of(recipe: Recipe, teacher: Done, made: Behind | None = None) -> list[Lesson]:
    """What is stored: each lesson of the course, or those of the few views of images that were `made`."""
    found = course_of(recipe, teacher).lessons()
    return found if made is None else made.lessons(found)


def targets_key(recipe: Recipe, teacher: Done, made: Behind | None = None) -> dict[str, Any]:
    """What stored outputs depend on, beside pixels and teacher. No torch: a stage that is done is found at once."""
    if is_live(recipe):
        return {"live": True}
    return {
        "lessons": [vars(lesson) for lesson in lessons_of(recipe, teacher, made)],
        "seed": recipe.seed,
        "views": recipe.data.model_dump(include=VIEW_KEYS),
        "top_k": recipe.distill.top_k,
    }


def about_of(recipe: Recipe, pixels: Done, teacher: Done) -> dict[str, str]:
    """What the stored outputs are of."""
    views = views_of(recipe, 0, behind(recipe, pixels))
    return about_views(teacher, pixels, views.about(), _top_k(recipe))


def _top_k(recipe: Recipe) -> int | None:
    top_k = recipe.distill.top_k
    assert top_k != "auto", "distill.top_k is not resolved"
    return top_k


def lecturers_of(
    recipe: Recipe, pixels: Done, teacher: Done, *, whole: bool = False
) -> list[Lecturer]:
    """The teachers of a finished stage, each ready to speak of the images whose outputs are stored, or of the `whole`.

    Where there are synthetic images, those are the images that are stored apart, and image 0 is the first of them.
    """
    from edgedistill.data.stage import open_arrays
    from edgedistill.nets import pick_device
    from edgedistill.teacher.lecturer import lecturers

    made = behind(recipe, pixels)
    views, first = views_of(recipe, view_count(recipe), made), made.own if made and not whole else 0
    found = lecturers(teacher, open_arrays(pixels.folder).train, views, pick_device(), first)
    return found[-_teachers(recipe, teacher) :]  # without a curriculum, the last state alone


def store_targets(
    work: Work, recipe: Recipe, pixels: Done, teacher: Done, face: Face
) -> dict[str, Any]:
    """The work of stage 06: of `pixels`, or of the synthetic images among them alone. A live teacher leaves nothing."""
    from edgedistill.teacher.records import Content
    from edgedistill.teacher.storing import store

    made = behind(recipe, pixels)
    images, lessons = _stored(pixels, made), lessons_of(recipe, teacher, made)
    if is_live(recipe):
        return {"views": len(lessons), "images": images, "passes": 0, "bytes": 0}
    found = lecturers_of(recipe, pixels, teacher)
    widths = tuple(lecturer.features for lecturer in found)
    content = Content(
        tuple(lessons), images, widths, int(teacher.facts["classes"]), _top_k(recipe),
        about_of(recipe, pixels, teacher),
    )  # fmt: skip
    return store(work, content, found, face)


def stored_targets(recipe: Recipe, pixels: Done, teacher: Done, stored: Done) -> StoredTargets:
    """The outputs that stage 06 stored. Raises `DocumentError` when they are of something else."""
    from edgedistill.teacher.cache import StoredTargets

    made = behind(recipe, pixels)
    return StoredTargets(
        stored.folder, about_of(recipe, pixels, teacher), lessons_of(recipe, teacher, made),
        _stored(pixels, made), int(teacher.facts["classes"]),
    )  # fmt: skip


def targets_of(recipe: Recipe, teacher: Done, sources: Sequence[tuple[Done, Done]]) -> Targets:
    """What a taught arm asks for the teacher's outputs: the stored ones, or the teacher itself.

    `sources` are pixels and what was stored of them, first the training images, then with synthetic ones behind them.
    """
    from edgedistill.teacher.cache import JoinedTargets

    pixels = sources[-1][0]
    if is_live(recipe):
        return live_targets(recipe, pixels, teacher)
    real, *more = (stored_targets(recipe, images, teacher, stored) for images, stored in sources)
    made = behind(recipe, pixels)
    return real if made is None else JoinedTargets(real, more[0], made.own, made.few)


def live_targets(recipe: Recipe, pixels: Done, teacher: Done) -> Targets:
    """The teacher itself, asked at each step."""
    from edgedistill.teacher.cache import LiveTargets

    classes = int(teacher.facts["classes"])
    return LiveTargets(lecturers_of(recipe, pixels, teacher, whole=True), classes)


def _stored(pixels: Done, made: Behind | None) -> int:
    """How many images the outputs are stored of."""
    from edgedistill.data.stage import open_arrays

    return made.images if made else len(open_arrays(pixels.folder).train_labels)
