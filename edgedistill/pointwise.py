"""Convolutions of one pixel as matrix products where the map is small: faster on the CPU.

A 1x1 convolution without stride is a product of the pixels' channels with the filters. On maps of few pixels torch's
convolution spends its time on everything but that product (measured by `benchmarks/convolutions.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

MOST_PIXELS = 64
"""Of a map: beyond it the convolution is as fast or faster."""


def _always(self: nn.Conv2d, x: Tensor) -> Tensor:
    small = x.dim() == 4 and x.shape[2] * x.shape[3] <= MOST_PIXELS
    if not small or not x.is_contiguous(memory_format=torch.channels_last):
        out: Tensor = type(self).forward(self, x)
        return out
    return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def _in_training(self: nn.Conv2d, x: Tensor) -> Tensor:
    if self.training:
        return _always(self, x)
    out: Tensor = type(self).forward(self, x)
    return out


def as_products(model: nn.Module, *, training_only: bool) -> Callable[[], None]:
    """Let every 1x1 convolution of a network on the CPU compute small maps as products; returns what undoes it.

    With `training_only`, evaluation stays torch's own to the last bit.
    """
    forward = _in_training if training_only else _always
    changed: list[nn.Conv2d] = []
    for module in model.modules():
        if not isinstance(module, nn.Conv2d) or type(module) not in (nn.Conv2d, Conv2dSame):
            continue
        one = module.kernel_size == (1, 1) and module.stride == (1, 1) and module.groups == 1
        if one and module.padding in ((0, 0), "same") and module.weight.device.type == "cpu":
            module.forward = MethodType(forward, module)  # type: ignore[method-assign]
            changed.append(module)

    def undo() -> None:
        for module in changed:
            del module.forward

    return undo
