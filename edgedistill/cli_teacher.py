"""The commands under `edgedistill teacher`. Nothing heavy here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgedistill.cli_parts import Quiet, Verbose, face_of, show

teacher_app = typer.Typer(help="The teacher of a run.", no_args_is_help=True)


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
    from edgedistill.verifying import stores, verified_view, verify

    require_parts()
    face = face_of(verbose, quiet)
    found = [verify(run, sample, seed, face, stage) for stage in stores(run)]
    for one in found:
        show(verified_view(one))
    if any(one.faults for one in found):
        raise typer.Exit(1)
