"""The story: every stage in order, and what is skipped because it is done."""

from __future__ import annotations

from collections.abc import Callable

from edgedistill.data.dataset import Dataset
from edgedistill.data.sources import open_source
from edgedistill.derive import known_student, limits_from, resolve
from edgedistill.errors import UsageError, unknown
from edgedistill.learning import STAGES, Build, Request, choose_student, make_plan
from edgedistill.progress import Face
from edgedistill.recipe import Layered, Resolved
from edgedistill.result import Plan, Result
from edgedistill.rundir import RunDir
from edgedistill.shipping import Shipping
from edgedistill.target.device import load_device


def build(request: Request, face: Face) -> Result | None:
    """Run every stage that is not done, write the result and its views; `None` when `until` stopped it before."""
    with RunDir(request.out) as run:
        if request.fresh:
            run.clear()
        run.event("build_started", command=request.command)
        learn = Build(request, run, face)
        ship = Shipping(learn)
        steps: dict[str, Callable[[], object]] = {
            "01-data": lambda: learn.data,
            "02-plan": lambda: (learn.planned, learn.resolved),
            "03-pixels": lambda: learn.pixels,
            "04-teacher": lambda: learn.teacher,
            "05-targets": lambda: learn.targets,
            "06-start": lambda: learn.start,
            "07-plain": lambda: learn.plain,
            "08-distilled": lambda: learn.distilled,
            "09-export": lambda: ship.export,
            "10-quantize": lambda: ship.quantize,
            "11-bundle": lambda: ship.bundle,
            "12-bench": lambda: ship.bench,
            "13-score": lambda: ship.score,
            "14-report": lambda: ship.result,
        }
        for name, step in steps.items():
            step()
            if name == request.until and name != STAGES[-1]:
                return None
        return ship.result


def stage_name(text: str) -> str:
    """The stage that `--until` names, by its name with or without the number."""
    for name in STAGES:
        if text in (name, name.partition("-")[2]):
            return name
    raise UsageError(unknown("stage", text, [s.partition("-")[2] for s in STAGES]))


def preview(layered: Layered, face: Face) -> tuple[Plan, Resolved, Dataset]:
    """Data and plan alone, nothing written (`--dry-run`)."""
    device = load_device(layered.recipe.device)
    known_student(layered.recipe.student.model)
    dataset = open_source(layered.recipe.data, layered.recipe.seed, None, face.counter("images"))
    planned, values = make_plan(layered, device, dataset)
    return planned, resolve(layered, {**limits_from(layered, device), **values}), dataset


def preview_plan(layered: Layered, face: Face) -> Plan:
    """The plan alone (`edgedistill plan`): no teacher, no torch."""
    device = load_device(layered.recipe.device)
    known_student(layered.recipe.student.model)
    dataset = open_source(layered.recipe.data, layered.recipe.seed, None, face.counter("images"))
    return choose_student(layered, device, dataset)
