"""A model of Hugging Face transformers behind timm's interface; `huggingface.py` says what its features are."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from edgedistill.teacher.processor import Eye

CLASS_TOKEN = ("vit", "deit", "vit_msn")
"""Families whose features are the class token: what their pooler gives is seldom pretrained."""


class Tower(nn.Module):
    """A transformers model with timm's interface: pooled features, then one linear layer (or none).

    `removed` is the path in a classifier of the layer that was taken out of it, and is its head now; without one the
    features are pooled as the family does it.
    """

    def __init__(self, body: nn.Module, removed: str, width: int, eye: Eye) -> None:
        super().__init__()
        self.body, self.removed, self.flip = body, removed, eye.flip
        self.num_features, self.num_classes = width, 0
        self.head: nn.Module = nn.Identity()
        self.pretrained_cfg = {
            "mean": eye.mean, "std": eye.std, "input_size": (3, eye.size, eye.size),
        }  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.forward_features(x))
        return logits

    def forward_features(self, x: Tensor) -> Tensor:
        """Pooled features (B, D) of images (B, 3, H, W)."""
        return features_of(self.body, x.flip(1) if self.flip else x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, C) of features, or the features themselves."""
        return x if pre_logits else self.head(x)

    def get_classifier(self) -> nn.Module:
        """The linear head; `nn.Identity` for a backbone."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """A new linear head."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers from the input on, for timm's `group_parameters`: patches, then blocks in order, then the rest."""
        block = r"^body\..*?(?:layers?|stages|blocks)\.(\d+)"
        inner = [] if coarse else [(block + r"\.(?:layers?|blocks)\.(\d+)", None)]
        return {"stem": r"^body\.(?:\w+\.)*embed", "blocks": [*inner, (block, None)]}


def features_of(body: nn.Module, x: Tensor) -> Tensor:
    """What a model says of images (B, 3, H, W): a classifier its logits (B, C), a backbone pooled features (B, D).

    Raises `ValueError` for a model that gives neither.
    """
    net: Any = body
    inputs: dict[str, Any] = {}
    if "interpolate_pos_encoding" in inspect.signature(net.forward).parameters:
        inputs["interpolate_pos_encoding"] = True
    if net.config.model_type == "siglip2_vision_model":
        x, inputs = _patches(x, int(net.config.patch_size))
    found: Any = net(pixel_values=x, return_dict=True, **inputs)
    pooled: Tensor | None = getattr(found, "logits", None)
    last: Tensor | None = getattr(found, "last_hidden_state", None)
    if pooled is None and last is not None and net.config.model_type in CLASS_TOKEN:
        pooled = last[:, 0]
    if pooled is None:
        pooled = getattr(found, "pooler_output", None)
    if pooled is None and last is not None and last.ndim in (3, 4):
        pooled = last.mean(1 if last.ndim == 3 else (2, 3))
    if pooled is None:
        raise ValueError("it gives no features of an image")
    return pooled.flatten(1)


def _patches(x: Tensor, side: int) -> tuple[Tensor, dict[str, Any]]:
    """Images (B, 3, H, W) as SigLIP 2 of free shapes takes them: patches (B, N, 3 * side**2) and their grid."""
    high, wide = x.shape[2] // side, x.shape[3] // side
    x = x[:, :, : high * side, : wide * side].reshape(len(x), 3, high, side, wide, side)
    rows = x.permute(0, 2, 4, 3, 5, 1).reshape(len(x), high * wide, -1)
    grid = torch.tensor([[high, wide]] * len(x), device="cpu")  # read as numbers, on any device
    return rows, {"pixel_attention_mask": None, "spatial_shapes": grid}
