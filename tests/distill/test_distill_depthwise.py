"""The faster depthwise gradient is torch's own gradient, and touches nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame
from torch import Tensor, nn

from edgedistill.distill.depthwise import speed_up, weight_gradient
from edgedistill.nets import state_bytes


def gradients(conv: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, the input's gradient, the weight's gradient, for a fixed random direction."""
    x = x.clone().requires_grad_()
    conv.zero_grad()
    out = conv(x)
    way = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=out.dtype)
    (out * way).sum().backward()
    weight: Any = conv.weight
    assert x.grad is not None and weight.grad is not None
    return out.detach(), x.grad, weight.grad.clone()


def assert_same(conv: nn.Module, x: Tensor) -> None:
    """With and without `speed_up`, in float64, where only the order of sums may differ."""
    conv, x = conv.double(), x.double()
    own = gradients(conv, x)
    undo = speed_up(conv)
    assert "forward" in vars(conv)
    ours = gradients(conv, x)
    undo()
    assert torch.equal(own[0], ours[0])
    for a, b in zip(own[1:], ours[1:], strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


side = st.integers(1, 7)


@settings(max_examples=120)
@given(
    st.tuples(side, side), st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(0, 4), st.integers(0, 4)), st.tuples(st.integers(1, 11), st.integers(1, 11)),
    st.integers(1, 3), st.integers(2, 5), st.integers(0, 99),
)  # fmt: skip
def test_the_gradient_is_torchs_own_for_any_shape(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
    batch: int,
    channels: int,
    seed: int,
) -> None:
    assume(all(n + 2 * p >= k for n, p, k in zip(size, padding, kernel, strict=True)))
    torch.manual_seed(seed)
    conv = nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False)
    assert_same(conv, torch.randn(batch, channels, *size))


@settings(max_examples=60)
@given(
    st.tuples(side, side), st.integers(1, 3), st.tuples(st.integers(1, 11), st.integers(1, 11)),
    st.integers(1, 3), st.integers(0, 99),
)  # fmt: skip
def test_the_gradient_under_tensorflows_padding_is_torchs_own(
    kernel: tuple[int, int], stride: int, size: tuple[int, int], batch: int, seed: int
) -> None:
    torch.manual_seed(seed)
    conv = Conv2dSame(4, 4, kernel, stride=stride, groups=4, bias=False)
    assert_same(conv, torch.randn(batch, 4, *size))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_holds_in_float32_and_both_memory_layouts(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 16, 5, 1, 2, groups=16, bias=False).to(memory_format=layout)
    x = torch.randn(4, 16, 3, 3).contiguous(memory_format=layout)
    own = gradients(conv, x)
    undo = speed_up(conv)
    ours = gradients(conv, x)
    undo()
    for a, b in zip(own, ours, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)


def test_the_gradient_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 5, 2, 2, groups=3, bias=False).double()
    undo = speed_up(conv)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(conv, (x,))
    undo()


def test_a_position_outside_the_map_gives_its_kernel_element_no_gradient() -> None:
    """One pixel under a 3 x 3 kernel with padding 1: only the middle element ever touches it."""
    x, grad = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 3.0)
    got = weight_gradient(x, grad, torch.Size((1, 1, 3, 3)), (1, 1), (1, 1))
    want = torch.zeros(1, 1, 3, 3)
    want[0, 0, 1, 1] = 6.0
    assert torch.equal(got, want)


def test_a_frozen_weight_or_an_input_without_gradient_is_left_alone() -> None:
    conv = nn.Conv2d(4, 4, 5, 1, 2, groups=4, bias=False)
    undo = speed_up(conv)
    conv.weight.requires_grad_(False)
    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    conv(x).sum().backward()
    assert x.grad is not None and conv.weight.grad is None
    conv.weight.requires_grad_(True)
    conv(torch.randn(2, 4, 3, 3)).sum().backward()
    assert conv.weight.grad is not None
    undo()


class Untouched(nn.Module):
    """Convolutions that are not plain depthwise ones."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False)
        self.dense = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.wider = nn.Conv2d(8, 16, 3, padding=1, groups=8, bias=False)
        self.one = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        self.words = nn.Conv2d(8, 8, 3, padding="same", groups=8, bias=False)
        self.mirrored = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False, padding_mode="reflect")
        self.transposed = nn.ConvTranspose2d(8, 8, 3, groups=8, bias=False)


def test_modules_that_are_not_plain_depthwise_are_untouched() -> None:
    model = Untouched()
    undo = speed_up(model)
    assert [name for name, m in model.named_modules() if "forward" in vars(m)] == []
    undo()


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "tf_efficientnet_lite0"])
def test_a_whole_network_gets_the_same_gradients_and_undo_restores_it(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4).double().train()
    twin = copy.deepcopy(model)
    before, keys = state_bytes(model), list(model.state_dict())
    undo = speed_up(model)
    changed = [m for m in model.modules() if "forward" in vars(m)]
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    depthwise = [m for m in convolutions if m.groups == m.in_channels > 1]
    pixels = [m for m in convolutions if m.kernel_size == (1, 1)]
    assert set(changed) == {*depthwise, *pixels} and min(len(depthwise), len(pixels)) >= 10
    assert state_bytes(model) == before and list(model.state_dict()) == keys
    x = torch.randn(4, 3, 32, 32).double().contiguous(memory_format=torch.channels_last)
    for net in (model, twin):
        torch.manual_seed(1)
        net(x).square().mean().backward()
    got, want = (
        nn.utils.parameters_to_vector([p.grad for p in net.parameters() if p.grad is not None])
        for net in (model, twin)
    )
    assert len(got) == sum(p.numel() for p in model.parameters())
    assert float((got - want).abs().max()) < 1e-9 * float(want.abs().max())
    undo()
    assert not [m for m in model.modules() if "forward" in vars(m)]
