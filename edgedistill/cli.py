"""The command line: parse, call one function, print, exit code. Nothing heavy is imported here.

Exit codes: 0 pass (also unconfirmed, unless --strict); 1 a limit was missed, or nothing fits; 2 bad usage, recipe or
input; 3 stopped before the end, and the same command goes on.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup

from edgedistill import __version__, crew
from edgedistill.cli_bench import bench_app
from edgedistill.cli_bundle import bundle_app
from edgedistill.cli_check import check_app
from edgedistill.cli_devices import devices_app
from edgedistill.cli_export import export_app
from edgedistill.cli_ledger import ledger_app
from edgedistill.cli_parts import Quiet, Verbose
from edgedistill.cli_parts import face_of as _face
from edgedistill.cli_parts import show as _print
from edgedistill.cli_plan import plan_app
from edgedistill.cli_report import report_app
from edgedistill.cli_synth import synth_app
from edgedistill.cli_teacher import teacher_app
from edgedistill.errors import EdgedistillError, StoppedError, UsageError

INTERRUPTED = "interrupted before it was done. Give the same command again."


class _Commands(TyperGroup):
    """Typer ends Ctrl-C with an exit code of its own; here it is a stop that can be resumed."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise StoppedError(INTERRUPTED) from None


app = typer.Typer(
    name="edgedistill",
    cls=_Commands,
    help="Budget in, verdict out: distil an image classifier that fits your edge device, and prove it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(devices_app, name="devices")
app.add_typer(teacher_app, name="teacher")
app.add_typer(synth_app, name="synth")
app.add_typer(bundle_app, name="bundle")
app.add_typer(ledger_app, name="ledger")
app.add_typer(plan_app)
app.add_typer(export_app)
app.add_typer(report_app)
app.add_typer(check_app)
app.add_typer(bench_app)

Provider = Literal["cpu", "cuda", "tensorrt"]
Log = Literal["none", "tensorboard"]


def _version(show: bool) -> None:
    if show:
        typer.echo(f"edgedistill {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Budget in, verdict out: distil an image classifier that fits your edge device, and prove it."""


@app.command(
    epilog="Example:  edgedistill build --device jetson --data ./flowers --latency-ms 5 --size-mb 8"
)
def build(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe (YAML); options override it.", metavar="RECIPE")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Folder of images, .tar shards, .parquet, .csv, hf-dataset:OWNER/NAME."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="bundled:NAME, a timm name, hf-hub:OWNER/NAME, local-dir:DIR."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Device name or profile (.yaml).")] = None,
    latency_ms: Annotated[float | None, typer.Option(help="Most milliseconds an image.")] = None,
    size_mb: Annotated[float | None, typer.Option(help="Most megabytes of the file.")] = None,
    memory_mb: Annotated[float | None, typer.Option(help="Most megabytes when it runs.")] = None,
    min_top1: Annotated[float | None, typer.Option(help="Least top-1 in percent.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Most points of top-1 that conversion may lose.")
    ] = None,
    student: Annotated[str | None, typer.Option(help="A student's timm name, or auto.")] = None,
    synthetic: Annotated[
        str | None, typer.Option(help="Synthetic images to add: a number, or auto.", metavar="N")
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(help="What makes them: bundled:NAME, or a diffusers folder or hub id."),
    ] = None,
    provider: Annotated[Provider | None, typer.Option(help="Where to measure here.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder [runs/NAME].")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any other value: distill.epochs=30.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what was done before.")] = False,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan only; write nothing.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small run that only shows that all works.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of each arm, for the proof.")] = None,
    log: Annotated[Log, typer.Option(help="Training curves for a viewer, in RUN/logs.")] = "none",
    strict: Annotated[
        bool, typer.Option("--strict", help="Unconfirmed limits end with exit code 1.")
    ] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Choose, teach, package, measure and judge a student for a device."""
    from edgedistill.options import layered_from, synthetic_images

    layered = layered_from(
        recipe,
        {
            "data.source": data, "teacher.model": teacher, "device": device, "seed": seed,
            "proof.seeds": seeds,
            "student.model": student, "bench.provider": provider,
            "synth.images": synthetic_images(synthetic), "synth.generator": generator,
        },
        {
            "latency_ms": latency_ms, "size_mb": size_mb, "memory_mb": memory_mb,
            "min_top1": min_top1, "max_drop": max_drop,
        },
        settings or [],
        quick=quick,
    )  # fmt: skip
    face = _face(verbose, quiet)
    if dry_run:
        from edgedistill.pipeline import preview
        from edgedistill.planview import plan_view

        plan, resolved, dataset = preview(layered, face)
        _print(plan_view(plan, resolved, dataset))
        return
    _run_build(layered, out, until, fresh, log, strict, face)


def _run_build(
    layered: Any, out: Path | None, until: str | None, fresh: bool, log: Log, strict: bool, face: Any
) -> None:  # fmt: skip
    from edgedistill.evidence.report import console
    from edgedistill.options import out_folder
    from edgedistill.pipeline import build as run_build
    from edgedistill.stages import Request, stage_name

    folder = out_folder(layered.recipe, out)
    stop = stage_name(until) if until is not None else None
    command = "edgedistill " + shlex.join(sys.argv[1:])
    result = run_build(Request(layered, folder, command, stop, fresh, log), face)
    if not crew.leads():
        return
    if result is None:
        face.say(f"stopped after {stop}; the same command without --until goes on")
        return
    if not result.run:
        return
    _print(console(result, folder / "report.html"))
    failed = result.verdict.status == "fail" or (strict and result.verdict.status != "pass")
    if failed:
        raise typer.Exit(1)


@app.command(epilog="Example:  edgedistill study recipes/study-losses.yaml --seeds 3")
def study(
    file: Annotated[
        Path,
        typer.Argument(help="A study (YAML), or losses, stages, design-space.", metavar="STUDY"),
    ],
    data: Annotated[
        str | None, typer.Option(help="Images for all arms, in place of the file's.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the study [runs/NAME; with --data, NAME-DATA]."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=20, help="Seeds of each arm, in place of the file's.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Run this arm or factor alone; give it again for more.")
    ] = None,
    search: Annotated[
        int, typer.Option(min=0, max=10_000, help="Then search over all factors in so many trials.")
    ] = 0,
    engine: Annotated[
        Literal["here", "ray"], typer.Option(help="Who does the runs: this process, or Ray.")
    ] = "here",
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Runs at once on a Ray of this machine.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster that is there: auto, or HOST:PORT.")
    ] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train a grid of arms on the same images, into one table and one chart.

    The same command in several terminals, or on machines that share the folder, shares the runs among them.
    """
    from edgedistill.evidence.study import console
    from edgedistill.studyfile import load_study
    from edgedistill.studying import run_study
    from edgedistill.studyrun import StudyRequest

    found = load_study(file, seeds, data)
    folder = out or Path("runs") / found.name
    command = "edgedistill " + shlex.join(sys.argv[1:])
    request = StudyRequest(found, folder, command, tuple(only or ()), search)
    result = run_study(request, _face(verbose, quiet), _engine(engine, workers, address))
    if crew.leads():
        _print(console(result, folder / "study.html"))


def _engine(engine: str, workers: int | None, address: str | None) -> Any:
    """What does the runs of a study; `None` is this process."""
    if engine == "here":
        if workers is not None or address is not None:
            raise UsageError("--workers and --address are of --engine ray")
        return None
    if workers is not None and address is not None:
        raise UsageError("a cluster at --address has its own workers: give no --workers")
    from edgedistill.studyray import Cluster, on_ray

    return on_ray(Cluster(address, workers))


@app.command(epilog="Example:  edgedistill doctor")
def doctor() -> None:
    """Say what is installed here, which accelerators are seen, and what to do about what is missing."""
    from edgedistill.doctor import checks, doctor_view

    found = checks()
    _print(doctor_view(found))
    if any(check.status == "wrong" for check in found):
        raise typer.Exit(1)


def main() -> None:
    """Entry point: one paragraph for a user's fault, and the exit codes of the house."""
    # OpenMP threads wait awake for some microseconds, then sleep: without a bound, two processes on one machine
    # slow each other by 50 times; with none at all, training takes twice as long.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        app(prog_name="edgedistill")
    except EdgedistillError as error:
        _stop(str(error), error.exit_code)
    except KeyboardInterrupt:
        _stop(INTERRUPTED, 3)
    except MemoryError:
        _stop("out of memory. What was finished is kept; close other programs and go on.", 3)
    except OSError as error:
        _os_error(error)


def _os_error(error: OSError) -> NoReturn:
    from edgedistill.rundir import is_disk_full

    if is_disk_full(error):
        _stop(
            f"the disk is full ({error.filename or 'while writing'}). What was finished is kept: "
            "free some space and give the same command again.",
            3,
        )
    where = f"{error.filename}: " if error.filename else ""
    _stop(f"{where}{error.strerror or error}", 2)


def _stop(text: str, code: int) -> NoReturn:
    sys.stdout.flush()
    print(f"edgedistill: {text}", file=sys.stderr)
    raise SystemExit(code)
