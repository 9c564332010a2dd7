"""Convolutions as products: the same outputs and gradients, only where it pays, and undone without a trace."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame
from torch import Tensor, nn

from edgedistill.pointwise import MOST_PIXELS, as_products

LAST = torch.channels_last


def patched(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if "forward" in vars(m)]


def learned(conv: nn.Conv2d, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    conv.zero_grad()
    out = conv(x)
    out.square().sum().backward()
    assert x.grad is not None and conv.weight.grad is not None
    return out.detach(), x.grad, conv.weight.grad.clone()


side = st.integers(1, 9)
channels = st.integers(1, 9)


@settings(max_examples=80)
@given(
    st.integers(1, 4), channels, channels, side, side, st.booleans(), st.booleans(), st.booleans()
)
def test_outputs_and_gradients_are_those_of_the_convolution(
    batch: int, into: int, out: int, high: int, wide: int, bias: bool, same: bool, last: bool
) -> None:
    kind = Conv2dSame if same else nn.Conv2d
    conv = kind(into, out, 1, bias=bias).double().to(memory_format=LAST)
    x = torch.randn(batch, into, high, wide, dtype=torch.float64)
    x = x.contiguous(memory_format=LAST) if last else x
    want = learned(conv, x)
    as_products(conv, training_only=False)
    got = learned(conv, x)
    for a, b in zip(want, got, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def test_small_maps_are_products_that_stay_channels_last_and_large_ones_are_convolutions() -> None:
    conv = nn.Conv2d(8, 16, 1, bias=False).to(memory_format=LAST)
    undo = as_products(conv, training_only=False)
    names = []
    for pixels in (MOST_PIXELS, MOST_PIXELS + 1):
        x = torch.randn(2, 8, 1, pixels).contiguous(memory_format=LAST)
        out = conv(x)
        assert out.is_contiguous(memory_format=LAST)
        names.append(type(out.grad_fn).__name__)
    undo()
    assert names[0].startswith("Permute") and names[1].startswith("Convolution")
    assert patched(conv) == []


def test_other_convolutions_are_untouched() -> None:
    model = nn.Sequential(
        nn.Conv2d(8, 8, 3),
        nn.Conv2d(8, 8, 1, stride=2),
        nn.Conv2d(8, 8, 1, padding=1),
        nn.Conv2d(8, 8, 1, groups=2),
        nn.ConvTranspose2d(8, 8, 1),
        nn.Linear(8, 8),
    )
    as_products(model, training_only=False)
    assert patched(model) == []


def test_evaluation_stays_the_convolutions_own_where_only_training_was_asked_for() -> None:
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv3_small_050", num_classes=4).to(memory_format=LAST).eval()
    twin = copy.deepcopy(model)
    undo = as_products(model, training_only=True)
    assert len(patched(model)) > 10
    x = torch.randn(4, 3, 64, 64).contiguous(memory_format=LAST)
    with torch.inference_mode():
        assert torch.equal(model(x), twin(x))
    undo()


@pytest.mark.parametrize("name", ["mobilenetv4_conv_small", "tf_efficientnet_lite0"])
def test_a_deep_copy_of_a_changed_network_runs_its_own_weights(name: str) -> None:
    model = timm.create_model(name, num_classes=4).to(memory_format=LAST).eval()
    as_products(model, training_only=False)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    x = torch.randn(2, 3, 64, 64).contiguous(memory_format=LAST)
    with torch.inference_mode():
        assert float(copied(x).abs().max()) > 0 == float(model(x).abs().max())
