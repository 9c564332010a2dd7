"""What makes synthetic images, behind one seam: `ImageSource`.

text_to_image       any diffusers pipeline that `AutoPipelineForText2Image` knows: a hub id or a local folder
image_to_image      variations of training images (`AutoPipelineForImage2Image`), `strength` says how far
class_conditional   a small network that knows each class by number (`synth train`; no text, no hub)

Every image has a generator of random numbers of its own, on the CPU, so what it begins with does not depend on the
others. Its last bits do: a network's arithmetic changes with the size of the batch, which a job therefore keeps.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from edgedistill.errors import GeneratorError, MissingExtraError
from edgedistill.files import sha256_file

Pixels = npt.NDArray[np.uint8]
Kind = Literal["text_to_image", "image_to_image", "class_conditional"]
INDEX = "model_index.json"
CLASS_PIPELINE = "ClassConditionalPipeline"
WEIGHTS = (".safetensors", ".bin", ".json", ".txt", ".model")
"""Endings of the files of a pipeline that its images depend on."""
ROOM = 1.3
"""A pipeline is held on a GPU whole where its weights fit into the free memory this many times."""


@dataclass(frozen=True)
class Wish:
    """One image that is asked for: its number in the job, class, prompt, seed, and what it begins with, if anything."""

    number: int
    label: int
    prompt: str
    seed: int
    start: Pixels | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Making:
    """How a generator is used; `None` is what its pipeline has as a default. `size` is the side in pixels."""

    kind: Kind
    model: str
    revision: str | None = None
    steps: int | None = None
    guidance: float | None = None
    strength: float = 0.6
    size: int | None = None
    scheduler: str | None = None
    negative: str = ""
    licence: str | None = None


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
        if not _installed():
            raise MissingExtraError("making synthetic images", "synth")
        self.making = making
        self.pipe, revision = _load(making)
        if making.kind == "class_conditional":
            _check_classes(making.model, list(self.pipe.config.classes), classes)
        self.device, self.precision = _settle(self.pipe)
        self.takes = set(inspect.signature(type(self.pipe).__call__).parameters)
        steps = making.steps or self._default("num_inference_steps", 50)
        guidance = making.guidance
        if guidance is None:
            guidance = self._default("guidance_scale", 1.0)
        local = Path(making.model)
        self.facts = SourceFacts(
            kind=making.kind,
            model=local.name if local.is_dir() else making.model,
            sha256=folder_hash(local) if local.is_dir() else None,
            revision=revision,
            licence=making.licence,
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
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # black images in place of NaN would hide what went wrong
            made = self.pipe(**{k: v for k, v in given.items() if k in self.takes}).images
        return [
            _pixels(image, wish.number, self.facts.model)
            for image, wish in zip(made, wishes, strict=True)
        ]

    def _asked(self, wishes: Sequence[Wish]) -> dict[str, Any]:
        """What the pipeline is asked for: classes or prompts, images to begin with, the size."""
        making = self.making
        if making.kind == "class_conditional":
            return {"class_labels": [wish.label for wish in wishes]}
        asked: dict[str, Any] = {"prompt": [wish.prompt for wish in wishes]}
        if making.negative and self.facts.guidance > 1:
            asked["negative_prompt"] = [making.negative] * len(wishes)
        if making.kind == "text_to_image":
            return asked | ({"height": making.size, "width": making.size} if making.size else {})
        return asked | {"image": _starts(wishes, making.size), "strength": making.strength}


def open_source(making: Making, classes: Sequence[str]) -> ImageSource:
    """The generator that `making` names, ready for images of `classes`."""
    return DiffusersSource(making, classes)


def _installed() -> bool:
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in ("diffusers", "torch", "transformers"))


def _load(making: Making) -> tuple[Any, str | None]:
    """The pipeline and the commit of a hub. Raises `GeneratorError`."""
    import diffusers
    import torch

    name = making.model
    folder = Path(name)
    if folder.exists() or name.startswith((".", "/", "~")):
        check_folder(folder, making.kind)
    classes: dict[str, Any] = {
        "text_to_image": diffusers.AutoPipelineForText2Image,
        "image_to_image": diffusers.AutoPipelineForImage2Image,
    }
    if making.kind == "class_conditional":
        from edgedistill.synth.conditional import ClassConditionalPipeline

        classes["class_conditional"] = ClassConditionalPipeline
    dtype = torch.float16 if torch.cuda.is_available() else torch.float32
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    try:
        pipe = classes[making.kind].from_pretrained(
            name, torch_dtype=dtype, revision=making.revision
        )
        if making.scheduler is not None:
            pipe.scheduler = getattr(diffusers, making.scheduler).from_config(pipe.scheduler.config)
    except Exception as error:  # diffusers and the hub's client raise many kinds, none of them ours
        text = " ".join(str(error).split())[:300]
        raise GeneratorError(
            f"the generator {name} cannot be loaded ({type(error).__name__}: {text}). Give a folder that "
            "diffusers' save_pretrained wrote, or the id of a diffusers model on the Hugging Face hub "
            "(with a network, or in its cache)."
        ) from None
    pipe.set_progress_bar_config(disable=True)
    return pipe, _commit(pipe)


def check_folder(folder: Path, kind: str) -> None:
    """Raise `GeneratorError` for a folder that holds no pipeline, or one of another kind."""
    need = "A generator's folder holds model_index.json, as diffusers' save_pretrained writes it."
    if not folder.is_dir():
        raise GeneratorError(f"the generator {folder} is no folder that exists. {need}")
    try:
        index = json.loads((folder / INDEX).read_text("utf-8"))
        name = index["_class_name"]
    except FileNotFoundError:
        raise GeneratorError(
            f"the folder {folder} is no generator: it has no {INDEX}. {need}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise GeneratorError(f"{folder / INDEX} cannot be read ({error}). {need}") from None
    by_class = name == CLASS_PIPELINE
    if by_class != (kind == "class_conditional"):
        what = "knows classes by number" if by_class else f"is a {name}"
        wanted = "class_conditional" if by_class else "text_to_image or image_to_image"
        raise GeneratorError(f"the generator {folder} {what}, so its kind is {wanted}, not {kind}.")


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of a pipeline's files."""
    import hashlib

    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in WEIGHTS:
            digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _commit(pipe: Any) -> str | None:
    """The commit of a hub's snapshot, which its cache names a folder after."""
    path = Path(str(pipe.config.get("_name_or_path", "")))
    return path.name if path.parent.name == "snapshots" else None


def _check_classes(model: str, known: list[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in known]
    if missing or known != list(wanted):
        shown = ", ".join(known[:20])
        raise GeneratorError(
            f"the generator {model} makes other classes than the images have"
            + (f": it does not know {', '.join(missing[:5])}" if missing else "")
            + f". Its classes: {shown}. Train one on your images:  edgedistill synth train"
        )


def _settle(pipe: Any) -> tuple[Any, str]:
    """Put a pipeline where it runs best; device and precision. Parts that do not fit on the GPU wait in memory."""
    import torch

    from edgedistill.nets import pick_device

    device = pick_device()
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    precision = str(next(p.dtype for part in parts for p in part.parameters())).removeprefix(
        "torch."
    )
    if device.type == "cuda":
        weights = sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
        free, _ = torch.cuda.mem_get_info()
        if weights * ROOM > free:
            pipe.enable_model_cpu_offload()
            pipe.enable_attention_slicing()
            return device, precision
    pipe.to(device)
    return device, precision


def _starts(wishes: Sequence[Wish], size: int | None) -> list[Any]:
    from PIL import Image

    found = []
    for wish in wishes:
        assert wish.start is not None, "an image to begin with"
        image = Image.fromarray(wish.start)
        found.append(image.resize((size, size), Image.Resampling.BICUBIC) if size else image)
    return found


def _pixels(image: npt.NDArray[np.floating[Any]], number: int, model: str) -> Pixels:
    """Pixels (H, W, 3) of an image (H, W, 1 or 3) in 0..1. Raises `GeneratorError` for numbers that are none."""
    if not np.isfinite(image).all():
        raise GeneratorError(
            f"the generator {model} made numbers that are no pixels (NaN) for image {number}. It may not bear "
            "half precision, or its weights are damaged; try other settings (steps, guidance) or another model."
        )
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
