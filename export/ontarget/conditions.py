"""The state of the machine around a measurement: heat, clocks, power mode, and who else was at work.

Each fact is None where the system does not show it. Nothing raises, and nothing here runs while a model is timed.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ontarget.machine import ROOT, governor, gpu_clock_hz, power_mode, temperature_c, text_of

MAX_BUSY = 0.05
"""The share of all cores that other programs may take before a measurement counts as disturbed."""
_PI_NOW = ((0, "undervoltage"), (1, "clock capped"), (2, "throttled"), (3, "soft heat limit"))
"""Bits of the firmware's `get_throttled` that tell of now (Raspberry Pi documentation, vcgencmd)."""


@dataclass(frozen=True)
class Look:
    """One look at the machine: what it shows, and counters that only mean something against a second look."""

    shown: dict[str, Any]
    counters: dict[str, int] = field(default_factory=dict)
    busy_ticks: tuple[int, int] | None = None
    own_s: float = 0.0
    at_s: float = 0.0


def look(root: Path = ROOT) -> Look:
    """The machine now."""
    return Look(
        shown={
            "temperature_c": temperature_c(root),
            "cpu_clock_hz": _cpu_clock_hz(root),
            "gpu_clock_hz": gpu_clock_hz(root),
            "governor": governor(root),
            "power_mode": power_mode() if root == ROOT else None,
            "throttled": _throttled_now(root),
        },
        counters=_counters(root),
        busy_ticks=_ticks(root),
        own_s=sum(os.times()[:4]),
        at_s=time.monotonic(),
    )


def between(before: Look, after: Look) -> tuple[dict[str, Any], list[str]]:
    """The state after, with what happened since `before`: others' share of the cores, and throttling; then the same as
    warnings, none for a quiet machine.
    """
    grown = [
        name for name, count in after.counters.items() if count > before.counters.get(name, count)
    ]
    throttled = list(dict.fromkeys([*after.shown["throttled"], *grown]))
    busy = _others(before, after)
    notes = []
    if busy is not None and busy > MAX_BUSY:
        notes.append(f"other programs took {busy:.0%} of the cores meanwhile")
    if throttled:
        notes.append(f"the board slowed itself down: {', '.join(throttled)}")
    return {**after.shown, "throttled": throttled, "busy": busy}, notes


def _others(before: Look, after: Look) -> float | None:
    """The share of all cores that was busy with anything but this process (and its ended children)."""
    if before.busy_ticks is None or after.busy_ticks is None:
        return None
    busy, total = (b - a for a, b in zip(before.busy_ticks, after.busy_ticks))
    if total <= 0:
        return None
    own = (after.own_s - before.own_s) * os.sysconf("SC_CLK_TCK")
    return round(min(1.0, max(0.0, (busy - own) / total)), 4)


def _ticks(root: Path) -> tuple[int, int] | None:
    """Ticks of all cores, busy and in all, since the start; stolen time counts as busy."""
    found = re.match(r"cpu\s+([\d ]+)", text_of(root / "proc/stat", 4096) or "")
    if found is None:
        return None
    values = [int(v) for v in found.group(1).split()[:8]]
    idle = sum(values[3:5])
    return sum(values) - idle, sum(values)


def _cpu_clock_hz(root: Path) -> int | None:
    """The fastest core's clock now."""
    found = []
    try:
        for path in sorted(
            (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
        ):
            value = text_of(path) or ""
            if value.isdigit():
                found.append(int(value) * 1000)
    except OSError:
        pass
    if not found:
        mhz = re.findall(
            r"^cpu MHz\s*:\s*([\d.]+)$", text_of(root / "proc/cpuinfo") or "", re.MULTILINE
        )
        found = [round(float(value) * 1e6) for value in mhz]
    return max(found) if found else None


def _throttled_now(root: Path) -> list[str]:
    """What a Raspberry Pi's firmware says that it holds back for."""
    value = text_of(root / "sys/devices/platform/soc/soc:firmware/get_throttled") or ""
    try:
        bits = int(value, 16)
    except ValueError:
        return []
    return [words for bit, words in _PI_NOW if bits >> bit & 1]


def _counters(root: Path) -> dict[str, int]:
    """Counters that grow when a processor slows itself down: x86's own, and a Jetson's over-current alarms."""
    patterns = {
        "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count": "heat",
        "sys/class/hwmon/hwmon*/oc*_event_cnt": "over-current",
        "sys/devices/platform/*/oc*_event_cnt": "over-current",
    }
    out: dict[str, int] = {}
    for pattern, words in patterns.items():
        try:
            paths = sorted(root.glob(pattern))
        except OSError:
            continue
        for path in paths:
            value = text_of(path) or ""
            if value.isdigit():
                out[words] = out.get(words, 0) + int(value)
    return out
