"""What may be spent: a time on this machine, or a number of operations."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from edgedistill.errors import UsageError

SECONDS = {"s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
FLOPS = {"FLOP": 1.0, "GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15, "EFLOP": 1e18}
MOST_SECONDS, MOST_FLOPS = 366 * 86_400.0, 1e24
"""A year, and what trains a large language model: more is a slip of the keyboard."""
LEAST_SECONDS = 1.0
NUMBER = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Z]+)")
HOW = "Give a number with a unit: 90s, 30min, 2h, 1d, 5e15FLOP, 5PFLOP."


@dataclass(frozen=True)
class Effort:
    """A budget of seconds or of floating-point operations; the other one is `None`."""

    seconds: float | None = None
    flops: float | None = None


def parse_effort(text: str) -> Effort:
    """The budget that a person means: `30min`, `1.5 h`, `1e16FLOP`. Raises `UsageError` for anything else."""
    found = NUMBER.fullmatch(text.strip())
    units = {**{unit.lower(): scale for unit, scale in SECONDS.items()}, **_many(FLOPS)}
    unit = found[2].lower() if found else ""
    if found is None or unit not in units:
        raise UsageError(f'--compute "{text[:40]}" is no amount of computing. {HOW}')
    try:
        value = float(found[1]) * units[unit]
    except ValueError:
        raise UsageError(f'--compute "{text[:40]}" has no number in front. {HOW}') from None
    timed = unit in SECONDS
    least, most = (LEAST_SECONDS, MOST_SECONDS) if timed else (1.0, MOST_FLOPS)
    if not math.isfinite(value) or not least <= value <= most:
        allowed = "from a second to a year" if timed else f"from 1 to {MOST_FLOPS:g} operations"
        raise UsageError(f'--compute "{text[:40]}" is not allowed: {allowed}. {HOW}')
    return Effort(seconds=value) if timed else Effort(flops=value)


def _many(units: dict[str, float]) -> dict[str, float]:
    """Units in small letters, alone and in the plural."""
    lower = {unit.lower(): scale for unit, scale in units.items()}
    return {**lower, **{f"{unit}s": scale for unit, scale in lower.items()}}
