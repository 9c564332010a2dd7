"""A teacher that speaks: its features and logits of any view of any training image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgedistill.data.views import Views
from edgedistill.folding import quick
from edgedistill.nets import Ints, Look, Pixels, forward, inference
from edgedistill.rundir import Done
from edgedistill.teacher.stage import look_of, restore


class Lecturer:
    """One network that says what it sees in views of `canvas` (N, K, K, 3)."""

    def __init__(
        self, model: nn.Module, look: Look, canvas: Pixels, views: Views, device: torch.device
    ) -> None:
        self.model = quick(model.to(device).eval(), look.size)
        self.look, self.canvas, self.views, self.device = look, canvas, views, device
        net: Any = model
        self.features = int(getattr(net, "head_hidden_size", net.num_features))

    def __call__(self, index: Ints, view: int) -> tuple[Tensor, Tensor]:
        """Features (B, D) and logits (B, C) of view `view` of images `index`."""
        pixels = self.views.pixels(self.canvas, index, view, self.look.size, self.device)
        with inference(self.device, fast=True):
            return forward(self.model, self.look.normalise(pixels))


def lecturers(done: Done, canvas: Pixels, views: Views, device: torch.device) -> list[Lecturer]:
    """The teacher of a finished stage, as one lecturer."""
    return [Lecturer(restore(done), look_of(done.facts), canvas, views, device)]
