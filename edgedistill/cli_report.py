"""The command `edgedistill report`. Nothing heavy here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgedistill.cli_parts import show
from edgedistill.errors import UsageError

report_app = typer.Typer()


@report_app.command("report", epilog="Example:  edgedistill report runs/quickstart")
def report_command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folder of a run or a study, or its .json; several runs are compared.",
            metavar="RUN",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where to write [the run folder; for several runs, here].")
    ] = None,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", help="Write JUnit XML, a test a limit.")
    ] = None,
    benchmark_json: Annotated[
        Path | None, typer.Option(help="Write the array that github-action-benchmark reads.")
    ] = None,
) -> None:
    """Write the views of a result or a study anew from its document; of several runs, one page that compares them."""
    machine = (junit_file, benchmark_json)
    if len(runs) == 1 and not _is_study(runs[0]):
        _one(runs[0], out, *machine)
    elif any(machine):
        raise UsageError("--junit and --benchmark-json are of one run; give its folder alone")
    elif len(runs) > 1:
        _several(runs, out)
    else:
        _study(runs[0], out)


def _is_study(run: Path) -> bool:
    return run.name == "study.json" or (run / "study.json").is_file()


def _folder(run: Path, out: Path | None) -> Path:
    """Where the views of a run go, which is there from now on."""
    folder = out or (run if run.is_dir() else run.parent)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _one(run: Path, out: Path | None, junit_file: Path | None, bench: Path | None) -> None:
    from edgedistill.evidence.report import console, write_views
    from edgedistill.evidence.view.benchjson import bench_json
    from edgedistill.evidence.view.junit import junit
    from edgedistill.files import write_atomic
    from edgedistill.result import load

    result: Any = load(run)
    folder = _folder(run, out)
    write_views(result, folder, run if run.is_dir() else run.parent)
    for place, view in ((junit_file, junit), (bench, bench_json)):
        if place is not None:
            write_atomic(place, view(result))
    show(console(result, folder / "report.html"))


def _study(run: Path, out: Path | None) -> None:
    from edgedistill.evidence import study as views
    from edgedistill.studyresult import load

    found = load(run)
    folder = _folder(run, out)
    views.write_views(found, folder)
    show(views.console(found, folder / "study.html"))


def _several(runs: Sequence[Path], out: Path | None) -> None:
    from edgedistill.evidence import comparison

    found = comparison.entries(runs)
    folder = out or Path()
    folder.mkdir(parents=True, exist_ok=True)
    comparison.write_views(found, folder)
    show(comparison.console(found, folder / "comparison.html"))
