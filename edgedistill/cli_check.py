"""The command `edgedistill check`. Nothing heavy here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from edgedistill.cli_parts import Quiet, Verbose, face_of, show

check_app = typer.Typer()


@check_app.command(
    "check",
    epilog="Example:  edgedistill check model.onnx --baseline old.onnx --max-size-growth 1%",
)
def check_command(
    new: Annotated[
        Path,
        typer.Argument(
            help="A run folder or result.json, a bundle, or an .onnx file.", metavar="NEW"
        ),
    ],
    baseline: Annotated[
        Path | None,
        typer.Option(help="What to compare with: the same, or a baseline file.", metavar="OLD"),
    ] = None,
    max_size_growth: Annotated[
        str | None, typer.Option(help="Most that the file may grow: 1%, 10KB, 0.", metavar="GROWTH")
    ] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="Most megabytes of the file.")] = None,
    max_latency_growth: Annotated[
        str | None,
        typer.Option(
            help="Most that it may get slower, timed in turns here: 5%.", metavar="GROWTH"
        ),
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Most milliseconds an image.")
    ] = None,
    max_memory_mb: Annotated[
        float | None, typer.Option(help="Most megabytes when it runs.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Most points of top-1 that may be lost.")
    ] = None,
    min_top1: Annotated[float | None, typer.Option(help="Least top-1 in percent.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="What is not decided ends with exit code 1.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Accept NEW: write the baseline file anew.")
    ] = False,
    no_measure: Annotated[bool, typer.Option("--no-measure", help="Time nothing here.")] = False,
    target: Annotated[
        str | None,
        typer.Option(help="Where to time: ssh://user@board[:port][/folder] [this machine]."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="What a time is for [the bundle's device].")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Limits [edgedistill.toml or pyproject.toml, upwards].")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the outcome as a document.")
    ] = None,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", help="Write JUnit XML, a test a limit.")
    ] = None,
    benchmark_json: Annotated[
        Path | None, typer.Option(help="Write the array that github-action-benchmark reads.")
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Write Markdown [appended to $GITHUB_STEP_SUMMARY].")
    ] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Hold a model against its limits and against an older one; exit code 1 for a regression."""
    from edgedistill.checking import CheckRequest, run_check
    from edgedistill.checklimits import asked_from

    options: dict[Any, Any] = {
        "max-size-growth": max_size_growth, "max-size-mb": max_size_mb,
        "max-latency-growth": max_latency_growth, "max-latency-ms": max_latency_ms,
        "max-memory-mb": max_memory_mb, "max-drop": max_drop, "min-top1": min_top1,
    }  # fmt: skip
    asked = asked_from(options, baseline, strict, config)
    request = CheckRequest(
        new, asked, measure=not no_measure, update=update, target=target, device=device
    )
    check = run_check(request, face_of(verbose, quiet))
    _write(check, json_file, junit_file, benchmark_json, summary)
    _tell(check, new)
    if check.exit_code:
        raise typer.Exit(check.exit_code)


def _write(
    check: Any, json_file: Path | None, junit_file: Path | None, bench: Path | None, md: Path | None
) -> None:
    """The documents that were asked for, each whole or not at all."""
    from edgedistill.evidence.view.benchjson import bench_json
    from edgedistill.evidence.view.checkview import markdown
    from edgedistill.evidence.view.junit import junit
    from edgedistill.files import write_atomic

    if json_file is not None:
        write_atomic(json_file, check.dumps())
    if junit_file is not None:
        write_atomic(junit_file, junit(check))
    if bench is not None:
        write_atomic(bench, bench_json(check))
    if md is not None:
        write_atomic(md, markdown(check))


def _tell(check: Any, new: Path) -> None:
    """The table for a person; in a job of GitHub Actions, where nothing in it is taken for a command, the summary and
    annotations too.
    """
    import secrets

    from edgedistill.evidence.view.annotations import workflow_commands
    from edgedistill.evidence.view.checkview import console, markdown

    if os.environ.get("GITHUB_ACTIONS") != "true":
        show(console(check))
    else:
        token = secrets.token_hex(16)
        typer.echo(f"::stop-commands::{token}")
        show(console(check))
        typer.echo(f"::{token}::")
        for line in workflow_commands(check, _in_repository(new)):
            typer.echo(line)
    place = os.environ.get("GITHUB_STEP_SUMMARY")
    if place:
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(markdown(check) + "\n")


def _in_repository(path: Path) -> str | None:
    """A path as the repository of a job knows it; `None` for one outside of it."""
    root = Path(os.environ.get("GITHUB_WORKSPACE") or ".").resolve()
    place = path.resolve()
    return place.relative_to(root).as_posix() if place.is_relative_to(root) else None
