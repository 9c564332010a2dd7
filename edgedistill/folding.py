"""A network as it is best run: BatchNorm folded into convolutions, "same" padding fixed to one input size."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from edgedistill.pointwise import as_products

TOLERANCE = 1e-3
"""Largest difference of a folded copy's logits, relative to the largest logit."""


class _Padded(nn.Module):
    """A convolution after a fixed, possibly lopsided padding (left, right, top, bottom)."""

    def __init__(self, conv: nn.Conv2d, padding: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv, self.padding = conv, padding

    def forward(self, x: Tensor) -> Tensor:
        padded: Tensor = self.conv(F.pad(x, self.padding))
        return padded


class _Reads(TorchFunctionMode):
    """How many operations compute something from a tensor, by its id while it lives."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)):
            read = {id(a) for a in tree_leaves((args, kwargs or {})) if isinstance(a, Tensor)}
            self.counts.update(read)
        return out


def folded(model: nn.Module, size: int) -> nn.Module:
    """A copy on the CPU in evaluation mode: branches merged, BatchNorm folded, padding fixed to input `size`.

    A BatchNorm stays where something else reads the convolution before it too, as in attention blocks that add what
    they normalise; the caller checks the outputs.
    """
    net: nn.Module = reparameterize_model(copy.deepcopy(model).cpu().eval())
    sides: dict[str, tuple[int, int]] = {}
    made_by: dict[int, str] = {}
    pairs: list[tuple[int, str, str]] = []
    alive: list[Tensor] = []
    reads = _Reads()

    def seen(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            alive.append(out)
            if isinstance(module, nn.Conv2d):
                made_by[id(out)] = name
                reads.counts[id(out)] = 0  # the id may have been that of a tensor which is no more
                sides[name] = (int(args[0].shape[-2]), int(args[0].shape[-1]))
            elif id(args[0]) in made_by:
                pairs.append((id(args[0]), made_by[id(args[0])], name))

        return hook

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [
        module.register_forward_hook(seen(name))
        for name, module in net.named_modules()
        if isinstance(module, kinds)
    ]
    with torch.inference_mode(), reads:
        net(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    for out, conv, norm in pairs:
        if reads.counts[out] == 1:
            _fold_norm(net, conv, norm)
    for name, shape in sides.items():
        layer = net.get_submodule(name)
        if isinstance(layer, Conv2dSame):
            net.set_submodule(name, _fixed(layer, shape))
    return net


def quick(model: nn.Module, size: int) -> nn.Module:
    """What gives a network's outputs fastest: on the CPU a folded copy where that is the same function, else itself.

    A net that folds wrongly all the same (a BatchNorm that two convolutions share): two random images tell.
    """
    if next(model.parameters()).device.type != "cpu":
        return model
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    model.eval()
    try:
        with torch.inference_mode():
            copied = folded(model, size).to(memory_format=torch.channels_last)
            as_products(copied, training_only=False)
            want, got = model(x), copied(x)
    except Exception:  # each architecture refuses in its own way; unfolded it says so itself
        return model
    same = bool((got - want).abs().max() <= TOLERANCE * want.abs().max())
    return copied if same else model


def _fold_norm(net: nn.Module, conv_name: str, norm_name: str) -> None:
    """Put a BatchNorm into the convolution before it, in float64; its activation, if it has one, stays."""
    conv: Any = net.get_submodule(conv_name)
    norm: Any = net.get_submodule(norm_name)
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = conv.bias.double() if conv.bias is not None else 0.0
    shift = norm.bias.double() + (bias - norm.running_mean.double()) * gain
    with torch.no_grad():
        conv.weight.copy_((conv.weight.double() * gain.view(-1, 1, 1, 1)).float())
        conv.bias = nn.Parameter(shift.float())
    net.set_submodule(norm_name, getattr(norm, "act", nn.Identity()))


def _fixed(conv: Any, shape: tuple[int, int]) -> nn.Module:
    """TensorFlow pads max((ceil(n / s) - 1) s + (k - 1) d + 1 - n, 0) in all, the odd one behind."""
    before, after = [], []
    for n, k, s, d in zip(shape, conv.kernel_size, conv.stride, conv.dilation, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    plain = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, 0,
        conv.dilation, conv.groups, conv.bias is not None,
    )  # fmt: skip
    plain.load_state_dict(conv.state_dict())
    if before == after:
        plain.padding = (before[0], before[1])
        return plain
    return _Padded(plain, (before[1], after[1], before[0], after[0]))
