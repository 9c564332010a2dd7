"""What is optimised, and how: parameters in groups with their own rates, layers that stay, and the optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models import group_parameters
from torch import nn

MOMENTUM = 0.9


def layers(model: nn.Module) -> list[list[str]]:
    """Names of the parameters of each of timm's layer groups, from the input on; one group where timm has none."""
    matcher: Any = getattr(model, "group_matcher", None)
    if matcher is None:
        return [[name for name, _ in model.named_parameters()]]
    groups: dict[int, list[str]] = group_parameters(model, matcher(coarse=False))
    return [groups[key] for key in sorted(groups)]


def freeze(model: nn.Module, share: float) -> int:
    """Stop the first `share` of the layer groups from learning; returns how many parameters that is."""
    groups = layers(model)
    named = dict(model.named_parameters())
    count = 0
    for name in (n for group in groups[: int(share * len(groups))] for n in group):
        named[name].requires_grad_(False)
        count += named[name].numel()
    return count


def param_groups(
    model: nn.Module,
    extra: Sequence[nn.Module],
    lr: float,
    decay: float,
    body_ratio: float = 1.0,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Groups for the optimiser: matrices decay, vectors do not.

    The body of a pretrained net may learn at a lower rate than its head, and each group of layers at `layer_decay`
    of the next one's (Clark et al. 2020).
    """
    net: Any = model
    head = {id(p) for p in net.get_classifier().parameters()}
    depth = layers(model) if layer_decay < 1 else []
    below = {name: len(depth) - 1 - at for at, group in enumerate(depth) for name in group}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            ratio = 1.0 if id(p) in head else body_ratio * layer_decay ** below.get(name, 0)
            groups.setdefault((lr * ratio, decay if p.ndim > 1 else 0.0), []).append(p)
    for module in extra:
        for p in module.parameters():
            groups.setdefault((lr, decay if p.ndim > 1 else 0.0), []).append(p)
    return [
        {"params": params, "lr": rate, "peak": rate, "weight_decay": wd}
        for (rate, wd), params in groups.items()
    ]


def optimizer(kind: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW or SGD with momentum, fused."""
    if kind == "sgd":
        return torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True, fused=True)
    return torch.optim.AdamW(groups, fused=True)
