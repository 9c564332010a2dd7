"""Stands for a generator that knows the classes of the small image folder, at the seam `ImageSource`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgedistill import synthesis
from edgedistill.synth.generators import FakeSource, Pixels, Wish
from edgedistill.synth.pipelines import Making
from tests.build_parts import CLASSES, picture

NAMES = tuple(sorted(CLASSES))


class Pictures(FakeSource):
    """Pictures that no split has, every fifth of another class."""

    def make(self, wishes: Sequence[Wish]) -> list[Pixels]:
        """One for each wish."""
        found = []
        for wish in wishes:
            label = (wish.label + (wish.number % 5 == 4)) % len(NAMES)
            found.append(np.asarray(picture(CLASSES[NAMES[label]], 40 + wish.number, 28), np.uint8))
        return found


def use_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever generator is named, these come."""

    def opened(making: Making, classes: Sequence[str]) -> FakeSource:
        return Pictures(28, len(classes))

    monkeypatch.setattr(synthesis, "open_source", opened)
