"""The commands about devices: `edgedistill devices list | show | validate | measure`. Nothing heavy at import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgedistill.cli_parts import Quiet, Verbose, face_of, show

devices_app = typer.Typer(help="The devices that edgedistill knows.", no_args_is_help=True)


@devices_app.command("list", epilog="Example:  edgedistill devices list")
def devices_list() -> None:
    """Name every device, with its default limits."""
    from edgedistill.planview import devices_view

    show(devices_view())


@devices_app.command("show", epilog="Example:  edgedistill devices show jetson")
def devices_show(
    name: Annotated[str, typer.Argument(help="Device name, alias, or a profile (.yaml).")],
) -> None:
    """Print a device's facts, each with where it comes from."""
    from edgedistill.planview import device_view
    from edgedistill.target.device import load_device

    show(device_view(load_device(name)))


@devices_app.command("validate", epilog="Example:  edgedistill devices validate ./my-board.yaml")
def devices_validate(
    profile: Annotated[Path, typer.Argument(help="A profile of your own (.yaml).")],
) -> None:
    """Check a profile of your own: every problem at once, or that it holds."""
    from edgedistill.planview import device_view
    from edgedistill.target.device import load_profile

    show(device_view(load_profile(profile)))
    typer.echo(f"{profile} holds")


@devices_app.command("measure", epilog="Example:  edgedistill devices measure")
def devices_measure(
    name: Annotated[
        str, typer.Argument(help="What this machine is: host, a device, or a profile (.yaml).")
    ] = "host",
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads of the runtime.")] = 1,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Time networks with random weights on this machine; from then on its predictions come from that."""
    from edgedistill.evidence.bench import Here
    from edgedistill.measuring import measure_device
    from edgedistill.planning import require_parts
    from edgedistill.planview import measured_view
    from edgedistill.target.device import load_device

    require_parts()
    measured, path = measure_device(load_device(name), Here(), threads, face_of(verbose, quiet))
    show(measured_view(measured, path))
