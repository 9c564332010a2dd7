"""The commands under `edgedistill synth`. Nothing heavy here."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from edgedistill import crew
from edgedistill.cli_parts import Quiet, Verbose, face_of, show

synth_app = typer.Typer(help="Synthetic images, and what makes them.", no_args_is_help=True)


class Kind(StrEnum):
    """What a generator is asked by."""

    auto = "auto"
    text_to_image = "text_to_image"
    image_to_image = "image_to_image"
    class_conditional = "class_conditional"


Generator = Annotated[
    str | None,
    typer.Option(help="bundled:NAME, a diffusers folder, or a hub's diffusers id."),
]
KindOption = Annotated[Kind, typer.Option(help="What it is asked by.")]


@synth_app.command(
    "run",
    epilog="Example:  edgedistill synth run runs/flowers --generator stabilityai/sd-turbo --steps 1"
)  # fmt: skip
def synth_run(
    run: Annotated[Path, typer.Argument(help="A run folder whose teacher is ready.")],
    generator: Generator = None,
    kind: KindOption = Kind.auto,
    images: Annotated[
        int | None, typer.Option(min=1, help="Images to keep in all [as many as train has].")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the images [RUN/synth].")] = None,
    domain: Annotated[str, typer.Option(help="photo, scene, texture or product.")] = "photo",
    prompts: Annotated[
        Path | None, typer.Option(help="Your own templates and names (YAML).")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Steps of an image.")] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, max=50, help="Classifier-free guidance.")
    ] = None,
    strength: Annotated[
        float, typer.Option(min=0.01, max=1, help="How far a variation goes from its image.")
    ] = 0.6,
    size: Annotated[
        int | None, typer.Option(min=8, max=4096, help="Side of an image in pixels.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag of a hub.")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Images at once [what fits].")
    ] = None,
    tries: Annotated[
        float, typer.Option(min=1, max=100, help="Images made for each one to keep, at most.")
    ] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of prompts and images.")] = 0,
    part: Annotated[
        str, typer.Option(help="The share of this process: 2/5 is the second of five.")
    ] = "1/1",
    keep_all: Annotated[
        bool, typer.Option("--keep-all", help="Judge nothing: keep whatever was made.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show prompts, time and disk; keep nothing.")
    ] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Make synthetic images for a run, look at them with its teacher, and keep the good ones."""
    from edgedistill.pipeline import resumable
    from edgedistill.planning import require_parts
    from edgedistill.synth.curate import EVERYTHING, Rules
    from edgedistill.synth.naming import asked_by, kind_of
    from edgedistill.synth.pipelines import Making
    from edgedistill.synth.units import Part
    from edgedistill.synthesis import Synthesis, SynthRequest, material_of
    from edgedistill.synthvalues import generator_for
    from edgedistill.synthview import outcome_view, preview_view

    require_parts()
    material = material_of(run)
    name = generator or generator_for(str(material.data.facts["source"]))
    by = kind_of(name) if kind is Kind.auto else asked_by(kind.value)
    making = Making(by, name, revision, steps, guidance, strength, size)
    folder = out or run / "synth"
    request = SynthRequest(
        folder, making, images, domain, prompts, seed, batch, tries,
        EVERYTHING if keep_all else Rules(), Part.parse(part),
    )  # fmt: skip
    synthesis = Synthesis(request, material, face_of(verbose, quiet))
    with resumable(folder, "edgedistill " + shlex.join(sys.argv[1:])):
        if dry_run:
            show(preview_view(synthesis.preview()))
        else:
            show(outcome_view(synthesis.run(), synthesis.classes, folder))


@synth_app.command(
    "train", epilog="Example:  edgedistill synth train --data ./flowers --out flowers-generator"
)
def synth_train(
    out: Annotated[Path, typer.Option(help="Folder for the generator (new).")],
    data: Annotated[str, typer.Option(help="Images, as for build.")] = "builtin:fashion-mnist",
    side: Annotated[
        int | None, typer.Option(min=8, max=256, help="Side of its images [as yours, at most 64].")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of training.")] = None,
    batch: Annotated[int, typer.Option(min=2, max=4096, help="Images a step.")] = 128,
    lr: Annotated[float, typer.Option(min=1e-7, max=1, help="Peak rate (AdamW).")] = 1e-3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all randomness.")] = 0,
    max_train: Annotated[
        int | None, typer.Option(min=2, help="Use at most this many training images.")
    ] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train a generator on your own training images, for a domain that no hub model knows."""
    from edgedistill.pipeline import resumable
    from edgedistill.planning import require_parts
    from edgedistill.recipe import validate
    from edgedistill.synthtraining import TrainRequest, train_generator

    require_parts()
    tree: dict[str, Any] = {"data": {"source": data, "max_train": max_train}}
    section = validate(tree, "the command line").data
    face = face_of(verbose, quiet)
    with resumable(out, "edgedistill " + shlex.join(sys.argv[1:])):
        facts = train_generator(TrainRequest(section, out, side, steps, batch, lr, seed), face)
    if crew.leads():
        typer.echo(f"{out}  {facts['params']:,} parameters, {facts['passes']:,} image passes")


@synth_app.command("preview", epilog="Example:  edgedistill synth preview runs/flowers/synth")
def synth_preview(
    job: Annotated[Path, typer.Argument(help="The folder of synth run, or of a build.")],
) -> None:
    """Write a picture of kept and dropped images."""
    from edgedistill.synthchecks import preview

    typer.echo(str(preview(job)))


@synth_app.command(
    "verify", epilog="Example:  edgedistill synth verify runs/flowers/synth --generator stabilityai/sd-turbo"
)  # fmt: skip
def synth_verify(
    job: Annotated[Path, typer.Argument(help="The folder of synth run, or of a build.")],
    generator: Annotated[
        str | None, typer.Option(help="Its generator, to make a sample again.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Images that are made again.")] = 64,
    run: Annotated[
        Path | None, typer.Option(help="The run whose images variations begin with [found].")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which images these are.")] = 0,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Hold every image to the ledger, and make a sample again from its lines."""
    from edgedistill.synthchecks import check
    from edgedistill.synthview import checked_view

    found = check(job, generator, sample, seed, face_of(verbose, quiet), run)
    show(checked_view(found))
    if found.faults:
        raise typer.Exit(1)
