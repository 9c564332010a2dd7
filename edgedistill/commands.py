"""What every command of the command line shares, and the commands under `edgedistill teacher`. Nothing heavy here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edgedistill import crew
from edgedistill.errors import UsageError

teacher_app = typer.Typer(help="The teacher of a run.", no_args_is_help=True)

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Tell every detail.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but the verdict.")]


def face_of(verbose: bool, quiet: bool) -> Any:
    """The face that `-v` and `-q` ask for."""
    from edgedistill.progress import Face

    if verbose and quiet:
        raise UsageError("--verbose and --quiet exclude each other; give one of them")
    return Face(2 if verbose else 0 if quiet or not crew.leads() else 1)


def show(view: Any) -> None:
    """Print what a person asked to see to standard output."""
    from rich.console import Console

    Console(highlight=False, soft_wrap=not sys.stdout.isatty()).print(view)


@teacher_app.command("verify", epilog="Example:  edgedistill teacher verify runs/quickstart")
def teacher_verify(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    sample: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Stored records that are made again.")
    ] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Which records these are.")] = 0,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Check every stored teacher output of a run, and ask the teacher again for a sample of them."""
    from edgedistill.planning import require_parts
    from edgedistill.verifying import verified_view, verify

    require_parts()
    found = verify(run, sample, seed, face_of(verbose, quiet))
    show(verified_view(found))
    if found.faults:
        raise typer.Exit(1)
