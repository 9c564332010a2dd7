"""Embeddings of all processes in one batch, with gradients: what uniformity and contrast are measured over.

The contract: every process computes the same loss of the whole batch, and gradients are averaged over processes, as
torch's DistributedDataParallel does. Then each parameter has the gradient that one process with the whole batch gives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


class _Gather(torch.autograd.Function):
    """Concatenation over processes. Backwards, its own rows, times the processes that the average divides by."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        out = x.new_empty(distributed.get_world_size() * len(x), *x.shape[1:])
        distributed.all_gather_into_tensor(out, x.contiguous())
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        first = distributed.get_rank() * ctx.rows
        return grads[0][first : first + ctx.rows] * distributed.get_world_size()


def several() -> bool:
    """Whether this is one of two or more processes of torch.distributed."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def gather(x: Tensor) -> Tensor:
    """Rows (B, ...) of all processes (W * B, ...), in the order of their ranks; `x` itself when there is one.

    Every process gives as many rows as the others. Integers, such as labels and indices, have no gradient.
    """
    if not several():
        return x
    gathered: Tensor = _Gather.apply(x)
    return gathered
