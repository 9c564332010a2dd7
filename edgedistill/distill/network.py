"""The network in training: the student with what is trained beside it, over one process or many, and its averages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from timm.layers import convert_sync_batchnorm
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from edgedistill import crew
from edgedistill.metrics import cross_entropy
from edgedistill.nets import Ints, Look, Pixels, bn_layers, forward, hold_memory, outputs

BN_MOMENTUM = 0.1
"""TensorFlow-ported nets carry 0.01, with which running statistics do not arrive within a few hundred steps."""
GPU_SHARE = 0.25
"""Images are kept on a GPU when they take less than this share of its free memory."""


class Together(nn.Module):
    """A student and what is trained with it as one module, so that several processes share every gradient."""

    def __init__(self, model: nn.Module, extras: Sequence[nn.Module]) -> None:
        super().__init__()
        self.model, self.extras = model, nn.ModuleList(extras)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return forward(self.model, x)


class Network:
    """A student on its device; calling it gives features (B, D) and logits (B, C).

    `learned` is the network that is validated and ships: the averaged one where there is an average.
    """

    def __init__(
        self,
        model: nn.Module,
        extras: Sequence[nn.Module],
        frozen_norm: bool,
        ema: float = 0.0,
        compiled: bool = False,
    ) -> None:
        self.device: torch.device = crew.accelerator().device
        if self.device.type == "cpu":
            hold_memory()
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        self.dtype = next(model.parameters()).dtype
        for module in extras:
            module.to(self.device, self.dtype)
        self.frozen = [
            layer
            for layer in bn_layers(model)
            if frozen_norm or not any(p.requires_grad for p in layer.parameters())
        ]
        for layer in bn_layers(model):
            layer.momentum = BN_MOMENTUM
        self.extras = list(extras)
        self.ema = ModelEmaV3(model, decay=ema, use_warmup=True) if ema else None
        together: nn.Module = Together(model, extras)
        if crew.size() > 1:
            if self.device.type == "cuda" and not frozen_norm:
                convert_sync_batchnorm(together)
            together = crew.accelerator().prepare_model(together)
        self.together: Any = torch.compile(together) if compiled else together

    @property
    def learned(self) -> nn.Module:
        """What is validated and ships."""
        if self.ema is None:
            return self.model
        averaged: nn.Module = self.ema.module
        return averaged

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.together(x)
        return features, logits

    def parameters(self) -> Iterator[nn.Parameter]:
        """Everything that learns: the student's and the extras'."""
        for module in (self.model, *self.extras):
            yield from module.parameters()

    def train(self) -> None:
        """Training mode, but for BatchNorm that keeps its statistics."""
        self.model.train()
        for layer in self.frozen:
            layer.eval()

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Processes exchange gradients after the `last` part of a batch only."""
        if last or crew.size() == 1:
            return contextlib.nullcontext()
        waiting: AbstractContextManager[None] = self.together.no_sync()
        return waiting

    def average(self, step: int) -> None:
        """Take the weights and BatchNorm statistics of a step into the average."""
        if self.ema is not None:
            self.ema.update(self.model, step=step)

    def finish(self) -> None:
        """Put the averaged weights into the student."""
        if self.ema is not None:
            self.model.load_state_dict(self.ema.module.state_dict())

    def load(self, data: bytes) -> None:
        """Weights of safetensors bytes into what ships."""
        self.learned.load_state_dict(load_tensors(data))

    def validate(
        self, pixels: Pixels, labels: Ints, look: Look, *, exact: bool
    ) -> tuple[float, float]:
        """Top-1 and mean cross entropy (nats) on validation images, each process looking at its part; without `exact`,
        quickly.
        """
        part = slice(crew.rank(), None, crew.size())
        hits, loss, truth = 0, 0.0, labels[part]
        if len(truth):
            logits = outputs(self.learned, pixels[part], look, self.device, fast=not exact)[1]
            hits = int((logits.argmax(1) == truth).sum())
            loss = cross_entropy(logits, truth) * len(truth)
        every = crew.gathered((hits, loss))
        return sum(one[0] for one in every) / len(labels), sum(one[1] for one in every) / len(
            labels
        )

    def place(self, canvas: Pixels) -> Pixels | Tensor:
        """Images (N, K, K, 3) on the GPU where they take little of it, else where they are."""
        if self.device.type != "cuda":
            return canvas
        free, _ = torch.cuda.mem_get_info(self.device)
        if canvas.nbytes > GPU_SHARE * free:
            return canvas
        return torch.from_numpy(canvas).to(self.device)

    def free(self) -> None:
        """Give unused GPU memory back."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def state(self) -> dict[str, Any]:
        """Weights of student, extras and average."""
        return {
            "model": self.model.state_dict(),
            "extras": [m.state_dict() for m in self.extras],
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """What `state` gave."""
        self.model.load_state_dict(state["model"])
        for module, saved in zip(self.extras, state["extras"], strict=True):
            module.load_state_dict(saved)
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])

    def randomness(self) -> dict[str, Tensor]:
        """Random states of this process."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def set_randomness(self, states: dict[str, Tensor]) -> None:
        """Random states as `randomness` gave them."""
        torch.set_rng_state(states["cpu"])
        if "cuda" in states and self.device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self.device)
