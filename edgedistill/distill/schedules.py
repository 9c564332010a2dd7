"""How a value moves over a run, as pure functions of the step."""

from __future__ import annotations

import math

WSD_DECAY = 0.1
"""Share of the steps in which a rate falls after its plateau."""
WEIGHT_WARMUP, WEIGHT_DECAY = 0.1, 0.01
"""Rise and fall of the teacher's weight under `wsd` (Peng et al. 2024, section 3.3)."""
DKD_WARMUP = 20 / 240
"""DKD's weight rises over 20 of 240 epochs (Zhao et al. 2022)."""
SIDE_STEP = 16


def rate(step: int, steps: int, warmup: float, kind: str = "cosine") -> float:
    """Factor of the peak learning rate at `step` of `steps`: linear warm-up over a share, then `kind`.

    `cosine` falls to 0 at once; `wsd` stays at the peak and falls in a line over the last tenth; `constant` stays.
    """
    ramp = max(1, round(warmup * steps))
    if step < ramp:
        return (step + 1) / ramp
    if kind == "constant":
        return 1.0
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))
    fall = max(1, round(WSD_DECAY * steps))
    return min(1.0, (steps - step) / fall)


def teaching(progress: float, kind: str) -> float:
    """Factor of the teacher's terms at `progress` in [0, 1) of the run."""
    if kind == "linear":
        return 1 - progress
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if kind == "wsd":
        return min(1.0, progress / WEIGHT_WARMUP, (1 - progress) / WEIGHT_DECAY)
    if kind == "warmup":
        return min(1.0, progress / DKD_WARMUP)
    return 1.0


def side(epoch: int, epochs: int, full: int, first: float) -> int:
    """Side in pixels of an epoch's views: from a share `first` of `full` to all in the last third, in steps of 16."""
    growing = 2 * epochs // 3
    if first >= 1 or epoch >= growing:
        return full
    wanted = full * (first + (1 - first) * epoch / growing)
    return min(full, max(2 * SIDE_STEP, SIDE_STEP * round(wanted / SIDE_STEP)))
