"""The parts of the alignment and uniformity loss with gradients in closed form: the same values by fewer operations.

The large matrix products stay as they are; there are fewer small operations around them, and none of the pairs are
spelled out, as torch's pdist does. No second derivatives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class UnitPerceptron(torch.autograd.Function):
    """Linear, ReLU, linear, unit length: features (B, D) to an embedding (B, width).

    Arguments: features, then weight and bias of both layers.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        hidden = torch.addmm(b1, x, w1.T).relu_()
        z = torch.addmm(b2, hidden, w2.T)
        length = torch.linalg.vector_norm(z, dim=1, keepdim=True).clamp_min_(1e-12)
        z.div_(length)
        ctx.save_for_backward(x, w1, hidden, w2, z, length)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]:
        """Gradients of the features, unless they are stored ones, and of the four parameters."""
        x, w1, hidden, w2, z, length = ctx.saved_tensors
        (g,) = grads
        along = (g * z).sum(1, keepdim=True)
        g_z = torch.addcmul(g, z, along, value=-1).div_(length)
        g_hidden = torch.ops.aten.threshold_backward(g_z @ w2, hidden, 0)
        g_x = g_hidden @ w1 if ctx.needs_input_grad[0] else None
        return g_x, g_hidden.T @ x, g_hidden.sum(0), g_z.T @ hidden, g_z.sum(0)


class AlignedUniform(torch.autograd.Function):
    """`alignment(x, y, alpha) + (uniformity(x, t) + uniformity(y, t)) / 2` of unit vectors (B, D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, alpha: float, t: float) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            value, *slopes = _align_uniform(x, y, alpha, t)
        ctx.save_for_backward(*slopes)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Gradients of both sides."""
        g_x, g_y = ctx.saved_tensors
        return g_x * grads[0], g_y * grads[0], None, None


def _align_uniform(x: Tensor, y: Tensor, alpha: float, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and its gradients in both sides (B, D)."""
    gap = x - y
    squared = gap.square().sum(1, keepdim=True).clamp_min_(1e-24)
    pull = gap.mul_(squared.pow(alpha / 2 - 1).mul_(alpha / len(x)))
    spread, push = _spread(torch.stack([x, y]), t)
    value = squared.pow(alpha / 2).mean() + spread.mean()
    return value, push[0].mul_(0.5).add_(pull), push[1].mul_(0.5).sub_(pull)


def _spread(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """`uniformity` (S,) of S sets of vectors (S, B, D), and its gradient (S, B, D).

    With `p` the share of each ordered pair in the potential, the gradient in x_i is `-4 t sum_j p_ij (x_i - x_j)`.
    """
    rows = x.shape[1]
    if rows < 2:
        return x.new_zeros(len(x)), torch.zeros_like(x)
    products = x @ x.mT
    lengths = products.diagonal(dim1=1, dim2=2)
    exponents = (lengths[:, :, None] + lengths[:, None]).sub_(products, alpha=2).mul_(-t)
    exponents.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    top = exponents.amax((1, 2), keepdim=True)
    share = exponents.sub_(top).exp_()
    total = share.sum((1, 2), keepdim=True)
    share.div_(total)
    gradient = (share.sum(2, keepdim=True) * x).sub_(share @ x).mul_(-4 * t)
    return (top + (total / (rows * (rows - 1))).log()).flatten(), gradient
