"""Which student is trained. No torch here: a build that only finds everything done must start at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StudentSpec:
    """Which student: timm name, input size in pixels, classes, and whether it starts from pretrained weights."""

    model: str
    size: int
    classes: int
    pretrained: bool
