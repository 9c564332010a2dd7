"""A study: every arm with every seed, in one folder whose stages the arms share.

An arm with a seed is a run. Runs go seed by seed, so that an early stop leaves whole seeds. What two arms have in
common (pixels, teacher, stored outputs, starts) has one fingerprint, and is made once. After training, the network of
each run answers the test images, and so does each teacher; `study.json` and its views are written anew after each run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgedistill import crew
from edgedistill.data.dataset import Dataset
from edgedistill.errors import UsageError
from edgedistill.pipeline import check, resumable, sweep
from edgedistill.progress import Face
from edgedistill.recipe import hash_of
from edgedistill.rundir import RunDir
from edgedistill.studybuild import StudyBuild, naming
from edgedistill.studyresult import StudyResult
from edgedistill.studyrun import Engine, Progress, StudyRequest
from edgedistill.studysearch import SEARCHED, Search, with_searched


def run_study(request: StudyRequest, face: Face, engine: Engine | None = None) -> StudyResult:
    """Do every run that is not done, here or by an `engine`, and write `study.json` and its views.

    Raises `StoppedError` with the command to go on when it is interrupted, or out of disk or memory; a user's fault
    names the arm.
    """
    request = replace(request, study=with_searched(request.study, request.out, face))
    chosen = request.study.chosen(request.only)
    search = None
    if request.search:
        search = Search(request.study, request.out, request.command, request.search)
    for entry in chosen:
        with naming(f"arm {entry.name}"):
            check(entry.layered)
    with resumable(request.out, request.command), RunDir(request.out, shared=True) as run:
        if crew.leads() and run.alone:
            sweep(run.path)
        run.waiting = lambda name: face.say(f"    {name}: another process makes it")
        run.event("study_started", command=request.command)
        result = _arms(request, [entry.name for entry in chosen], run, face, engine)
        if search is None:
            return result
        search.work(run, face)
        bare = [arm for arm in request.study.arms if arm.name != SEARCHED]
        again = replace(request.study, arms=tuple(bare))
        request = replace(request, study=with_searched(again, request.out, face))
        return _arms(request, [SEARCHED], run, face, engine)


def _arms(
    request: StudyRequest, chosen: Sequence[str], run: RunDir, face: Face, engine: Engine | None
) -> StudyResult:
    """Do the runs of the `chosen` arms."""
    builds: dict[str, StudyBuild] = {}
    opened: dict[str, Dataset] = {}  # arms that learn from the same images share them in memory
    for entry in request.study.arms:
        data = hash_of([entry.layered.recipe.data.model_dump(), entry.layered.recipe.seed])
        with naming(f"arm {entry.name}"):
            builds[entry.name] = build = StudyBuild(
                entry, request.out, request.command, run, face, opened.get(data)
            )
        opened.setdefault(data, build.dataset)
    _same_images(builds)
    return Progress(request, builds, run, face).work(chosen, engine)


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
