"""The commands `edgedistill bench` and `edgedistill record`. Nothing heavy here."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edgedistill.cli_parts import Quiet, Verbose, face_of, show
from edgedistill.errors import UsageError

bench_app = typer.Typer()


class Provider(StrEnum):
    """What runs a model."""

    cpu = "cpu"
    cuda = "cuda"
    tensorrt = "tensorrt"
    engine = "engine"


@bench_app.command(
    "bench", epilog="Example:  edgedistill bench runs/flowers --target ssh://pi@raspberrypi.local"
)
def bench_command(
    subject: Annotated[
        Path,
        typer.Argument(help="A bundle, an ONNX file, or a run folder.", metavar="BUNDLE|ONNX|RUN"),
    ],
    target: Annotated[
        str | None, typer.Option(help="A board: ssh://user@board[:port][/folder] [this machine].")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="What the numbers are for [the bundle's device].")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="The older file or bundle: time both in turns.", metavar="OTHER"),
    ] = None,
    model: Annotated[str | None, typer.Option(help="One file of the bundle [all].")] = None,
    provider: Annotated[
        Provider | None,
        typer.Option(
            help="What runs it; engine: TensorRT, built there [a Jetson: engine; else cpu]."
        ),
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Counts with commas, 0 = all cores [1,0].", metavar="N,N")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Paced, so many frames a second.")] = None,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="From the bytes of a picture to its class.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Enough for a p90.")] = False,
    thorough: Annotated[bool, typer.Option("--thorough", help="Enough for a p99.9.")] = False,
    json: Annotated[
        Path | None, typer.Option("--json", help="Also write the kit document, or the comparison.")
    ] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Time a bundle or an ONNX file here or on a board; of a run, its verdict is judged anew."""
    from edgedistill.benching import BenchRequest, bench
    from edgedistill.benchview import bench_view

    if quick and thorough:
        raise UsageError("--quick and --thorough exclude each other; give one of them")
    if json is not None and json.is_dir():
        raise UsageError(f"--json {json} is a folder; give the name of a file")
    request = BenchRequest(
        subject, target, device, compare, model, provider.value if provider else None, threads, fps,
        end_to_end, "quick" if quick else "thorough" if thorough else "default", json=json,
    )  # fmt: skip
    found = bench(request, face_of(verbose, quiet))
    show(bench_view(found))
    if found.result is not None and found.run is not None:
        _judged(found.result, found.run)
    if found.document.get("failures"):
        raise typer.Exit(3)


@bench_app.command("record", epilog="Example:  edgedistill record result.json --run runs/flowers")
def record_command(
    document: Annotated[
        Path,
        typer.Argument(
            help="What ontarget.pyz bench or eval wrote with --json.", metavar="RESULT.json"
        ),
    ],
    run: Annotated[
        Path | None, typer.Option(help="The run folder [the one in runs/ with that bundle].")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fold what was measured on a board by hand into the run's result, and judge its verdict anew."""
    from edgedistill.recording import record

    result, folder = record(document, run, face_of(False, quiet).warn)
    _judged(result, folder)


def _judged(result: object, folder: Path) -> None:
    """Print the verdict; a limit that is missed ends with exit code 1."""
    from edgedistill.evidence.report import console
    from edgedistill.result import Result

    assert isinstance(result, Result)
    show(console(result, folder / "report.html"))
    if result.verdict.status == "fail":
        raise typer.Exit(1)
