"""A faster gradient for depthwise convolutions whose kernel is wider than their map, on the CPU.

There torch's CPU kernel for the weight gradient takes most of a training step at small input sizes (measured by
`benchmarks/convolutions.py`). The same sum, one kernel element after the other over the positions where it touches the
map, is several times faster. Forward and the input's gradient stay torch's own, and so does everything elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn

from edgedistill.pointwise import as_products

Pair = tuple[int, int]


class _Depthwise(torch.autograd.Function):
    """`conv2d` with one filter a channel; only the weight's gradient differs from torch's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        grad = grads[0]
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        small = min(grad.shape[2:]) < max(weight.shape[2:])
        grad_x, native, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0),
            weight.shape[0], (wants_x, wants_weight and not small, False),
        )  # fmt: skip
        grad_weight = native
        if wants_weight and small:
            grad_weight = weight_gradient(x, grad, weight.shape, ctx.stride, ctx.padding)
        return grad_x, grad_weight, None, None


def weight_gradient(
    x: Tensor, grad: Tensor, shape: torch.Size, stride: Pair, padding: Pair
) -> Tensor:
    """Gradient (C, 1, kh, kw) of a depthwise filter from input (B, C, H, W) and output gradient (B, C, h, w)."""
    channels, _, kh, kw = shape
    inputs, outputs = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    total = x.new_zeros(kh, kw, channels)
    sides = (x.shape[2], x.shape[3]), (grad.shape[2], grad.shape[3])
    for i, j, there, here in _touching((kh, kw), *sides, stride, padding):
        touched = inputs[there] * outputs[here]
        torch.sum(touched.reshape(-1, channels), 0, out=total[i, j])
    return total.permute(2, 0, 1).reshape(shape)


Where = tuple[slice, slice, slice]


@cache
def _touching(
    kernel: Pair, size: Pair, out: Pair, stride: Pair, padding: Pair
) -> tuple[tuple[int, int, Where, Where], ...]:
    """Kernel elements (i, j) that touch the map at all, with the input and output positions that each connects."""
    whole = slice(None)
    rows = [_overlap(i, size[0], out[0], stride[0], padding[0]) for i in range(kernel[0])]
    cols = [_overlap(j, size[1], out[1], stride[1], padding[1]) for j in range(kernel[1])]
    return tuple(
        (i, j, (whole, row[0], col[0]), (whole, row[1], col[1]))
        for i, row in enumerate(rows)
        for j, col in enumerate(cols)
        if row[0].stop > row[0].start and col[0].stop > col[0].start
    )


def _overlap(tap: int, size: int, out: int, stride: int, padding: int) -> tuple[slice, slice]:
    """Input and output positions along one side that a kernel element connects: `in = stride * out + tap - padding`."""
    first = max(0, -((tap - padding) // stride))
    last = min(out - 1, (size - 1 + padding - tap) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    start = first * stride + tap - padding
    return slice(start, start + (last - first) * stride + 1, stride), slice(first, last + 1)


def _plain_forward(self: nn.Conv2d, x: Tensor) -> Tensor:
    if self.bias is not None:  # a copy into which a BatchNorm was folded
        return nn.Conv2d.forward(self, x)
    out: Tensor = _Depthwise.apply(x, self.weight, self.stride, self.padding)
    return out


def _same_forward(self: Any, x: Tensor) -> Tensor:
    out: Tensor
    if self.bias is not None:
        out = Conv2dSame.forward(self, x)
        return out
    padded = pad_same(x, self.kernel_size, self.stride, self.dilation)
    out = _Depthwise.apply(padded, self.weight, self.stride, (0, 0))
    return out


def speed_up(model: nn.Module) -> Callable[[], None]:
    """Train a network on the CPU with the faster depthwise gradients and `as_products`; returns what undoes it."""
    undo_products = as_products(model, training_only=True)
    changed: list[nn.Conv2d] = []
    for module in model.modules():
        if not isinstance(module, nn.Conv2d) or type(module) not in (nn.Conv2d, Conv2dSame):
            continue
        if module.weight.device.type != "cpu":
            continue
        depthwise = module.groups == module.in_channels == module.out_channels > 1
        if depthwise and module.bias is None and module.dilation == (1, 1):
            if isinstance(module.padding, str) or module.padding_mode != "zeros":
                continue
            forward = _same_forward if isinstance(module, Conv2dSame) else _plain_forward
            module.forward = MethodType(forward, module)  # type: ignore[method-assign]
            changed.append(module)

    def undo() -> None:
        for module in changed:
            del module.forward
        undo_products()

    return undo
