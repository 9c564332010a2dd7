"""What several teachers say together, and that nothing which is no number is ever passed on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedistill.errors import TeacherError
from edgedistill.nets import Look, forward

Said = tuple[Tensor, Tensor]
"""Features (B, D) and logits (B, C)."""


@dataclass(frozen=True)
class Voice:
    """One adapted teacher: its name, its network, and how it sees an image."""

    name: str
    network: nn.Module
    look: Look


def speak(voices: Sequence[Voice], pixels: Callable[[int], Tensor]) -> Said:
    """What teachers say of a batch; `pixels(size)` gives it as float pixels (B, 3, size, size) in 0..255.

    One teacher speaks for itself; `together` says what several give.
    """
    seen: dict[int, Tensor] = {}
    said = []
    for voice in voices:
        size = voice.look.size
        if size not in seen:
            seen[size] = pixels(size)
        said.append(forward(voice.network, voice.look.normalise(seen[size])))
    return together(said)


def together(said: Sequence[Said]) -> Said:
    """Several teachers as one: logits are the log of their mean probabilities (B, C), features (B, sum of D) those of
    all side by side, each scaled to length 1. What one teacher says stays as it is.
    """
    if len(said) == 1:
        return said[0]
    features = torch.cat([F.normalize(f.float(), dim=1) for f, _ in said], dim=1)
    logs = torch.stack([F.log_softmax(z.float(), dim=1) for _, z in said])
    return features, torch.logsumexp(logs, dim=0) - math.log(len(said))


def check_finite(name: str, said: Said, where: str) -> None:
    """Raise `TeacherError` that names the teacher, and whether features or logits hold a NaN or an infinity."""
    if bool(torch.isfinite(said[0]).all() & torch.isfinite(said[1]).all()):
        return
    part = "logits" if bool(torch.isfinite(said[0]).all()) else "features"
    wrong = ~torch.isfinite(said[1] if part == "logits" else said[0]).flatten(1).all(1)
    raise TeacherError(
        f"the teacher {name} gives {part} that are not finite for {int(wrong.sum())} of {len(wrong)} images "
        f"{where}; nothing is learned from it. Take another teacher, or another checkpoint of it."
    )


class Chorus(nn.Module):
    """Several teachers as one network with timm's interface, for images as `look` sees them.

    Its features hold the logits as their last columns, (B, D + C), since those of several do not follow from features.
    """

    def __init__(self, voices: Sequence[Voice], look: Look, classes: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(voice.network for voice in voices)
        self.voices = [(voice.name, voice.look) for voice in voices]
        self.look, self.num_classes = look, classes
        self.last = _Last(classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.forward_features(x))
        return logits

    def forward_features(self, x: Tensor) -> Tensor:
        """Features and logits (B, D + C) of normalised images (B, 3, S, S)."""
        scale, shift = self.look.scale_and_shift(x.device)
        pixels = (x.float() - shift) / scale

        def at(size: int) -> Tensor:
            if size == pixels.shape[-1]:
                return pixels
            return F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)

        named = zip(self.voices, self.networks, strict=True)
        voices = [Voice(name, network, look) for (name, look), network in named]
        return torch.cat([part.float() for part in speak(voices, at)], dim=1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, C) of what `forward_features` gives, or that itself."""
        return x if pre_logits else self.last(x)

    def get_classifier(self) -> nn.Module:
        """What takes the logits out of the features."""
        return self.last


class _Last(nn.Module):
    """The last columns."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, x: Any) -> Any:
        return x[:, -self.columns :]
