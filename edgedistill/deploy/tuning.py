"""Quantization-aware training: where no INT8 file is good enough, the student learns to round.

Its weights and the inputs of its convolutions and matrix products are rounded as in the file, gradients pass straight
through (Bengio et al. 2013, arXiv:1308.3432), and it follows the predictions of the float student (the loss is the
Kullback-Leibler divergence). BatchNorm is folded before, so that statistics do not move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedistill.deploy.ranges import Seen, fill, ranges, widen
from edgedistill.folding import folded
from edgedistill.nets import Look

Pixels = npt.NDArray[np.uint8]
BATCH = 32
RATE = 3e-5
OBSERVED = 64
"""Training images that set the ranges, which then stand."""


def tuned(
    model: nn.Module,
    look: Look,
    pixels: Pixels,
    *,
    method: str,
    flavour: str,
    steps: int,
    seed: int,
    advance: Callable[[int], None],
) -> nn.Module:
    """A folded copy of a network after `steps` of training in INT8 on its own float predictions; on the CPU.

    `pixels` are training images (N, S, S, 3); `advance(1)` is called after each step. The same arguments give the same
    weights on the same machine.
    """
    cpu = torch.device("cpu")
    teacher, net = folded(model, look.size), folded(model, look.size)
    limits = _limits(net, look, pixels[:: max(1, len(pixels) // OBSERVED)][:OBSERVED], method)
    bits = 7 if flavour == "x86" else 8
    symmetric = flavour == "tensorrt"
    for name, layer in _layers(net).items():
        layer.register_forward_pre_hook(_rounding(*limits[name], symmetric))
        _round_weights(layer, 2 ** (bits - 1) - 1)
    net.requires_grad_(True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.0)
    draw = np.random.default_rng(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        drawn = draw.choice(len(pixels), min(BATCH, len(pixels)), replace=False)
        batch = look.tensor(pixels[np.sort(drawn)], cpu)
        with torch.no_grad():
            wanted = teacher(batch).log_softmax(1)
        found = net(batch).log_softmax(1)
        loss = F.kl_div(found, wanted, reduction="batchmean", log_target=True)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        advance(1)
    return _plain(net)


def _layers(net: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and matrix products but the last, which stays in float where it is small, by their names."""
    found = {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    return dict(list(found.items())[:-1])


def _limits(
    net: nn.Module, look: Look, pixels: Pixels, method: str
) -> Mapping[str, tuple[float, float]]:
    """The range of the input of each layer."""
    seen: dict[str, Seen] = {}
    parts = np.array_split(pixels, max(1, len(pixels) // 8))
    for take in (partial(widen, share=1 / len(parts)), fill):
        hooks = [
            layer.register_forward_pre_hook(partial(_watch, seen, name, take))
            for name, layer in _layers(net).items()
        ]
        with torch.no_grad():
            for part in parts:
                net(look.tensor(part, torch.device("cpu")))
        for hook in hooks:
            hook.remove()
    return ranges(seen, method)


def _watch(
    seen: dict[str, Seen], name: str, take: Callable[..., None], _: nn.Module, args: tuple[Tensor]
) -> None:
    """Take in the input of a layer at once: what comes after may write over it."""
    take(seen, name, args[0].numpy())


def _rounding(low: float, high: float, symmetric: bool) -> Any:
    """A forward pre-hook that rounds a layer's input to 8 bits over a range."""
    if symmetric:
        scale, least, most, zero = max(-low, high, 1e-12) / 127, -127, 127, 0
    else:
        scale = max(high - low, 1e-12) / 255
        least, most, zero = 0, 255, round(-low / scale)

    def rounded(_: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
        x = args[0]
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, least, most)

    return rounded


class _Rounded(nn.Module):
    """Weights rounded for each output channel, symmetric; gradients pass as if they were not."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, weight: Tensor) -> Tensor:
        peaks = weight.detach().flatten(1).abs().amax(1).clamp_min(1e-12)
        scale = (peaks / self.most).view(-1, *[1] * (weight.ndim - 1))
        whole = (weight / scale).round()
        return weight + (whole * scale - weight).detach()


def _round_weights(layer: nn.Module, most: int) -> None:
    nn.utils.parametrize.register_parametrization(layer, "weight", _Rounded(most), unsafe=True)


def _plain(net: nn.Module) -> nn.Module:
    """The network without hooks and roundings, its weights those before they are rounded."""
    for layer in _layers(net).values():
        layer._forward_pre_hooks.clear()
        nn.utils.parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    return net.eval().requires_grad_(False)
