"""One arm of a study with all its seeds: a build whose stages the other arms share, up to answers on test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgedistill import metrics
from edgedistill.arms import FINETUNE, PLAIN, PROBE, TAUGHT, Arm
from edgedistill.data.dataset import Dataset, labels
from edgedistill.errors import EdgedistillError, StoppedError
from edgedistill.learning import Build
from edgedistill.progress import Advance, Face
from edgedistill.recipe import hash_of
from edgedistill.rundir import Done, RunDir, Work
from edgedistill.stages import Request
from edgedistill.studyfile import StudyArm
from edgedistill.studyproof import Run

TESTED, TRAINED = "10-test", ("08-plain", "09-distilled")


class StudyBuild(Build):
    """One arm of a study with all its seeds: a build whose stages the other arms share, up to answers on test."""

    def __init__(
        self,
        entry: StudyArm,
        out: Path,
        command: str,
        run: RunDir,
        face: Face,
        dataset: Dataset | None = None,
    ) -> None:
        self.entry = entry
        super().__init__(Request(entry.layered, out, command), run, face, dataset=dataset)

    def place(self, name: str) -> str:
        """The arm and the stage."""
        what = "training" if name in TRAINED else name.partition("-")[2]
        return f"    {self.entry.name:<16} {what:<8}"

    @property
    def recipe_file(self) -> Path:
        """Every arm has its resolved recipe."""
        return self.run.path / "recipes" / f"{self.entry.name}.yaml"

    def arm_of(self, seed: int) -> Arm:
        """The training that the arm is with one seed; fine-tuning is plain training of a pretrained student."""
        kind = PLAIN if self.entry.kind == FINETUNE else self.entry.kind
        return Arm(kind, seed, seed == self.recipe.seed)

    def start_of(self, arm: Arm) -> Done:
        """A probe is the start of fine-tuning: one start serves both."""
        same = arm.name == PROBE and self.recipe.distill.frozen_norm is True
        return super().start_of(Arm(PLAIN, arm.seed, arm.first) if same else arm)

    @property
    def test_key(self) -> str:
        """What tells sets of test images apart: their content, order and classes."""
        items = [[item.sha256, item.label] for item in self.dataset.test]
        return hash_of([items, list(self.dataset.classes)])

    def tested(self, arm: Arm) -> Done:
        """What the trained network of an arm says of the test images, in its exact arithmetic."""

        def work(folder: Work) -> Mapping[str, Any]:
            from edgedistill.distill import stage as students
            from edgedistill.teacher.stage import look_of

            model = students.restore(self.arm(arm), arm.name, self.spec_of(arm))
            look = look_of(self.start_of(arm).facts)
            return self._answers(folder, arm.key, model, self.arrays.test, look, fast=False)

        inputs = [self.pixels, self.start_of(arm), self.arm(arm)]
        return self.run.stage(f"{TESTED}@{arm.name}", 1, {"arm": arm.name}, inputs, work)

    @property
    def teacher_tested(self) -> Done:
        """What the teacher says of the test images."""

        def work(folder: Work) -> Mapping[str, Any]:
            from edgedistill.teacher.stage import look_of, restore

            look = look_of(self.teacher.facts)
            model = restore(self.teacher)
            return self._answers(
                folder, "teacher", model, self.arrays.teacher_test, look, fast=True
            )

        return self.run.stage(f"{TESTED}@teacher", 1, {}, [self.pixels, self.teacher], work)

    def _answers(
        self, folder: Work, name: str, model: Any, pixels: Any, look: Any, *, fast: bool
    ) -> Mapping[str, Any]:
        from edgedistill.deploy.bundle import npz_bytes
        from edgedistill.nets import outputs, pick_device

        device = pick_device()
        advance: Advance
        with self.face.bar(f"{name} on the test images", len(pixels)) as advance:
            logits = outputs(model.to(device), pixels, look, device, fast=fast, advance=advance)[1]
        folder.write("logits.npz", npz_bytes({"logits": logits}))
        return {"images": len(logits), "top1": metrics.top1(logits, labels(self.dataset.test))}

    def right(self, tested: Done) -> npt.NDArray[np.bool_]:
        """Which test images (N,) a finished stage of answers has right."""
        with np.load(tested.folder / "logits.npz", allow_pickle=False) as found:
            return metrics.correct(found["logits"], labels(self.dataset.test))

    def finish(self, seed: int) -> Run:
        """The run with one seed, trained and tested; the teacher is tested too where the arm has one."""
        arm = self.arm_of(seed)
        taught = arm.name in TAUGHT
        trained, tested = self.arm(arm), self.tested(arm)
        teacher = self.teacher_tested if taught else None
        return Run(
            self, arm, trained, tested, self.right(tested), teacher,
            self.right(teacher) if teacher is not None else None,
        )  # fmt: skip


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """A user's fault inside begins with `what` it is about."""
    try:
        yield
    except StoppedError:
        raise
    except EdgedistillError as error:
        named = EdgedistillError(f"{what}: {error}")
        named.exit_code = error.exit_code
        raise named from error
