"""Stored targets: the teacher's features and logits for exactly the views that the student sees.

One safetensors file a view, written whole or not at all, so that a killed run goes on at the next view. A record is
never used for a view that it was not made from: the file says seed, view and crop rule, and reading checks them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from edgedistill.errors import DocumentError, TeacherError
from edgedistill.nets import Cut, Ints, forward, inference

ABOUT = "about"


def view_file(view: int) -> str:
    """Name of the file of one view."""
    return f"view-{view:04d}.safetensors"


def store_view(
    model: nn.Module,
    cut: Cut,
    images: int,
    view: int,
    about: dict[str, str],
    device: torch.device,
    advance: Callable[[int], None],
    batch: int = 128,
) -> bytes:
    """Features (N, D) in float16 and logits (N, C) in float32 of one view of all images, as safetensors bytes.

    Raises `TeacherError` when the teacher gives a number that is not finite.
    """
    model.eval()
    features: list[Tensor] = []
    logits: list[Tensor] = []
    with inference(device, fast=True):
        for start in range(0, images, batch):
            index = np.arange(start, min(start + batch, images), dtype=np.int64)
            f, z = forward(model, cut(index, view))
            features.append(f.half().cpu())
            logits.append(z.float().cpu())
            advance(len(index))
    tensors = {"features": torch.cat(features), "logits": torch.cat(logits)}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise TeacherError(
                f"the teacher gives {name} that are not finite for view {view}; "
                "take another teacher, or another checkpoint of it"
            )
    own = {"view": str(view), "sha256": _digest(tensors["features"], tensors["logits"])}
    # one key, as safetensors writes several in no fixed order
    return save_tensors(tensors, metadata={ABOUT: json.dumps({**about, **own}, sort_keys=True)})


def _digest(features: Tensor, logits: Tensor) -> str:
    """SHA-256 of the numbers: safetensors itself has no check, and a record may be too large for the stage's own."""
    digest = hashlib.sha256()
    for tensor in (features, logits):
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).data)
    return digest.hexdigest()


class StoredTargets:
    """Reads the stored outputs of a stage folder; holds one view in memory at a time."""

    def __init__(self, folder: Path, about: dict[str, str], images: int) -> None:
        self.folder, self.about, self.images = folder, about, images
        self.view = -1
        self.features = torch.empty(0)
        self.logits = torch.empty(0)

    def __call__(self, view: int, index: Ints) -> tuple[Tensor, Tensor]:
        """Features (B, D) and logits (B, C), float32, of one view of images `index`."""
        if view != self.view:
            self._load(view)
        rows = torch.from_numpy(index)
        return self.features[rows].float(), self.logits[rows]

    def _load(self, view: int) -> None:
        path = self.folder / view_file(view)
        try:
            with safe_open(path, framework="pt") as file:
                about: dict[str, Any] = json.loads((file.metadata() or {})[ABOUT])
                self.features = file.get_tensor("features")
                self.logits = file.get_tensor("logits")
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise DocumentError(
                f"stored teacher outputs {path} cannot be read: {error}. "
                "Remove the folder and give the same command again."
            ) from None
        if about.pop("sha256", "") != _digest(self.features, self.logits):
            raise DocumentError(
                f"stored teacher outputs {path} are damaged: they are not what was written. "
                "Remove the folder and give the same command again."
            )
        expected = {**self.about, "view": str(view)}
        rows = {len(self.features), len(self.logits)}
        if about != expected or rows != {self.images}:
            raise DocumentError(
                f"stored teacher outputs {path} are of other views: they say {about} for "
                f"{len(self.logits)} images, this run needs {expected} for {self.images}. "
                "Remove the folder and give the same command again."
            )
        self.view = view
