"""What the commands share: how much they say, and how they print. Nothing heavy is imported here."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from edgedistill import crew
from edgedistill.errors import UsageError

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Tell every detail.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but the verdict.")]


def face_of(verbose: bool, quiet: bool) -> Any:
    """What a command says while it works. Raises `UsageError` where it shall tell all and nothing."""
    from edgedistill.progress import Face

    if verbose and quiet:
        raise UsageError("--verbose and --quiet exclude each other; give one of them")
    return Face(2 if verbose else 0 if quiet or not crew.leads() else 1)


def show(view: Any) -> None:
    """Print a rich renderable to standard output; into a pipe, without wrapping."""
    from rich.console import Console

    Console(highlight=False, soft_wrap=not sys.stdout.isatty()).print(view)
