"""Which student is trained. No torch here: a build that only finds everything done must start at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StudentSpec:
    """Which student: timm name, input size in pixels, classes, and whether it starts from pretrained weights.

    `prune_from` is a wider sibling that it is cut out of while it learns, with the file of its weights, if any.
    """

    model: str
    size: int
    classes: int
    pretrained: bool
    prune_from: str | None = None
    prune_weights: str | None = None
