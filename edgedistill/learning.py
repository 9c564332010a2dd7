"""The first half of the story: a student trained in several arms from the same start.

Each arm is a finished stage. Which one ships is decided on validation; what the others are for is the proof.
"""

from __future__ import annotations

import json
import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill import crew
from edgedistill.arms import (
    DISTILLED,
    FINETUNE,
    LONGER,
    PLAIN,
    PROBE,
    SYNTH,
    TAUGHT,
    TAUGHT_ONLY,
    Arm,
    arms_of,
    best_arm,
)
from edgedistill.derive import fine_tuning
from edgedistill.distill.spec import StudentSpec
from edgedistill.preparing import Preparation
from edgedistill.recipe import DistillSection
from edgedistill.rundir import Done, Work, sha256_file
from edgedistill.stages import number
from edgedistill.synthstage import LEARNING_KEYS
from edgedistill.teaching import (
    behind,
    course_of,
    live_targets,
    targets_of,
    view_count,
    views_of,
)
from edgedistill.trained import licences_of

if TYPE_CHECKING:
    from edgedistill.deploy.stage import Shape

HARD_STAGE = 2
"""Code version of the last stage of hard images, for the arms that have it."""
PROXY_SHARE = 0.2
"""A student that tells which teacher is best trains for this share of the epochs."""
MOST_LONGER = 50
"""The arm of equal seconds trains at most this many times the epochs of the others."""


class Build(Preparation):
    """One build in a run folder: the student's start and its arms."""

    @cached_property
    def arms(self) -> list[Arm]:
        """Every arm of this build, in the order of training."""
        return arms_of(self.recipe, self.spec.pretrained)

    @cached_property
    def teacher(self) -> Done:
        """04: the teacher; of several to select from, the one whose students a short training says are best."""
        if self.selection is None:
            return self.teacher_of(self.recipe.teacher)
        return self.candidates[int(self.selection.facts["chosen"])]

    @cached_property
    def candidates(self) -> list[Done]:
        """04: the teachers to select from, each adapted to the task; empty where there is nothing to select."""
        section = self.recipe.teacher
        if section.combine != "select" or not section.others:
            return []
        return [self.teacher_of(s, f"candidate{k + 1}") for k, s in enumerate(section.each())]

    @cached_property
    def selection(self) -> Done | None:
        """04: what short trainings say of the teachers to select from (`teacher.combine: select`)."""
        if not self.candidates:
            return None
        key = {**self.look_key("distill"), "seed": self.recipe.seed, "share": PROXY_SHARE}
        inputs = [self.pixels, self.start, *self.candidates]
        return self.stage(
            "04-teacher", 1, key, inputs, self._select, variant="select", together=True
        )

    @property
    def teacher_stages(self) -> list[Done]:
        """04: all that the teacher took: itself, or every candidate and what was said of them."""
        return [self.teacher] if self.selection is None else [*self.candidates, self.selection]

    @property
    def teacher_seconds(self) -> float:
        """Seconds until the teacher was there; a selected one took every candidate and the short trainings too."""
        return sum(done.seconds for done in self.teacher_stages)

    def _select(self, folder: Work) -> dict[str, Any]:
        from edgedistill.distill.stage import train_arm
        from edgedistill.teacher.course import Course
        from edgedistill.teacher.stage import look_of

        epochs = max(1, round(PROXY_SHARE * number(self.recipe.distill.epochs)))
        section = self.recipe.distill.model_copy(update={"epochs": epochs})
        recipe = self.recipe.model_copy(
            update={"distill": self.recipe.distill.model_copy(update={"curriculum": "none"})}
        )
        course, views = Course(epochs, epochs), views_of(self.recipe, epochs)
        found = []
        for k, candidate in enumerate(self.candidates):
            facts = train_arm(
                f"proxy{k + 1}", folder, self.start, self.spec, look_of(self.start.facts),
                self.arrays, views, course, section, self.recipe.seed, self.face,
                live_targets(recipe, self.pixels, candidate),
            )  # fmt: skip
            found.append(
                {
                    "model": candidate.facts["model"],
                    "student_val_top1": facts["val_top1"],
                    "passes": facts["passes"],
                }
            )
        scores = [one["student_val_top1"] for one in found]
        chosen = scores.index(max(scores))
        words = ", ".join(f"{one['model']} {one['student_val_top1']:.3f}" for one in found)
        return {
            "adaptation": f"{found[chosen]['model']} is taken",
            "val_top1": self.candidates[chosen].facts["val_top1"],
            "chosen": chosen,
            "candidates": found,
            "words": f"of {len(found)} teachers, by the validation top-1 of students after "
            f"{epochs} epoch{'' if epochs == 1 else 's'}: {words}",
        }

    @cached_property
    def start(self) -> Done:
        """07: the weights that both arms start from."""
        return self.start_of(Arm(PLAIN, self.recipe.seed))

    @cached_property
    def plain(self) -> Done:
        """08: the arm that sees labels only."""
        return self.arm(Arm(PLAIN, self.recipe.seed))

    @cached_property
    def distilled(self) -> Done:
        """09: the arm that sees labels and the teacher."""
        return self.arm(Arm(DISTILLED, self.recipe.seed))

    @cached_property
    def trained(self) -> dict[Arm, Done]:
        """08 and 09: every arm."""
        return {arm: self.arm(arm) for arm in self.arms}

    @cached_property
    def _found(self) -> dict[object, Done]:
        """Arms and starts that are there already."""
        return {}

    def spec_of(self, arm: Arm) -> StudentSpec:
        """The student that an arm trains."""
        spec = self.spec
        own = arm.name in (PROBE, FINETUNE)
        return StudentSpec(spec.model, spec.size, spec.classes, True) if own else spec

    def start_of(self, arm: Arm) -> Done:
        """07: the weights that the arms of one seed start from; those that need pretrained ones have their own."""
        spec = self.spec_of(arm)
        own = arm.name in (PROBE, FINETUNE)
        probed = own or self.recipe.distill.frozen_norm is True
        whole = arm.name == PROBE
        parts = (["pretrained"] if own else []) + (["whole"] if whole else [])
        variant = "-".join(parts + ([] if arm.first else [f"seed{arm.seed}"]))

        def work(folder: Work) -> dict[str, Any]:
            from edgedistill.distill.stage import make_start

            return make_start(folder, spec, self.arrays, probed, arm.seed, self.face, whole)

        if variant not in self._found:
            key = {"student": vars(spec), "probed": "whole" if whole else probed, "seed": arm.seed}
            if spec.prune_weights and Path(spec.prune_weights).is_file():
                key["weights_sha256"] = sha256_file(Path(spec.prune_weights))
            inputs = [self.pixels] if probed else []
            self._found[variant] = self.stage("07-start", 4, key, inputs, work, variant=variant)
        return self._found[variant]

    def arm(self, arm: Arm) -> Done:
        """A finished arm; the ones that it is compared with are trained first."""
        if arm not in self._found:
            self._found[arm] = self._train(arm)
        return self._found[arm]

    def _train(self, arm: Arm) -> Done:
        key = {**self.look_key("distill"), "seed": arm.seed, "arm": arm.name}
        key["distill"] = {**self.section_of(arm).model_dump(), "views": view_count(self.recipe)}
        inputs = [self.pixels_of(arm), self.start_of(arm)]
        if arm.name == SYNTH:
            key["synth"] = self.recipe.synth.model_dump(include=LEARNING_KEYS)
        if arm.name in TAUGHT:
            inputs += self.stored_of(arm)
            if self.recipe.distill.hard_samples:
                key["hard_stage"] = HARD_STAGE
            if self.recipe.distill.targets == "live":
                inputs.append(self.teacher)
        else:
            key["distill"] = {k: v for k, v in key["distill"].items() if k not in TAUGHT_ONLY}
        if arm.name == LONGER:
            inputs += [self.arm(Arm(name, arm.seed, arm.first)) for name in (PLAIN, DISTILLED)]
            inputs += [*self.teacher_stages, self.targets]
        return self.stage(
            arm.stage, 2, key, inputs, lambda work: self._work(arm, work),
            variant=arm.variant, together=arm.name != PROBE,
        )  # fmt: skip

    def _work(self, arm: Arm, folder: Work) -> dict[str, Any]:
        from edgedistill.data.stage import open_arrays
        from edgedistill.distill import stage as students
        from edgedistill.teacher.course import Course
        from edgedistill.teacher.stage import look_of

        recipe, start, spec = self.recipe, self.start_of(arm), self.spec_of(arm)
        look = look_of(start.facts)
        if arm.name == PROBE:
            return students.probed_arm(arm.name, folder, start, spec, look, self.arrays)
        section = self.section_of(arm)
        course = Course(number(section.epochs), view_count(recipe))
        targets = None
        if arm.name in TAUGHT:
            course = course_of(recipe, self.teacher)
            targets = targets_of(recipe, self.teacher, self.sources_of(arm))
        if arm.name == LONGER:
            epochs = self._longer(arm, folder)
            section = section.model_copy(update={"epochs": epochs})
            course = Course(epochs, epochs)
        arrays = open_arrays(self.pixels_of(arm).folder)
        views = views_of(recipe, course.views, behind(recipe, self.pixels_of(arm)))
        return students.train_arm(
            arm.name, folder, start, spec, look, arrays, views, course, section, arm.seed,
            self.face, targets, recipe.synth if arm.name == SYNTH else None,
        )  # fmt: skip

    def pixels_of(self, arm: Arm) -> Done:
        """03 or 05: the images that an arm learns from."""
        found = self.synthetic if arm.name == SYNTH else self.pixels
        assert found is not None, "an arm of synthetic images has some"
        return found

    def sources_of(self, arm: Arm) -> list[tuple[Done, Done]]:
        """Pixels and 06, what the teacher says of them: of the training images, and of synthetic ones behind them."""
        found = [(self.pixels, self.targets)]
        if arm.name == SYNTH:
            assert self.synthetic_targets is not None, (
                "an arm of synthetic images has their targets"
            )
            found.append((self.pixels_of(arm), self.synthetic_targets))
        return found

    def stored_of(self, arm: Arm) -> list[Done]:
        """06: what the teacher says of all images of an arm."""
        return [stored for _, stored in self.sources_of(arm)]

    def section_of(self, arm: Arm) -> DistillSection:
        """How an arm is trained. Fine-tuning a pretrained student beside one from random weights has a rate of its
        own, and leaves alone what the teacher's fine-tuning does.
        """
        section = self.recipe.distill
        if arm.name != FINETUNE:
            return section
        share = float(self.recipe.teacher.frozen_share)
        return section.model_copy(update=fine_tuning(number(section.batch_size), share))

    def _longer(self, arm: Arm, folder: Work) -> int:
        """Epochs that plain training does in the seconds that distillation took in all; kept for a resumed try."""
        name, epochs = "epochs.json", 0
        if folder.has(name):
            epochs = int(json.loads(folder.path(name).read_text("utf-8")))
        else:
            plain = self.arm(Arm(PLAIN, arm.seed, arm.first)).facts
            distilled = self.arm(Arm(DISTILLED, arm.seed, arm.first)).facts
            spent = distilled["training_seconds"] + self.teacher_seconds + self.targets.seconds
            most = MOST_LONGER * plain["epochs"]
            epochs = math.ceil(plain["epochs"] * spent / max(plain["training_seconds"], 1e-6))
            epochs = min(most, max(plain["epochs"], epochs))
            folder.write(name, json.dumps(epochs))
        return crew.told(epochs)

    @property
    def chosen(self) -> Done:
        """The arm whose weights ship."""
        return self.arm(Arm(self.chosen_arm, self.recipe.seed))

    @cached_property
    def chosen_arm(self) -> str:
        """The best arm from the student's start on validation; at a tie the distilled one, then the shorter."""
        top1 = {arm.name: done.facts["val_top1"] for arm, done in self.trained.items() if arm.first}
        return best_arm(top1)

    @cached_property
    def shape(self) -> Shape:
        """What every exported file shares."""
        from edgedistill.deploy.stage import preprocess_of, shape_for

        look, export = self.start.facts["look"], self.recipe.export
        return shape_for(
            self.device, self.dataset.classes, preprocess_of(look["size"], look["mean"], look["std"]),
            export.input, number(export.opset),
        )  # fmt: skip

    @cached_property
    def licences(self) -> dict[str, str | None]:
        """Licences of teacher, student, data, and of what made the images it learned from; `None` is unknown."""
        made = self.synthetic if self.chosen_arm == SYNTH else None
        data = self.recipe.data.licence or self.dataset.licence
        return licences_of(self.teacher, self.start, data, made)
