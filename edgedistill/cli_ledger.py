"""The commands under `edgedistill ledger`. Nothing heavy here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgedistill.cli_parts import show

ledger_app = typer.Typer(
    help="What your trainings cost and gave: the rows from which plan --compute learns.",
    no_args_is_help=True,
)


@ledger_app.command("show", epilog="Example:  edgedistill ledger show")
def ledger_show(
    file: Annotated[
        Path | None, typer.Argument(help="Another ledger than your own.", metavar="[FILE]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows, one a line.")] = False,
) -> None:
    """Show what the ledger of runs holds; it stays on this machine."""
    from edgedistill.compute.ledger import Ledger, required_ledger
    from edgedistill.errors import DocumentError
    from edgedistill.ledgerview import ledger_view

    if file is not None and not file.exists():
        raise DocumentError(f"there is no ledger {file}.")
    ledger = required_ledger() if file is None else Ledger(file)
    found = ledger.read()
    if as_json:
        for row in found.rows:
            typer.echo(row.model_dump_json(by_alias=True))
        return
    show(ledger_view(ledger, found))


@ledger_app.command("merge", epilog="Example:  edgedistill ledger merge colleague.jsonl")
def ledger_merge(
    files: Annotated[list[Path], typer.Argument(help="Ledgers of other machines.", metavar="FILE")],
) -> None:
    """Add the runs of other ledgers to your own, each once; those files are only read."""
    from edgedistill.compute.ledger import Ledger, required_ledger
    from edgedistill.errors import DocumentError

    own, missing = required_ledger(), [path for path in files if not path.exists()]
    if missing:
        raise DocumentError(f"there is no ledger {missing[0]}.")
    read = [(path, Ledger(path).read()) for path in files]
    for path, found in read:
        added = own.add(found.rows)
        left = f"; {found.words}" if found.words else ""
        typer.echo(f"{path}: {added:,} of {len(found.rows):,} runs are new{left}")
    typer.echo(f"{own.path}: {len(own.read().rows):,} runs")
