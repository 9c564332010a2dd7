"""What a recipe that asks for synthetic images leaves open: how many, by which generator, and how they come in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgedistill.derive import Values
from edgedistill.errors import UsageError
from edgedistill.recipe import Recipe
from edgedistill.synth.naming import FOR_DATA, classes_of, folder_of, kind_of, places
from edgedistill.synth.pipelines import check_folder, require_diffusers
from edgedistill.synth.prompts import book_for

FEW, TIMES = 200, 2
"""Real images of a class below which synthetic ones are added where nobody says how many, and how many times as many.
With 20, 50 and 100 images of a class twice as many added 4.6, 2.0 and 0.4 points, with 500 they took 0.4
(docs/results.md)."""
MOST_SHARE = 0.5
"""Of a batch: beyond it a student sees too little of the real images."""


def synth_values(recipe: Recipe, images: int, classes: int) -> Values:
    """Every open value of `synth`, for `images` labelled training images. Raises `UsageError` without a generator."""
    section, values = recipe.synth, Values()
    count = section.images
    if count == "auto":
        each = images // max(1, classes)
        values["synth.images"] = (
            (TIMES * images, f"{each:,} images of a class are few: {TIMES} times as many")
            if each < FEW
            else (0, f"{each:,} images of a class are enough")
        )
        count = values["synth.images"][0]
    generator = section.generator
    if count and generator is None:
        generator = generator_for(recipe.data.source)
        values["synth.generator"] = (generator, "trained on other images of the same kind")
    if section.kind == "auto":
        kind = kind_of(generator) if count and generator else "text_to_image"
        values["synth.kind"] = (kind, "what the generator is" if count else "no synthetic images")
    if section.share == "auto":
        share = min(MOST_SHARE, count / max(1, count + images)) or MOST_SHARE
        values["synth.share"] = (
            float(f"{share:.3g}"),
            "as many as they are, at most half of a batch",
        )
    return values


def generator_for(source: str) -> str:
    """The generator for images of `source` where none is named. Raises `UsageError` where there is none."""
    if (name := FOR_DATA.get(source)) is not None:
        return name
    raise UsageError(
        "no generator is named for synthetic images. Give a folder that diffusers' save_pretrained wrote, or the id of "
        "a diffusers model on a hub (--generator stabilityai/sd-turbo), or train one on your images:  "
        "edgedistill synth train"
    )


def check_generator(recipe: Recipe) -> None:
    """Raise the error of a generator that is not there or is none, before anything is done for it.

    A model of a hub is looked at when it is loaded; whether `auto` needs one at all is known with the images.
    """
    section = recipe.synth
    name = section.generator
    if not section.images or (name is None and section.images == "auto"):
        return
    name = name or generator_for(recipe.data.source)
    require_diffusers()
    if (folder := folder_of(name)) is not None:
        check_folder(folder, kind_of(name) if section.kind == "auto" else section.kind)
    if section.prompts is not None and not Path(section.prompts).is_file():
        raise UsageError(f"synth.prompts: the file {section.prompts} does not exist")


def check_classes(recipe: Recipe, classes: Sequence[str]) -> None:
    """Raise the error of prompts or of a local generator that do not know the classes. The recipe is resolved."""
    section = recipe.synth
    if not section.images or section.generator is None:
        return
    if section.kind != "class_conditional":
        prompts = Path(section.prompts) if section.prompts is not None else None
        book_for(classes, section.domain, prompts)
    elif known := classes_of(section.generator):
        places(section.generator, known, classes)
