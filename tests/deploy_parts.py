"""Small networks that have learned something, and pictures for them: for the tests of what ships."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from edgedistill.nets import Look, bn_layers

SIZE = 48
LOOK = Look(SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CPU = torch.device("cpu")


def pictures(n: int, seed: int = 0) -> np.ndarray:
    """Grainy pictures (n, 48, 48, 3); image k has a patch of colour in corner k % 4, which is its class."""
    rng = np.random.default_rng(seed)
    out = rng.integers(60, 120, (n, SIZE, SIZE, 3), dtype=np.uint8)
    for k in range(n):
        y, x = divmod(k % 4, 2)
        out[k, 24 * y : 24 * y + 24, 24 * x : 24 * x + 24] = rng.integers(120, 256, (1, 1, 3))
    return out


def _learned(model: nn.Module, steps: int) -> nn.Module:
    for layer in bn_layers(model):
        layer.momentum = 0.3
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    labels = torch.arange(32) % 4
    for k in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(LOOK.tensor(pictures(32, k), CPU)), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


@cache
def trained() -> nn.Module:
    """A small depthwise network of timm, so that its classes have margins."""
    torch.manual_seed(0)
    return _learned(timm.create_model("test_efficientnet", num_classes=4), 40)


class Plain(nn.Module):
    """Dense, depthwise, dense and dense convolutions with Relus between them, and a classifier of 16 places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depthwise = nn.Conv2d(3, 16, 4, 4), nn.Conv2d(16, 16, 3, groups=16)
        self.third, self.fourth = nn.Conv2d(16, 24, 1), nn.Conv2d(24, 24, 3, 2)
        self.head = nn.Linear(24 * 16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.first, self.depthwise, self.third, self.fourth):
            x = layer(x).relu()
        made: torch.Tensor = self.head(x.flatten(1))
        return made


@cache
def plain() -> nn.Module:
    """The same function for every INT8 method: nothing in it is hard to round."""
    torch.manual_seed(0)
    return _learned(Plain(), 120)


def uneven(times: float) -> nn.Module:
    """`plain` with one channel before its third convolution made larger and taken back there: the same function."""
    net: Any = copy.deepcopy(plain())
    with torch.no_grad():
        net.depthwise.weight[0] *= times
        net.depthwise.bias[0] *= times
        net.third.weight[:, 0] /= times
    return net  # type: ignore[no-any-return]
