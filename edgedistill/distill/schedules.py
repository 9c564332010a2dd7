"""How a value moves over a run, as pure functions of the step."""

from __future__ import annotations

import math


def cosine(step: int, steps: int, warmup: float) -> float:
    """Factor of the peak learning rate at `step` of `steps`: linear warm-up over a share, then a cosine to 0."""
    ramp = max(1, round(warmup * steps))
    if step < ramp:
        return (step + 1) / ramp
    return 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))
