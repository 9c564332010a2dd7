"""The command `edgedistill plan`. Nothing heavy here."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edgedistill.cli_parts import Quiet, Verbose, face_of, show
from edgedistill.errors import UsageError

plan_app = typer.Typer()


@plan_app.command(
    "plan", epilog="Example:  edgedistill plan --device jetson --latency-ms 3 --size-mb 6"
)
def plan_command(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe (YAML).", metavar="RECIPE")
    ] = None,
    data: Annotated[str | None, typer.Option(help="As for build.")] = None,
    teacher: Annotated[str | None, typer.Option(help="As for build.")] = None,
    device: Annotated[str | None, typer.Option(help="Device name or profile (.yaml).")] = None,
    latency_ms: Annotated[float | None, typer.Option(help="Most milliseconds an image.")] = None,
    size_mb: Annotated[float | None, typer.Option(help="Most megabytes of the file.")] = None,
    memory_mb: Annotated[float | None, typer.Option(help="Most megabytes when it runs.")] = None,
    min_top1: Annotated[float | None, typer.Option(help="As for build.")] = None,
    max_drop: Annotated[float | None, typer.Option(help="As for build.")] = None,
    student: Annotated[str | None, typer.Option(help="A student's timm name, or auto.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any other value.")] = None,
    measure: Annotated[
        int, typer.Option(min=0, max=50, help="Time the K best here, with random weights.")
    ] = 0,
    top: Annotated[int, typer.Option(min=1, max=40, help="Rows of each table.")] = 5,
    compute: Annotated[
        str | None,
        typer.Option(
            help="Say what this much training will give: 30min, 2h, 1e16FLOP.", metavar="AMOUNT"
        ),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="With --compute: make the trainings that are missing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Say which student would be trained, and why, without training anything."""
    from edgedistill.options import layered_from
    from edgedistill.pipeline import preview_plan
    from edgedistill.planview import candidates_view

    layered = layered_from(
        recipe,
        {"data.source": data, "teacher.model": teacher, "device": device, "student.model": student},
        {
            "latency_ms": latency_ms, "size_mb": size_mb, "memory_mb": memory_mb,
            "min_top1": min_top1, "max_drop": max_drop,
        },
        settings or [],
        quick=False,
    )  # fmt: skip
    if probe and compute is None:
        raise UsageError("--probe makes the trainings that --compute misses: give an amount too")
    if compute is not None:
        _spend(layered, compute, probe, as_json, face_of(verbose, quiet))
        return
    planned, limits = preview_plan(layered, measure, face_of(verbose, quiet))
    if as_json:
        typer.echo(planned.model_dump_json(indent=1))
        return
    show(candidates_view(planned, limits.latency_s, top))


def _spend(layered: Any, compute: str, probe: bool, as_json: bool, face: Any) -> None:
    from edgedistill.compute.effort import parse_effort
    from edgedistill.effortview import answer_json, answer_view
    from edgedistill.spending import spend

    effort = parse_effort(compute)
    command = "edgedistill " + shlex.join(sys.argv[1:])
    found = spend(layered, effort, probe, command, face)
    if as_json:
        typer.echo(answer_json(found))
        return
    show(answer_view(found))
