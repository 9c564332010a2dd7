"""A study: every arm with every seed, in one folder whose stages the arms share.

An arm with a seed is a run. Runs go seed by seed, so that an early stop leaves whole seeds. What two arms have in
common (pixels, teacher, stored outputs, starts) has one fingerprint, and is made once. After training, the network of
each run answers the test images, and so does each teacher; `study.json` and its views are written anew after each run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgedistill import crew, metrics
from edgedistill.arms import FINETUNE, PLAIN, PROBE, TAUGHT, Arm
from edgedistill.data.dataset import labels
from edgedistill.errors import EdgedistillError, StoppedError, UsageError
from edgedistill.evidence.view.figures import duration
from edgedistill.learning import Build
from edgedistill.ledgering import keep
from edgedistill.pipeline import check, resumable, sweep
from edgedistill.progress import Advance, Face
from edgedistill.recipe import hash_of
from edgedistill.rundir import Done, NotDone, RunDir, Work
from edgedistill.stages import Request
from edgedistill.studyfile import Study, StudyArm
from edgedistill.studyproof import Run, assemble
from edgedistill.studyresult import FILE, StudyResult, load

TESTED, TRAINED = "10-test", ("08-plain", "09-distilled")


@dataclass(frozen=True)
class StudyRequest:
    """What a person asked for: the study, its folder, the command to go on, and the arms to run (all where empty)."""

    study: Study
    out: Path
    command: str
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unit:
    """One run to do."""

    name: str
    kind: str
    seed: int

    @property
    def words(self) -> str:
        """What a person calls it."""
        return f"arm {self.name}, seed {self.seed}"


class StudyBuild(Build):
    """One arm of a study with all its seeds: a build whose stages the other arms share, up to answers on test."""

    def __init__(self, entry: StudyArm, out: Path, command: str, run: RunDir, face: Face) -> None:
        self.entry = entry
        super().__init__(Request(entry.layered, out, command), run, face)

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


def run_study(request: StudyRequest, face: Face) -> StudyResult:
    """Do every run that is not done, and write `study.json`, `study.md`, `study.html` and `study.svg`.

    Raises `StoppedError` with the command to go on when it is interrupted, or out of disk or memory; a user's fault
    names the arm.
    """
    study = request.study
    chosen = study.chosen(request.only)
    for entry in chosen:
        with _naming(f"arm {entry.name}"):
            check(entry.layered)
    with resumable(request.out, request.command), RunDir(request.out, shared=True) as run:
        if crew.leads():
            sweep(run.path)
        run.event("study_started", command=request.command)
        builds = {}
        for entry in study.arms:
            with _naming(f"arm {entry.name}"):
                builds[entry.name] = StudyBuild(entry, request.out, request.command, run, face)
        _same_images(builds)
        return _work(request, builds, [entry.name for entry in chosen], run, face)


def _work(
    request: StudyRequest,
    builds: Mapping[str, StudyBuild],
    chosen: Sequence[str],
    run: RunDir,
    face: Face,
) -> StudyResult:
    study = request.study
    units = [Unit(entry.name, entry.kind, seed) for seed in study.seeds for entry in study.arms]
    found = _done_before(units, {*chosen, *_told(request.out)}, builds, run)
    todo = [u for u in units if u.name in chosen and u not in found]
    for name in dict.fromkeys(unit.name for unit in todo):
        with _naming(f"arm {name}"):
            _ = builds[name].resolved
    before = len(found)
    if before:
        every = "all" if before == len(units) else f"{before} of"
        face.say(f"{every} {len(units)} runs were done before")
    for unit in list(todo):
        with _naming(unit.words):
            found[unit] = done = builds[unit.name].finish(unit.seed)
        todo.remove(unit)
        if crew.leads():
            keep([done.row], face)
        _write(request, builds, found, run)
        left = seconds_left(todo, found)
        more = f"; about {duration(left) if left >= 60 else f'{left:.0f} s'} to go" if left else ""
        face.say(
            f"[{len(found)}/{len(units)}] {unit.words}: test top-1 "
            f"{done.tested.facts['top1']:.3f}, validation {done.trained.facts['val_top1']:.3f}, "
            f"trained in {duration(done.trained.facts['training_seconds'])}{more}"
        )
    return _write(request, builds, found, run)


def _told(out: Path) -> list[str]:
    """Arms of which the study's document has runs, which must not get lost."""
    with contextlib.suppress(EdgedistillError):
        return [arm.name for arm in load(out / FILE).arms if arm.runs]
    return []


def _done_before(
    units: Sequence[Unit], needed: Collection[str], builds: Mapping[str, StudyBuild], run: RunDir
) -> dict[Unit, Run]:
    """The runs that are in the folder already; nothing is made. An arm that is not `needed` may lack what it takes."""
    found = {}
    with _looking(run):
        for unit in units:
            lacks = () if unit.name in needed else (EdgedistillError,)
            with contextlib.suppress(NotDone, *lacks), _naming(f"arm {unit.name}"):
                found[unit] = builds[unit.name].finish(unit.seed)
    return found


@contextlib.contextmanager
def _looking(run: RunDir) -> Iterator[None]:
    """Nothing is made inside."""
    run.looking = True
    try:
        yield
    finally:
        run.looking = False


def seconds_left(todo: Sequence[Unit], found: Mapping[Unit, Run]) -> float | None:
    """What the runs to do will take: as long as finished ones of the arm, else of its kind, else any."""
    if not found:
        return None
    total = 0.0
    for unit in todo:
        own = [r for u, r in found.items() if u.name == unit.name]
        kind = [r for u, r in found.items() if u.kind == unit.kind]
        like = own or kind or list(found.values())
        total += sum(r.trained.seconds + r.tested.seconds for r in like) / len(like)
    return total


def _write(
    request: StudyRequest,
    builds: Mapping[str, StudyBuild],
    found: Mapping[Unit, Run],
    run: RunDir,
) -> StudyResult:
    """The document and its views; the same findings keep the document of before."""
    from edgedistill.evidence.study import write_views
    from edgedistill.files import write_atomic

    runs = {
        entry.name: [found[u] for u in found if u.name == entry.name]
        for entry in request.study.arms
    }
    with _looking(run):
        result = assemble(request.study, builds, runs, request.command)
    if not crew.leads():
        return result
    file = request.out / FILE
    if file.is_file():
        with contextlib.suppress(EdgedistillError):
            old = load(file)
            same = {"created_utc": old.created_utc, "command": old.command}
            if old == result.model_copy(update=same):
                result = old
    write_atomic(file, result.dumps())
    write_views(result, request.out)
    return result


def _same_images(builds: Mapping[str, StudyBuild]) -> None:
    """Raise `UsageError` where two arms would be tested on different images: no number of theirs could be compared."""
    first: StudyBuild | None = None
    for name, build in builds.items():
        first = first or build
        if build.test_key != first.test_key:
            raise UsageError(
                f"arm {name} would be tested on other images than arm {first.entry.name}: a study compares arms on "
                "the same test images. Leave data.source, data.val_fraction and data.test_fraction to the recipe "
                "that all arms share."
            )


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    """A user's fault inside begins with `what` it is about."""
    try:
        yield
    except StoppedError:
        raise
    except EdgedistillError as error:
        named = EdgedistillError(f"{what}: {error}")
        named.exit_code = error.exit_code
        raise named from error
