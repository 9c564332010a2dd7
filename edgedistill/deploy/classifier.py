"""A trained classifier as it is exported: a network with its weights, how it sees an image, and its classes' names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from ontarget.facts import Preprocess
from torch import nn

from edgedistill.errors import TeacherError, UsageError, nearest
from edgedistill.nets import Look
from edgedistill.recipe import TeacherSection
from edgedistill.teacher.bundled import bundled_names
from edgedistill.teacher.hub import load_pretrained
from edgedistill.teacher.pretrained import one_line

FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
LOCAL = ("local-dir:", "bundled:")
PREFIXES = (*LOCAL, "hf-hub:")
ALLOWED = (
    "Allowed: a run folder (runs/NAME), local-dir:FOLDER, hf-hub:OWNER/NAME, bundled:NAME, a timm name, or a "
    f"checkpoint file ({', '.join(FILES)}) with --model TIMM_NAME."
)


@dataclass(frozen=True)
class Sight:
    """What a person says of how a network sees an image; `None` is what the checkpoint says. Sizes in pixels."""

    input_size: int | None = None
    resize: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Classifier:
    """A network in evaluation mode on the CPU; `name` is timm's, `title` that of the bundle.

    `labels` are the names of its classes in the order of its outputs, `None` where it does not say.
    """

    model: nn.Module
    name: str
    title: str
    preprocess: Preprocess
    classes: int
    labels: tuple[str, ...] | None
    licences: Mapping[str, str | None]
    notes: tuple[str, ...] = ()


def section_of(model: str, architecture: str | None, licence: str | None = None) -> TeacherSection:
    """What to load for a name or a path. Raises `UsageError` for what is neither."""
    path = Path(model).expanduser()
    if path.suffix in FILES or path.is_file():
        return _file(path, architecture, licence)
    if architecture is not None:
        raise UsageError(
            f"--model says what network a checkpoint file holds, and {model} is no such file ({', '.join(FILES)}). "
            "Leave --model out, or give the file."
        )
    if path.is_dir() and (path / "config.json").is_file():
        model = f"local-dir:{path}"
    elif path.is_dir():
        raise UsageError(
            f"{model} is a folder that is neither a run (recipe.yaml, stages/) nor a model as timm saves it "
            f"(config.json, model.safetensors). {ALLOWED}"
        )
    elif not model.startswith(PREFIXES) and not timm.is_model(model):
        hint = nearest(model, [*timm.list_models(), *bundled_names()]) or "."
        raise UsageError(f'unknown model "{model}"{hint} {ALLOWED}')
    return TeacherSection(model=model, licence=licence)


def _file(path: Path, architecture: str | None, licence: str | None) -> TeacherSection:
    if path.suffix not in FILES:
        raise UsageError(f"{path} is no checkpoint file. {ALLOWED}")
    if not path.is_file():
        raise UsageError(f"checkpoint {path} does not exist. {ALLOWED}")
    if architecture is None:
        raise UsageError(
            f"{path} holds weights and does not say of which network: give its timm name with --model TIMM_NAME."
        )
    if not timm.is_model(architecture):
        hint = nearest(architecture, timm.list_models()) or "."
        raise UsageError(
            f'unknown model "{architecture}"{hint} Give the timm name that {path} was saved from.'
        )
    return TeacherSection(model=architecture, weights=str(path), licence=licence)


def load_classifier(section: TeacherSection, sight: Sight) -> Classifier:
    """The classifier that `section` names, with its weights.

    Raises `UsageError` and `TeacherError`: it cannot be loaded, is no classifier of RGB images, or not of the size that
    `sight` asks for.
    """
    try:
        found = load_pretrained(section)
    except TeacherError as error:
        if section.weights is not None or section.model.startswith(LOCAL):
            raise
        raise UsageError(
            f"{error} To export a file of your own, give it in the place of the name, with --model {section.model}."
        ) from None
    net: Any = found.model
    cfg, name = dict(net.pretrained_cfg), found.architecture
    height = int(cfg.get("input_size", (3, found.size, found.size))[-2])
    if height != found.size and sight.input_size is None:
        raise UsageError(
            f"{name} was made for images of {found.size} x {height} px, and a bundle takes square ones: "
            "give --input-size."
        )
    if found.fixed_size and sight.input_size not in (None, found.size):
        raise UsageError(
            f"{name} takes images of {found.size} px and no others; got --input-size {sight.input_size}."
        )
    notes = [found.note] if found.note else []
    mode, method = cfg.get("crop_mode") or "center", cfg.get("interpolation") or "bicubic"
    if mode != "center":
        notes.append(f"it was evaluated on images cropped by {mode}; the kit crops the centre")
    if method != "bicubic":
        notes.append(f"it was evaluated on images resized by {method}; the kit resizes bicubic")
    return seen_as(
        found.model, name, Look(found.size, found.mean, found.std), float(cfg.get("crop_pct") or 1), sight,
        labels=found.labels, licences={"teacher": None, "student": found.origin.licence, "data": None},
        title=name, notes=notes,
    )  # fmt: skip


def seen_as(
    model: nn.Module,
    name: str,
    look: Look,
    crop_share: float,
    sight: Sight,
    *,
    labels: tuple[str, ...] | None,
    licences: Mapping[str, str | None],
    title: str,
    notes: Sequence[str] = (),
) -> Classifier:
    """A network that sees images as `look` and `sight` say; `crop_share` of the resized side is left by the crop.

    Raises `UsageError` where it cannot, or is no classifier.
    """
    crop = sight.input_size or look.size
    resize = sight.resize or max(crop, math.floor(crop / crop_share))
    std = sight.std or look.std
    if resize < crop:
        raise UsageError(
            f"--resize {resize} is less than the input size, {crop} px: the centre of {crop} px is cut out after."
        )
    if min(std) <= 1e-6:
        raise UsageError(f"--std takes three numbers above 0; got {std}")
    net: Any = model.cpu().float().eval()
    shape, classes = _answer(net, name, crop), int(getattr(net, "num_classes", 0))
    if classes < 2 or shape != (1, classes):
        raise UsageError(
            f"{name} is no classifier: of one image it makes an output of shape {shape} for {classes} classes, and a "
            "classifier gives one number for each of two or more. Give a checkpoint with its head."
        )
    preprocess = Preprocess(resize, crop, sight.mean or look.mean, std)
    return Classifier(net, name, title, preprocess, classes, labels, licences, tuple(notes))


def _answer(net: nn.Module, name: str, size: int) -> tuple[int, ...]:
    """The shape of what a network makes of one image."""
    try:
        with torch.inference_mode():
            out = net(torch.zeros(1, 3, size, size))
    except Exception as error:  # each architecture refuses in its own way
        raise UsageError(
            f"{name} cannot take an RGB image of {size} x {size} px ({one_line(error)}). A bundle takes square RGB "
            "images; give the size that the network was made for with --input-size."
        ) from None
    return tuple(out.shape) if isinstance(out, torch.Tensor) else ()
