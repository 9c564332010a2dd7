"""The beginning of the story: images, the plan, the teacher, and what it says of every view.

Each property of `Preparation` is a finished stage: it says what it depends on (its part of the recipe and the stages
before it), and the run folder decides whether it has to run. Nothing heavy is imported until a stage needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill import crew
from edgedistill.data.dataset import Dataset, printable
from edgedistill.data.sources import open_source
from edgedistill.derive import (
    known_student,
    limits_from,
    method_values,
    plan_key,
    resolve,
)
from edgedistill.distill.spec import StudentSpec
from edgedistill.logs import Logs
from edgedistill.planning import make_plan, require_parts, teacher_files
from edgedistill.progress import Face
from edgedistill.recipe import Recipe, Resolved, TeacherSection, hash_of
from edgedistill.result import Attempt, Plan
from edgedistill.rundir import Done, RunDir, Work, write_atomic
from edgedistill.stages import STAGES, Request, number, summary
from edgedistill.synthesis import Material
from edgedistill.synthstage import STAGE as SYNTH_STAGE
from edgedistill.synthstage import job_folder, make_synthetic, synth_key
from edgedistill.synthvalues import check_classes, synth_values
from edgedistill.target.device import device_to_dict, load_device
from edgedistill.teaching import VIEW_KEYS, behind, store_targets, targets_key, views_of

if TYPE_CHECKING:
    from edgedistill.data.stage import Arrays

MOST_NAMED = 100


class Preparation:
    """A run folder up to the stored targets. Each property is a finished stage; asking for it runs what is missing.

    `worked` names the stages that this process ran; the others were done before. `dataset` is that of the recipe, where
    it is open already.
    """

    def __init__(
        self,
        request: Request,
        run: RunDir,
        face: Face,
        tried: Sequence[Attempt] = (),
        dataset: Dataset | None = None,
    ) -> None:
        self.request, self.run, self.face, self.tried = request, run, face, tuple(tried)
        self.layered = request.layered
        self.worked: list[str] = []
        self.logs = Logs(run.path / "logs" if request.log != "none" and crew.leads() else None)
        self.device = load_device(self.layered.recipe.device)
        known_student(self.layered.recipe.student.model)
        self.dataset = dataset or open_source(
            self.layered.recipe.data,
            self.layered.recipe.seed,
            run.path / "cache" / "images.json",
            face.counter("images"),
            face.say,
        )

    def stage(
        self,
        name: str,
        version: int,
        key: Mapping[str, Any],
        inputs: list[Done],
        work: Callable[[Work], Mapping[str, Any]],
        *,
        variant: str = "",
        together: bool = False,
    ) -> Done:
        """Run a stage or find it done, and say so; the first that runs checks what a build needs.

        A stage of several arms or seeds has a `variant` for each but the first. `together`: all processes work at it.
        """
        place = self.place(name)
        base, name = name, f"{name}@{variant}" if variant else name

        def told(folder: Work) -> Mapping[str, Any]:
            if not self.worked:
                require_parts(self.layered.recipe.bench.provider)
            self.worked.append(name)
            if folder.lost is not None:
                self.face.warn(
                    f"{name}: {folder.lost} is no longer as it was written; the stage is done again"
                )
            if self.face.live:
                self.face.say(f"{place} ...")
            with self.face.following(self.logs.sink(name)):
                return work(folder)

        done = self.run.stage(name, version, key, inputs, told, together=together)
        if name in self.worked:
            what = f"{variant}: " if variant else ""
            words = f"{place} {done.seconds:6.1f} s  {what}{summary(base, done)}"
            self.face.say(words.rstrip())
        else:
            self.face.detail(f"{name}: done before")
        self.logs.fill(name, done.facts, told=name in self.worked)
        return done

    def place(self, name: str) -> str:
        """What a person sees in front of a stage's words."""
        return f"[{self.stages.index(name) + 1:2}/{len(self.stages)}] {name.partition('-')[2]:<10}"

    @property
    def stages(self) -> list[str]:
        """The stages of this build, in order: that of synthetic images only where they are asked for."""
        return [s for s in STAGES if s != SYNTH_STAGE or self.layered.recipe.synth.images]

    @property
    def recipe_file(self) -> Path:
        """Where the resolved recipe is written."""
        return self.run.path / "recipe.yaml"

    @cached_property
    def data(self) -> Done:
        """01: what is read, how it is split, and what was left out, each file named."""

        def work(folder: Work) -> dict[str, Any]:
            lines = [f"{s.path}\t{s.reason}" for s in self.dataset.skipped]
            folder.write("skipped.tsv", "".join(line + "\n" for line in lines))
            rows = [
                f"{split}\t{item.label}\t{item.sha256}\t{printable(item.key)}\n"
                for split, items in self.dataset.parts()
                for item in items
            ]
            folder.write("split.tsv", "".join(rows))
            document = self.dataset.document(MOST_NAMED).model_dump(mode="json")
            return {**document, "image_side": self.dataset.image_side}

        recipe = self.layered.recipe
        key = {
            "data": recipe.data.model_dump(exclude=VIEW_KEYS),
            "seed": recipe.seed,
            "sha256": self.dataset.sha256,
            "skipped": hash_of([[s.path, s.reason] for s in self.dataset.skipped]),
        }
        return self.stage("01-data", 1, key, [], work)

    @cached_property
    def planned(self) -> Done:
        """02: the student, and every value that was `auto`."""

        def work(folder: Work) -> dict[str, Any]:
            plan, values = make_plan(self.layered, self.device, self.dataset, self.tried)
            return {
                "plan": plan.model_dump(mode="json"),
                "values": {path: list(pair) for path, pair in values.items()},
            }

        tried = hash_of([attempt.model_dump(mode="json") for attempt in self.tried])
        return self.stage("02-plan", 3, {**self.plan_key, "tried": tried}, [], work)

    @property
    def plan_key(self) -> dict[str, Any]:
        """What planning depends on, whatever was tried before."""
        limited = resolve(self.layered, limits_from(self.layered, self.device)).recipe
        key = plan_key(limited, device_to_dict(self.device), dict(self.data.facts))
        return {**key, **teacher_files(self.layered.recipe.teacher)}

    @cached_property
    def resolved(self) -> Resolved:
        """The recipe without `auto`; written to `recipe.yaml`."""
        derived = {path: (v[0], v[1]) for path, v in self.planned.facts["values"].items()}
        images = len(self.dataset.train)
        values = {
            **limits_from(self.layered, self.device),
            **derived,
            **method_values(self.layered.recipe, images + len(self.dataset.unlabelled)),
            **synth_values(self.layered.recipe, images, len(self.dataset.classes)),
            "name": (self.layered.recipe.name or self.run.path.name, "name of the run"),
        }
        resolved = resolve(self.layered, values)
        check_classes(resolved.recipe, self.dataset.classes)
        if crew.leads():
            write_atomic(self.recipe_file, resolved.dump())
        return resolved

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe's values."""
        return self.resolved.recipe

    @cached_property
    def plan(self) -> Plan:
        """The plan of stage 02."""
        return Plan.model_validate(self.planned.facts["plan"])

    @cached_property
    def pixels(self) -> Done:
        """03: every split as arrays of pixels.

        Pixels depend on the images that are used and their split alone: a file more that is left out changes no weight.
        """
        from edgedistill.data.stage import Sizes, canvas_side, prepare

        student, teacher = (
            number(self.recipe.student.input_size),
            number(self.recipe.teacher.input_size),
        )
        side = canvas_side(student, teacher, self.dataset.image_side)
        sizes = Sizes(side, student, teacher)
        key = {"sizes": [side, student, teacher], "images": self.dataset.sha256}
        return self.stage(
            "03-pixels", 2, key, [],
            lambda work: prepare(work, self.dataset, sizes, self.face.counter("pixels")),
        )  # fmt: skip

    @cached_property
    def arrays(self) -> Arrays:
        """The arrays of stage 03."""
        from edgedistill.data.stage import open_arrays

        return open_arrays(self.pixels.folder)

    @cached_property
    def teacher(self) -> Done:
        """04: the teacher, adapted to the task."""
        return self.teacher_of(self.recipe.teacher)

    def teacher_of(self, section: TeacherSection, variant: str = "") -> Done:
        """04: the teacher that `section` names, adapted to the task."""

        precision = self.recipe.distill.precision
        assert precision != "auto"

        def work(folder: Work) -> dict[str, Any]:
            from edgedistill.distill.finetune import finetuner
            from edgedistill.teacher.stage import teach

            views = views_of(self.recipe, max(1, number(section.epochs)))
            tune = finetuner(
                folder, section, self.arrays, views, self.recipe.seed, self.face, precision
            )
            size = number(section.input_size)
            return teach(
                folder, section, self.arrays, self.dataset.classes, size, self.recipe.seed, tune,
                self.face,
            )  # fmt: skip

        key = {**self.look_key("teacher"), **teacher_files(section)}
        key |= {"teacher": section.model_dump(), "precision": precision}
        return self.stage("04-teacher", 5, key, [self.pixels], work, variant=variant, together=True)

    def look_key(self, section: str) -> dict[str, Any]:
        """A recipe section with the seed and the rule of views."""
        data = self.recipe.data
        return {
            section: getattr(self.recipe, section).model_dump(),
            "seed": self.recipe.seed,
            "views": data.model_dump(include=VIEW_KEYS),
        }

    @cached_property
    def synthetic(self) -> Done | None:
        """05: synthetic images behind the real ones; `None` where none are asked for."""
        recipe = self.recipe
        if not recipe.synth.images:
            return None
        material, key = Material(self.data, self.pixels, self.teacher), synth_key(recipe)
        job = job_folder(self.run.path, key, material)

        def work(folder: Work) -> Mapping[str, Any]:
            with self.run.holding(f"jobs/{job.name}"):
                return make_synthetic(folder, recipe, material, job, self.face)

        return self.stage(SYNTH_STAGE, 1, key, [self.data, self.pixels, self.teacher], work)

    @cached_property
    def targets(self) -> Done:
        """06: what the teacher says of every view; nothing where it is asked at each step."""
        return self._targets_of(self.pixels, "")

    @cached_property
    def synthetic_targets(self) -> Done | None:
        """06: the same for synthetic images; `None` where there are none."""
        return None if self.synthetic is None else self._targets_of(self.synthetic, "synthetic")

    def _targets_of(self, pixels: Done, variant: str) -> Done:
        recipe, teacher = self.recipe, self.teacher
        return self.stage(
            "06-targets", 6, targets_key(recipe, teacher, behind(recipe, pixels)), [pixels, teacher],
            lambda work: store_targets(work, recipe, pixels, teacher, self.face), variant=variant,
        )  # fmt: skip

    @cached_property
    def spec(self) -> StudentSpec:
        """The student to train."""
        student = self.recipe.student
        classes = len(self.dataset.classes)
        return StudentSpec(
            student.model, number(student.input_size), classes, student.weights == "pretrained",
            student.prune_from, student.prune_weights,
        )  # fmt: skip
