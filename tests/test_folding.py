"""A folded copy computes what the network computes, and a network that does not fold so is left as it is."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from edgedistill.distill.depthwise import speed_up
from edgedistill.folding import folded, quick
from edgedistill.nets import bn_layers


def lived_in(name: str) -> nn.Module:
    """A random network whose BatchNorm statistics are those of real activations."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=5).train()
    for layer in bn_layers(model):
        layer.momentum = 0.5
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 64, 64))
    return model.eval()


def norms(net: nn.Module) -> int:
    return len(bn_layers(net))


def test_a_quick_copy_has_no_batchnorm_and_the_same_outputs() -> None:
    model = lived_in("tf_efficientnet_lite0")
    copied = quick(model, 64)
    x = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        want, got = model(x), copied(x)
    assert norms(model) > 20 and norms(copied) == 0
    assert float((got - want).abs().max()) <= 1e-4 * float(want.abs().max())


def test_a_copy_made_during_a_training_is_right_too() -> None:
    model = lived_in("tf_efficientnet_lite0")
    x = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        want = model(x)
    undo = speed_up(model)
    try:
        copied = quick(model, 64)
    finally:
        undo()
    with torch.inference_mode():
        got = copied(x)
    assert norms(copied) == 0
    assert float((got - want).abs().max()) <= 1e-4 * float(want.abs().max())


class PreActivation(nn.Module):
    """A convolution that a BatchNorm and a shortcut both read: folding changes the shortcut. And one that folds."""

    def __init__(self, shortcut: str) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 5, 3, padding=1, bias=False)
        self.before, self.norm = nn.BatchNorm2d(3), nn.BatchNorm2d(5)
        nn.init.constant_(self.norm.bias, 3.0)
        nn.init.constant_(self.before.bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.before(self.first(x)))
        z = self.norm(y).relu()
        if self.shortcut == "a method":
            return z.add(y).mean((2, 3))
        if self.shortcut == "a list":
            return torch.cat([z, y], 1).mean((2, 3))
        out: Tensor = (y + z).mean((2, 3))
        return out


@pytest.mark.parametrize("shortcut", ["a sum", "a method", "a list"])
def test_a_batchnorm_stays_where_something_else_reads_the_convolution_too(shortcut: str) -> None:
    model = PreActivation(shortcut).eval()
    copied = quick(model, 16)
    x = torch.randn(2, 3, 16, 16)
    assert copied is not model and norms(copied) == 1
    with torch.inference_mode():
        torch.testing.assert_close(copied(x), model(x))


def test_an_attention_block_that_adds_what_it_normalises_is_exported_right() -> None:
    model = lived_in("fastvit_sa12")
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        want, got = model(x), folded(model, 64)(x)
    assert float((got - want).abs().max()) <= 1e-4 * float(want.abs().max())


class Twice(nn.Module):
    """A BatchNorm that two convolutions share folds into neither."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        nn.init.constant_(self.norm.weight, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.second(self.norm(self.first(x)))).mean((2, 3))
        return out


def test_a_network_that_does_not_fold_is_used_as_it_is() -> None:
    model = Twice().eval()
    assert quick(model, 16) is model


def test_a_network_that_refuses_the_size_is_used_as_it_is() -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3).eval()
    assert quick(model, 64) is model


def test_branches_of_a_reparameterised_network_are_merged() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_byobnet", num_classes=3).eval()
    mobileone = timm.create_model("mobileone_s0", num_classes=3).eval()
    for net in (model, mobileone):
        x = torch.randn(2, 3, 64, 64)
        with torch.inference_mode():
            want = net(x)
            got = folded(net, 64)(x)
        assert float((got - want).abs().max()) <= 1e-4 * float(want.abs().max())
    merged = sum(isinstance(m, nn.Conv2d) for m in folded(mobileone, 64).modules())
    assert merged < 0.6 * sum(isinstance(m, nn.Conv2d) for m in mobileone.modules())
