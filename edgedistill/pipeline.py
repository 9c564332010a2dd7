"""The story: every stage in order, and what is skipped because it is done."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from edgedistill import attempts, crew
from edgedistill.data.dataset import Dataset
from edgedistill.data.sources import check_source, open_source
from edgedistill.derive import known_student, limits_from, method_values, resolve
from edgedistill.errors import BudgetError, StoppedError
from edgedistill.learning import Build
from edgedistill.logs import require_log
from edgedistill.planning import choose_student, make_plan, require_parts
from edgedistill.progress import Face
from edgedistill.recipe import Layered, Resolved
from edgedistill.result import Attempt, Limits, Plan, Result
from edgedistill.rundir import RunDir, is_disk_full
from edgedistill.shipping import Shipping
from edgedistill.stages import STAGES, Request
from edgedistill.synthvalues import check_generator, synth_values
from edgedistill.target.device import load_device

LAST_TOGETHER = "09-distilled"
"""The last stage that several processes work at; from then on the leader goes on alone."""


def build(request: Request, face: Face) -> Result | None:
    """Run every stage that is not done, write the result and its views; `None` when `until` stopped it before.

    Raises `StoppedError` with the command to go on when it is interrupted, or out of disk or memory.
    """
    check(request.layered)
    require_log(request.log)
    with resumable(request.out, request.command):
        return _build(request, face)


@contextlib.contextmanager
def resumable(out: Path, command: str) -> Iterator[None]:
    """Whatever stops the work inside becomes a `StoppedError` with the command that goes on in the folder `out`."""
    try:
        yield
    except KeyboardInterrupt:
        raise _stopped(command, "interrupted. What was finished is kept.") from None
    except StoppedError as error:
        raise _stopped(command, str(error)) from error
    except MemoryError as error:
        text = "out of memory. What was finished is kept; close other programs first."
        raise _stopped(command, text) from error
    except OSError as error:
        if not is_disk_full(error):
            raise
        text = f"the disk of {out} is full. What was finished is kept; free some space first."
        raise _stopped(command, text) from error


def check(layered: Layered) -> None:
    """Raise the error of a device, student, data source or generator that is not there, before anything is written."""
    load_device(layered.recipe.device)
    known_student(layered.recipe.student.model)
    check_source(layered.recipe.data)
    check_generator(layered.recipe)


def _stopped(command: str, text: str) -> StoppedError:
    """The error of a stop, with the command that goes on; that one must not begin `--fresh`."""
    words = [word for word in shlex.split(command) if word != "--fresh"]
    return StoppedError(f"{text} Go on with:  {shlex.join(words)}")


def _build(request: Request, face: Face) -> Result | None:
    with RunDir(request.out) as run:
        if crew.leads():
            if request.fresh:
                run.clear()
            sweep(run.path)
        run.event("build_started", command=request.command)
        learn = Build(request, run, face)
        tried = attempts.recall(run, learn.plan_key) if learn.data else []
        while True:
            learn = Build(request, run, face, tried)
            ship = Shipping(learn)
            steps = _steps(learn, ship)
            for name in STAGES[: STAGES.index("13-bench") + 1]:
                if crew.leads() or name <= LAST_TOGETHER:
                    steps[name]()
                if name == request.until:
                    return None
            another = crew.told(_next_attempt(learn, ship, face) if crew.leads() else None)
            if another is None:
                break
            tried = [*tried, another]
            if crew.leads():
                attempts.keep(run, learn.plan_key, tried)
        if not crew.leads():
            return None
        for name in STAGES[STAGES.index("13-bench") + 1 :]:
            steps[name]()
            if name == request.until and name != STAGES[-1]:
                return None
        if not learn.worked:
            face.say(f"all {len(learn.stages)} stages were done before; --fresh builds them anew")
        return ship.result


def _steps(learn: Build, ship: Shipping) -> dict[str, Callable[[], object]]:
    return {
        "01-data": lambda: learn.data,
        "02-plan": lambda: (learn.planned, learn.resolved),
        "03-pixels": lambda: learn.pixels,
        "04-teacher": lambda: learn.teacher,
        "05-synth": lambda: learn.synthetic,
        "06-targets": lambda: (learn.targets, learn.synthetic_targets),
        "07-start": lambda: [learn.start_of(arm) for arm in learn.arms],
        "08-plain": lambda: learn.plain,
        "09-distilled": lambda: learn.trained,
        "10-export": lambda: ship.export,
        "11-quantize": lambda: ship.quantize,
        "12-bundle": lambda: ship.bundle,
        "13-bench": lambda: ship.bench,
        "14-score": lambda: ship.score,
        "15-report": lambda: ship.result,
    }


def _next_attempt(learn: Build, ship: Shipping, face: Face) -> Attempt | None:
    """The candidate that missed a limit and gives way to the next one, `None` when this one stands."""
    words = ship.missed()
    if not words:
        return None
    chosen = learn.plan.chosen
    name = f"{chosen.model} at {chosen.input_size} px in {ship.quantize.facts['chosen']}"
    if len(learn.tried) + 1 >= learn.recipe.plan.max_attempts:
        face.say(f"{name} misses a limit: {'; '.join(words)}; no attempt is left")
        return None
    found = attempts.attempt(chosen, words, ship.quantize.facts["chosen"])
    try:
        choose_student(learn.layered, learn.device, learn.dataset, [*learn.tried, found])
    except BudgetError:
        face.say(f"{name} misses a limit: {'; '.join(words)}; no other candidate fits")
        return None
    face.say(f"{name} misses a limit: {'; '.join(words)}; the next candidate is built")
    return found


def sweep(folder: Path) -> None:
    """Remove what a killed build left half written, or half removed, outside the folders of its stages."""
    for pattern in (".*.tmp", ".trash-*", "cache/**/*.tmp", "*/.trash-*"):
        for litter in folder.glob(pattern):
            if litter.is_dir():
                shutil.rmtree(litter, ignore_errors=True)
            else:
                litter.unlink(missing_ok=True)


def preview(layered: Layered, face: Face) -> tuple[Plan, Resolved, Dataset]:
    """Data and plan alone, nothing written (`--dry-run`)."""
    require_parts(layered.recipe.bench.provider)
    device = load_device(layered.recipe.device)
    known_student(layered.recipe.student.model)
    dataset = open_source(
        layered.recipe.data, layered.recipe.seed, None, face.counter("images"), face.say
    )
    planned, values = make_plan(layered, device, dataset)
    derived = {
        **limits_from(layered, device),
        **values,
        **method_values(layered.recipe, len(dataset.train) + len(dataset.unlabelled)),
        **synth_values(layered.recipe, len(dataset.train), len(dataset.classes)),
    }
    return planned, resolve(layered, derived), dataset


def preview_plan(layered: Layered, measure: int, face: Face) -> tuple[Plan, Limits]:
    """The plan alone (`edgedistill plan`) and its limits; torch is needed only to time the `measure` best here."""
    device = load_device(layered.recipe.device)
    known_student(layered.recipe.student.model)
    dataset = open_source(
        layered.recipe.data, layered.recipe.seed, None, face.counter("images"), face.say
    )
    planned = choose_student(layered, device, dataset)
    limits = resolve(layered, limits_from(layered, device)).recipe.budget.limits()
    if measure:
        require_parts()
        from edgedistill.evidence.bench import Here
        from edgedistill.measuring import time_candidates

        planned = time_candidates(
            planned, device, limits, measure, len(dataset.classes), Here(), face
        )
    return planned, limits
