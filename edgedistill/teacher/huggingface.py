"""Teachers of Hugging Face transformers: image classifiers, and vision backbones under a linear head of ours.

What the features (B, D) are:

any ...ForImageClassification   what its last linear layer reads; that layer is the head, so logits are its own
ViT, DeiT                       the class token after the last norm; their pooler is seldom pretrained
CLIP                            the class token before the projection, as its authors probe it (Radford et al. 2021)
SigLIP, SigLIP 2                the output of its attention pooling
DINOv2, DINOv3                  the class token after the last norm
any other                       `pooler_output` where there is one, else the mean over tokens or pixels

Weights are read from safetensors, or with `weights_only`; code from a hub is never run.
"""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgedistill.errors import MissingExtraError, TeacherError
from edgedistill.nets import count_params
from edgedistill.recipe import TeacherSection
from edgedistill.teacher.pretrained import (
    Origin,
    Pretrained,
    hub_origin,
    names_of,
    one_line,
    unreachable,
)
from edgedistill.teacher.processor import Eye, eye_of
from edgedistill.teacher.tower import CLASS_TOKEN, Tower, features_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

PREFIX = "hf:"
CLASSIFIER = "ForImageClassification"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
SAME = 1e-4
"""Largest difference of the model's own logits and those of its head moved to us, relative to the largest logit."""


def load_hf(section: TeacherSection) -> Pretrained:
    """The model that `hf:...` names, with its weights. Raises `TeacherError`, or `MissingExtraError`."""
    _require()
    name, place, revision, origin = _place(section)
    with _quiet():
        try:
            config, eye = _described(place, revision)
            cls, config = _class_of(name, config)
            body = _weights(name, cls, config, place, revision)
            tower = _tower(name, body.float().eval(), eye)
            fixed = _is_fixed(cls, config, eye)
        except TeacherError:
            raise
        except Exception as error:  # transformers lets through whatever a damaged folder causes
            raise _failed(name, place, error) from None
    names = [getattr(config, "id2label", {}).get(i) for i in range(tower.num_classes)]
    labels = names_of(names, tower.num_classes)
    if all(label == f"LABEL_{i}" for i, label in enumerate(labels or ())):
        labels = None
    return Pretrained(
        model=tower,
        architecture=cls.__name__,
        origin=origin,
        mean=eye.mean,
        std=eye.std,
        size=eye.size,
        fixed_size=fixed,
        features=tower.num_features,
        classes=tower.num_classes,
        params=count_params(tower),
        rebuild={
            "config": _bare(config),
            "removed": tower.removed,
            "width": tower.num_features,
            "eye": vars(eye),
        },
        kind="hf",
        labels=labels,
        note=eye.note,
    )


def hf_shape(section: TeacherSection) -> tuple[int, bool]:
    """Native size in pixels, and whether it takes no other, from its small files alone."""
    _require()
    name, place, revision, _ = _place(section)
    with _quiet():
        try:
            config, eye = _described(place, revision)
            return eye.size, _is_fixed(*_class_of(name, config), eye)
        except TeacherError:
            raise
        except Exception as error:
            raise _failed(name, place, error) from None


def rebuild_hf(facts: Mapping[str, Any]) -> nn.Module:
    """The network of a finished stage without its weights; `facts` are `architecture`, `classes` and `rebuild`."""
    import transformers

    _require()
    about = facts["rebuild"]
    cls = getattr(transformers, str(facts["architecture"]))
    with _quiet():
        body = cls(cls.config_class.from_dict(about["config"]), **_no_pooler(cls)).eval()
    if about["removed"]:
        body.set_submodule(about["removed"], nn.Identity())
    tower = Tower(body, about["removed"], int(about["width"]), Eye(**about["eye"]))
    tower.reset_classifier(int(facts["classes"]))
    return tower


def _require() -> None:
    if find_spec("transformers") is None:
        raise MissingExtraError("a teacher of Hugging Face transformers (hf:)", "hf")


def _place(section: TeacherSection) -> tuple[str, str, str | None, Origin]:
    """Name, folder or repository, commit, and origin of what a section names."""
    name = section.model
    path = name.removeprefix(PREFIX)
    if path.startswith((".", "/", "~")) or Path(path).is_dir():
        folder = Path(path).expanduser()
        if not (folder / "config.json").is_file():
            raise TeacherError(
                f"{name}: {folder} is no model folder of transformers: it has no config.json. "
                "A folder holds config.json and model.safetensors, as save_pretrained writes them."
            )
        return name, str(folder), None, Origin(name, None, section.licence)
    repo, _, pinned = path.partition("@")
    revision = section.revision or pinned or None
    try:
        origin, _ = hub_origin("hf", repo, revision, section.licence)
    except Exception as error:  # the hub's client raises many kinds, none of them ours
        raise unreachable(name, error, "give a local folder as hf:./folder") from None
    return name, repo, origin.revision or revision, origin


def _described(place: str, revision: str | None) -> tuple[PretrainedConfig, Eye]:
    """The model's configuration, and what its image processor does to pixels."""
    from transformers import AutoConfig
    from transformers.utils import cached_file

    config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
    processor: dict[str, Any] = {}
    for file in PROCESSORS:
        found = cached_file(
            place, file, revision=revision, _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )  # fmt: skip
        if found is not None and not processor:
            read = json.loads(Path(found).read_text("utf-8"))
            processor = dict(read.get("image_processor", read if file == PROCESSORS[0] else {}))
    return config, eye_of(processor, config)


def _class_of(
    name: str, config: PretrainedConfig
) -> tuple[type[PreTrainedModel], PretrainedConfig]:
    """The classifier that the config says it is, else the vision model of its family."""
    import transformers
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        MODEL_MAPPING,
    )

    if config.model_type.startswith("timm"):
        raise TeacherError(
            f"{name} is a model of timm: give it as hf-hub:owner/model or local-dir:folder"
        )
    known = {
        cls
        for entry in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()
        for cls in (entry if isinstance(entry, tuple) else (entry,))
    }
    for architecture in config.architectures or []:
        if architecture in known and architecture.endswith(CLASSIFIER):
            return getattr(transformers, architecture), config
    config = getattr(config, "vision_config", config)
    cls = MODEL_MAPPING.get(type(config), None)
    if isinstance(cls, tuple):
        cls = cls[0]
    if cls is None or cls.main_input_name != "pixel_values":
        raise TeacherError(
            f'{name} is no model of images: its config says "{config.model_type}". Give an image '
            "classifier, or a vision backbone such as DINOv2, SigLIP, CLIP or ViT."
        )
    return cls, config


def _no_pooler(cls: type[Any]) -> dict[str, Any]:
    """ViT's pooler is not used, so it is not built."""
    takes = "add_pooling_layer" in inspect.signature(cls.__init__).parameters
    token = cls.config_class.model_type in CLASS_TOKEN
    return {"add_pooling_layer": False} if takes and token else {}


def _weights(
    name: str,
    cls: type[PreTrainedModel],
    config: PretrainedConfig,
    place: str,
    revision: str | None,
) -> PreTrainedModel:
    """The model with its weights; a tensor that its files do not have is an error, and never a random number."""
    body, info = cls.from_pretrained(
        place, config=config, revision=revision, trust_remote_code=False, weights_only=True,
        output_loading_info=True, **_no_pooler(cls),
    )  # fmt: skip
    amiss = sorted([*map(str, info["missing_keys"]), *map(str, info["mismatched_keys"])])
    if amiss:
        raise TeacherError(
            f"{name} does not hold the weights of {cls.__name__}: {len(amiss)} tensors are missing or of "
            f"another shape ({', '.join(amiss[:3])}). Give a model whose files are whole."
        )
    return body


def _tower(name: str, body: nn.Module, eye: Eye) -> Tower:
    """The model behind timm's interface, tried on one random image. Raises `TeacherError` where that cannot be."""
    x = torch.randn(1, 3, eye.size, eye.size, generator=torch.Generator().manual_seed(0))
    want = _ask(body, x)
    if not torch.equal(want, _ask(body, x)):
        raise TeacherError(f"{name} cannot teach: it says something else each time it is asked")
    if not type(body).__name__.endswith(CLASSIFIER):
        return Tower(body, "", want.shape[1], eye)
    for path, layer in reversed(list(body.named_modules())):
        if not isinstance(layer, nn.Linear) or layer.out_features != want.shape[1]:
            continue
        body.set_submodule(path, nn.Identity())
        features = _ask(body, x)
        if features.shape[1] == layer.in_features:
            with torch.inference_mode():
                off = float((layer(features) - want).abs().max())
            if off <= SAME * float(want.abs().max()):
                return _headed(Tower(body, path, layer.in_features, eye), layer)
        body.set_submodule(path, layer)
    raise TeacherError(
        f"{name} cannot teach here: its classifier is not one linear layer on pooled features. "
        "Take a backbone without a classifier, or another architecture."
    )


def _ask(body: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return features_of(body, x)


def _headed(tower: Tower, layer: nn.Linear) -> Tower:
    """The tower with its own last layer as the head; one without a bias gets zeros."""
    tower.reset_classifier(layer.out_features)
    head: Any = tower.head
    with torch.no_grad():
        head.weight.copy_(layer.weight)
        head.bias.zero_() if layer.bias is None else head.bias.copy_(layer.bias)
    return tower


def _is_fixed(cls: type[Any], config: PretrainedConfig, eye: Eye) -> bool:
    """Whether images of another size than the native one are refused; tried on shapes alone, without weights."""
    other = 2 * eye.size if eye.size < 64 else eye.size // 64 * 32
    try:
        with torch.device("meta"):
            features_of(cls(config, **_no_pooler(cls)).eval(), torch.empty(1, 3, other, other))
    except Exception:  # each architecture refuses in its own way
        return True
    return False


def _bare(config: PretrainedConfig) -> dict[str, Any]:
    """The configuration as JSON, without the names of classes, which may be thousands."""
    found: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    names = (
        "id2label",
        "label2id",
        "_name_or_path",
        "transformers_version",
        "dtype",
        "torch_dtype",
    )
    return {key: value for key, value in found.items() if key not in names}


def _failed(name: str, place: str, error: Exception) -> TeacherError:
    """What transformers could not do with a folder or a repository, in one paragraph."""
    if Path(place).is_dir():
        return TeacherError(
            f"{name} cannot be loaded ({one_line(error)}). A folder holds config.json, model.safetensors and "
            "preprocessor_config.json, as save_pretrained writes them; code in it is never run."
        )
    return unreachable(name, error, "give a local folder as hf:./folder")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the bars and reports of transformers off the screen."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
