"""A diffusers pipeline out of a folder or a hub: what it must be, how it is loaded, and where it runs."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgedistill.errors import GeneratorError, MissingExtraError
from edgedistill.files import sha256_file
from edgedistill.synth.naming import CLASS_PIPELINE, INDEX, Kind, folder_of

WEIGHTS = (".safetensors", ".bin", ".json", ".txt", ".model")
"""Endings of the files of a pipeline that its images depend on."""
ROOM = 1.3
"""A pipeline is held on a GPU whole where its weights fit into the free memory this many times."""


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


def load_pipeline(making: Making) -> tuple[Any, str | None]:
    """The pipeline and the commit of a hub. Raises `GeneratorError`."""
    import diffusers
    import torch

    name, folder = making.model, folder_of(making.model)
    if folder is not None:
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe = classes[making.kind].from_pretrained(
                folder or name, torch_dtype=dtype, revision=making.revision
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


def require_diffusers() -> None:
    """Raise `MissingExtraError` where what makes images is not installed."""
    if any(find_spec(name) is None for name in ("diffusers", "torch", "transformers")):
        raise MissingExtraError("synthetic images", "synth")


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of a pipeline's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in WEIGHTS:
            digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def licence_of(making: Making, revision: str | None) -> str | None:
    """The licence that was given, or that the card of the folder or of the hub states; `None` is unknown."""
    if making.licence is not None:
        return making.licence
    from huggingface_hub import ModelCard, hf_hub_download

    folder = folder_of(making.model)
    try:
        card = (
            Path(hf_hub_download(making.model, "README.md", revision=revision))
            if folder is None
            else folder / "README.md"
        )
        found: Any = ModelCard.load(card).data
        return str(found.license) if found.license else None
    except Exception:  # a model without a readable card has no known licence
        return None


def _commit(pipe: Any) -> str | None:
    """The commit of a hub's snapshot, which its cache names a folder after."""
    path = Path(str(pipe.config.get("_name_or_path", "")))
    return path.name if path.parent.name == "snapshots" else None


def settle(pipe: Any) -> tuple[Any, str]:
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
