"""What is exported: the student that a run trained, read from its finished stages, or a checkpoint of one's own.

Nothing is trained or written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.arms import SHIPS, SYNTH, arms_of, best_arm
from edgedistill.distill.spec import StudentSpec
from edgedistill.errors import UsageError
from edgedistill.options import layered_from
from edgedistill.recipe import Layered, Recipe, autos
from edgedistill.rundir import Done, RunDir
from edgedistill.stages import number
from edgedistill.synthesis import material_of
from edgedistill.synthstage import STAGE as SYNTH_STAGE

if TYPE_CHECKING:
    from edgedistill.deploy.classifier import Classifier, Sight


def licences_of(
    teacher: Done, start: Done, data: str | None, made: Done | None
) -> dict[str, str | None]:
    """Licences of teacher, student, data, and of what made the images it learned from; `None` is unknown."""
    return {
        **({"generator": made.facts["maker"]["licence"]} if made is not None else {}),
        "teacher": teacher.facts["licence"],
        "student": start.facts["licence"],
        "data": data,
    }


def is_run(folder: Path) -> bool:
    """Whether a folder is one that `edgedistill build` wrote."""
    return (folder / "recipe.yaml").is_file() and (folder / "stages").is_dir()


def recipe_for(model: str, options: Mapping[str, Any], settings: Sequence[str]) -> Layered:
    """The recipe that a model is exported by: that of its run, or the defaults, under the `options` and `--set`.

    For another device than the run's, what the graph takes is asked of that device. Raises `UsageError`, `RecipeError`.
    """
    folder = Path(model).expanduser()
    given = {path: value for path, value in options.items() if value is not None}
    if not is_run(folder):
        return layered_from(None, given, {}, settings, quick=False)
    if "seed" in given:
        raise UsageError(
            f"{folder} is a run, and its seed decides which images it was trained on: leave --seed out"
        )
    if "device" in given:
        given = {"export.input": "auto", "export.opset": "auto", **given}
    return layered_from(folder / "recipe.yaml", given, {}, settings, quick=False)


def classifier_of(
    model: str, recipe: Recipe, sight: Sight, architecture: str | None, licence: str | None
) -> Classifier:
    """The classifier of a run folder, of a name, or of a checkpoint file with its `architecture`.

    Raises `UsageError` and `TeacherError`.
    """
    folder = Path(model).expanduser()
    if not is_run(folder):
        from edgedistill.deploy.classifier import load_classifier, section_of

        return load_classifier(section_of(model, architecture, licence), sight)
    if architecture is not None or licence is not None:
        raise UsageError(
            f"{folder} is a run, which knows its network and its licences: leave --model and --licence out"
        )
    return student_of(folder, recipe, sight)


def student_of(folder: Path, recipe: Recipe, sight: Sight) -> Classifier:
    """The student of a run that ships, the best on validation. Raises `UsageError` for a run that is not so far."""
    from edgedistill.deploy.classifier import seen_as
    from edgedistill.distill.stage import restore
    from edgedistill.teacher.stage import look_of

    open_ = autos(recipe)
    if open_:
        raise UsageError(
            f"{folder / 'recipe.yaml'} is not that of a run: {', '.join(open_[:3])} say auto. Give the folder that "
            "edgedistill build wrote (--out)."
        )
    material, run = material_of(folder), RunDir(folder)
    start = _done(run, "07-start")
    student, classes = recipe.student, tuple(material.data.facts["classes"])
    pretrained = student.weights == "pretrained"
    spec = StudentSpec(student.model, number(student.input_size), len(classes), pretrained)
    arms = {
        arm.name: _done(run, arm.place)
        for arm in arms_of(recipe, pretrained)
        if arm.first and arm.name in SHIPS
    }
    chosen = best_arm({name: done.facts["val_top1"] for name, done in arms.items()})
    made = _done(run, SYNTH_STAGE) if chosen == SYNTH else None
    data = recipe.data.licence or material.data.facts["licence"]
    look = look_of(start.facts)
    return seen_as(
        restore(arms[chosen], chosen, spec), student.model, look, 1.0, sight,
        labels=classes, licences=licences_of(material.teacher, start, data, made),
        title=recipe.name or folder.name,
    )  # fmt: skip


def _done(run: RunDir, name: str) -> Done:
    found = run.done(name)
    if found is None:
        raise UsageError(
            f"{run.path} has no finished stage {name}, or its files are damaged. Exporting trains nothing: "
            f"finish the run with  edgedistill build {run.path / 'recipe.yaml'} --out {run.path}"
        )
    return found
