"""The commands under `edgedistill bundle`. Nothing heavy here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from edgedistill.cli_parts import show

bundle_app = typer.Typer(help="A bundle that ships.", no_args_is_help=True)


@bundle_app.command("verify", epilog="Example:  edgedistill bundle verify bundle.tar.gz")
def bundle_verify(
    bundle: Annotated[Path, typer.Argument(help="The folder of a bundle, or its .tar.gz.")],
) -> None:
    """Check that a bundle is whole and says the truth: files, kit, models, golden outputs."""
    from edgedistill.planning import require_parts

    require_parts()
    from edgedistill.deploy.archive import opened
    from edgedistill.deploy.verify import checks

    faults = 0
    with opened(bundle) as folder:
        for check in checks(folder):
            show(Text(f"{'ok  ' if check.ok else 'FAIL'}  {check.words}"))
            faults += not check.ok
    if faults:
        raise typer.Exit(1)


@bundle_app.command(
    "pack", epilog="Example:  edgedistill bundle pack runs/flowers/bundle --out flowers.tar.gz"
)
def bundle_pack(
    bundle: Annotated[Path, typer.Argument(help="The folder of a bundle.")],
    out: Annotated[
        Path | None, typer.Option(help="The archive [BUNDLE.tar.gz, beside the folder].")
    ] = None,
) -> None:
    """Pack a bundle into one archive, the same bytes every time."""
    from edgedistill.deploy.archive import SUFFIX, pack_archive, sizes_of, strangers
    from edgedistill.exportview import packed_view

    folder = bundle.resolve()
    place = out or folder.with_name(folder.name + SUFFIX)
    found = pack_archive(bundle, place)
    show(packed_view(place, sizes_of(found)))
    for name in strangers(bundle):
        show(Text(f"left out: {name}"))
