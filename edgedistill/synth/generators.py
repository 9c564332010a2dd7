"""What makes synthetic images, behind one seam: `ImageSource`.

text_to_image       any diffusers pipeline that `AutoPipelineForText2Image` knows: a hub id or a local folder
image_to_image      variations of training images (`AutoPipelineForImage2Image`), `strength` says how far
class_conditional   a small network that knows each class by number (`synth train`; no text, no hub)

Every image has a generator of random numbers of its own, on the CPU, so what it begins with does not depend on the
others. Its last bits do: a network's arithmetic changes with the size of the batch, which a job therefore keeps.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgedistill.errors import EdgedistillError, GeneratorError, StoppedError
from edgedistill.synth.naming import folder_of, places, shown
from edgedistill.synth.pipelines import (
    Making,
    folder_hash,
    licence_of,
    load_pipeline,
    require_diffusers,
    settle,
)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Wish:
    """One image that is asked for: its number in the job, class, prompt, seed, and what it begins with, if anything."""

    number: int
    label: int
    prompt: str
    seed: int
    start: Pixels | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class SourceFacts:
    """What is known of a generator. `sha256` is of a local folder's files, `revision` the commit of a hub; `None`: it
    has none. A `licence` of `None` is unknown.
    """

    kind: str
    model: str
    sha256: str | None
    revision: str | None
    licence: str | None
    pipeline: str
    scheduler: str
    steps: int
    guidance: float
    device: str
    precision: str


class ImageSource(Protocol):
    """The seam: what makes synthetic images."""

    facts: SourceFacts

    def make(self, wishes: Sequence[Wish]) -> list[Pixels]:
        """One image (H, W, 3) for each wish, in order. The same wishes in the same batch give the same bytes."""


class FakeSource:
    """Stands for a generator in tests: noise whose mean tells the class, made of the seed alone."""

    def __init__(self, side: int = 16, classes: int = 10) -> None:
        self.side, self.classes = side, classes
        self.facts = SourceFacts(
            "fake", "fake", None, None, None, "FakeSource", "none", 1, 1.0, "cpu", "float32"
        )

    def make(self, wishes: Sequence[Wish]) -> list[Pixels]:
        """Grey of the class with noise on it, (side, side, 3)."""
        found = []
        for wish in wishes:
            rng = np.random.default_rng(wish.seed)
            level = 255 * (wish.label + 0.5) / self.classes
            noise = rng.normal(level, 8, (self.side, self.side, 3))
            found.append(np.clip(noise, 0, 255).astype(np.uint8))
        return found


class DiffusersSource:
    """A diffusers pipeline. Raises `GeneratorError` in one paragraph for what cannot be loaded or used."""

    def __init__(self, making: Making, classes: Sequence[str]) -> None:
        require_diffusers()
        self.making = making
        self.pipe, revision = load_pipeline(making)
        self.places: list[int] = []
        if making.kind == "class_conditional":
            known = list(self.pipe.config.classes)
            self.places = places(shown(making.model), known, classes)
        self.device, self.precision = settle(self.pipe)
        self.takes = set(inspect.signature(type(self.pipe).__call__).parameters)
        steps = making.steps or self._default("num_inference_steps", 50)
        guidance = making.guidance
        if guidance is None:
            guidance = self._default("guidance_scale", 1.0)
        local = folder_of(making.model)
        self.facts = SourceFacts(
            kind=making.kind,
            model=shown(making.model),
            sha256=folder_hash(local) if local else None,
            revision=revision,
            licence=licence_of(making, revision),
            pipeline=type(self.pipe).__name__,
            scheduler=type(self.pipe.scheduler).__name__,
            steps=int(steps),
            guidance=float(guidance),
            device=str(self.device),
            precision=self.precision,
        )

    def _default(self, name: str, otherwise: float) -> Any:
        found = inspect.signature(type(self.pipe).__call__).parameters.get(name)
        usable = found is not None and isinstance(found.default, int | float)
        return found.default if found is not None and usable else otherwise

    def make(self, wishes: Sequence[Wish]) -> list[Pixels]:
        """One image (H, W, 3) for each wish, in one batch."""
        import torch

        generators = [torch.Generator("cpu").manual_seed(wish.seed) for wish in wishes]
        given: dict[str, Any] = {
            "num_inference_steps": self.facts.steps,
            "guidance_scale": self.facts.guidance,
            "generator": generators,
            "output_type": "np",
            **self._asked(wishes),
        }
        taken = {name: value for name, value in given.items() if name in self.takes}
        try:
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = self.pipe(**taken).images
        except Exception as error:  # each pipeline has checks and errors of its own
            raise _refused(self.facts.model, len(wishes), error) from error
        return [
            _pixels(image, wish.number, self.facts.model)
            for image, wish in zip(made, wishes, strict=True)
        ]

    def _asked(self, wishes: Sequence[Wish]) -> dict[str, Any]:
        """What the pipeline is asked for: classes or prompts, images to begin with, the size."""
        making = self.making
        if making.kind == "class_conditional":
            return {"class_labels": [self.places[wish.label] for wish in wishes]}
        asked: dict[str, Any] = {"prompt": [wish.prompt for wish in wishes]}
        if making.negative and self.facts.guidance > 1:
            asked["negative_prompt"] = [making.negative] * len(wishes)
        if making.kind == "text_to_image":
            return asked | ({"height": making.size, "width": making.size} if making.size else {})
        return asked | {"image": _starts(wishes, making.size), "strength": making.strength}


def open_source(making: Making, classes: Sequence[str]) -> ImageSource:
    """The generator that `making` names, ready for images of `classes`."""
    return DiffusersSource(making, classes)


def _starts(wishes: Sequence[Wish], size: int | None) -> list[Any]:
    from PIL import Image

    found = []
    for wish in wishes:
        assert wish.start is not None, "an image to begin with"
        image = Image.fromarray(wish.start)
        found.append(image.resize((size, size), Image.Resampling.BICUBIC) if size else image)
    return found


def _refused(model: str, images: int, error: Exception) -> EdgedistillError:
    """What a pipeline that raised `error` means to a person."""
    from edgedistill.nets import is_out_of_memory

    if is_out_of_memory(error):
        return StoppedError(
            f"{images} images at once of {model} do not fit into memory. Give a smaller --batch (for a job that is "
            "begun, with another folder), a smaller --size, or close other programs."
        )
    text = " ".join(str(error).split())[:300]
    return GeneratorError(
        f"the generator {model} cannot make what it was asked for ({type(error).__name__}: {text}). Mend the settings "
        "(--size, --steps, --strength, --guidance), or take another model; what was made is kept."
    )


def _pixels(image: npt.NDArray[np.floating[Any]], number: int, model: str) -> Pixels:
    """Pixels (H, W, 3) of an image (H, W, 1 or 3) in 0..1. Raises `GeneratorError` for numbers that are none."""
    if not np.isfinite(image).all():
        raise GeneratorError(
            f"the generator {model} made numbers that are no pixels (NaN) for image {number}. It may not bear "
            "half precision, or its weights are damaged; try other settings (steps, guidance) or another model."
        )
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
