"""The command `edgedistill export`. Nothing heavy here."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edgedistill.cli_parts import Quiet, Verbose, face_of, show

export_app = typer.Typer()


class File(StrEnum):
    """The files that a bundle can hold."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"


Triple = tuple[float, float, float] | None


@export_app.command(
    "export", epilog="Example:  edgedistill export weights.pth --model resnet18 --data ./flowers"
)
def export_command(
    model: Annotated[
        str,
        typer.Argument(
            help="A run folder, local-dir:DIR, hf-hub:OWNER/NAME, bundled:NAME, a timm name, or a checkpoint file."
        ),
    ],
    architecture: Annotated[
        str | None, typer.Option("--model", help="The timm name of a checkpoint file's network.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Images of its classes, as for build [a run: its own].")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device name or profile (.yaml) [a run: its own].")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the bundle (new, or an older bundle).")
    ] = Path("bundle"),
    labels: Annotated[
        Path | None, typer.Option(help="Names of the outputs, one a line, in their order.")
    ] = None,
    precision: Annotated[
        list[File] | None, typer.Option(help="Ship this file alone; again for more [all].")
    ] = None,
    input_size: Annotated[
        int | None, typer.Option(min=8, max=8192, help="Side of an image in pixels [its own].")
    ] = None,
    resize: Annotated[
        int | None,
        typer.Option(min=8, max=8192, help="Shorter side before the crop, in pixels [its own]."),
    ] = None,
    mean: Annotated[
        Triple, typer.Option(help="Mean of red, green, blue, 0 to 1 [its own].")
    ] = None,
    std: Annotated[Triple, typer.Option(help="Deviation of the same [its own].")] = None,
    opset: Annotated[int | None, typer.Option(help="ONNX opset [the device's].")] = None,
    batch: Annotated[int | None, typer.Option(help="Images of a batch [any number].")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights.")] = None,
    seed: Annotated[int | None, typer.Option(help="Which images are drawn.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any other value: quantize.method=entropy.")
    ] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write the bundle of a trained student, or of a timm checkpoint of your own, without a build."""
    from edgedistill.planning import require_parts
    from edgedistill.target.device import load_device
    from edgedistill.trained import is_run, recipe_for

    options = {
        "device": device, "data.source": data, "seed": seed, "export.opset": opset,
        "export.batch": batch,
    }  # fmt: skip
    layered = recipe_for(model, options, settings or [])
    load_device(layered.recipe.device)
    require_parts()
    from edgedistill.deploy.classifier import Sight
    from edgedistill.exporting import PRECISIONS, ExportRequest, export
    from edgedistill.exportview import exported_view

    with_data = (
        data is not None or "data.source" in layered.reasons or is_run(Path(model).expanduser())
    )
    asked = tuple(p for p in PRECISIONS if not precision or p in precision)
    request = ExportRequest(
        model, layered, out, with_data, Sight(input_size, resize, mean, std), architecture, licence,
        labels, asked,
    )  # fmt: skip
    show(exported_view(export(request, face_of(verbose, quiet))))
