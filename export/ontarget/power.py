"""Energy of one run, where the board measures its own power: a Jetson's INA3221 rails, or the RAPL counters of a PC.

It is a measurement of its own, after the timing: first idle, then the model back to back, and the idle power is taken
off. Reading a rail takes a millisecond or so on a Jetson, which no timed run has to carry.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ontarget.machine import ROOT, text_of

IDLE_S, BUSY_S, EVERY_S = 1.5, 3.0, 0.1
"""How long power is read without the model and with it, and how often."""
TOTALS = ("VDD_IN", "POM_5V_IN")
"""Rails that carry a whole Jetson module; on an AGX, which has none, all rails but those within another add up."""
WITHIN = ("VDDQ_VDD2_1V8AO",)
"""It is part of VIN_SYS_5V0 (NVIDIA's description of the AGX Orin's rails)."""


@dataclass(frozen=True)
class Energy:
    """Joules of one run above idle; `watts` is above `idle_watts` too."""

    source: str
    joules: float
    watts: float
    idle_watts: float


class Sensor(Protocol):
    """What measures power. `source` says what it covers."""

    source: str

    def joules(self, clock: Callable[[], float]) -> float:
        """Energy since some moment; called often enough, its difference is what was used."""
        ...


class Rails:
    """INA3221 rails in watts, added up over time by the trapezoidal rule."""

    def __init__(self, source: str, rails: list[tuple[Path, Path | None]]) -> None:
        self.source = source
        self._rails = rails
        self._last: tuple[float, float] | None = None
        self._sum = 0.0

    def joules(self, clock: Callable[[], float]) -> float:
        """Energy since the first call."""
        now, watts = clock(), sum(_watts(rail) for rail in self._rails)
        if self._last is not None:
            self._sum += (now - self._last[0]) * (watts + self._last[1]) / 2
        self._last = (now, watts)
        return self._sum


class Rapl:
    """Counters of microjoules of each processor package, which start anew at `max_energy_range_uj`."""

    def __init__(self, zones: list[Path]) -> None:
        self.source = f"RAPL, {len(zones)} package{'s' if len(zones) != 1 else ''}"
        self._zones = zones
        self._last: list[int] | None = None
        self._sum = 0.0

    def joules(self, clock: Callable[[], float]) -> float:
        """Energy since the first call."""
        now = [_whole(zone / "energy_uj") for zone in self._zones]
        if self._last is not None:
            for zone, old, new in zip(self._zones, self._last, now):
                wrapped = new < old
                self._sum += (new - old + wrapped * _whole(zone / "max_energy_range_uj")) * 1e-6
        self._last = now
        return self._sum


def sensor(root: Path = ROOT) -> Sensor | None:
    """What measures power here: a Jetson's rails, else RAPL (for root alone since Linux 5.10), else None."""
    rails = _hwmon_rails(root) or _iio_rails(root)
    for name in TOTALS:
        if name in rails:
            return Rails(f"INA3221 {name}", [rails[name]])
    rails = {name: rail for name, rail in rails.items() if name not in WITHIN}
    if rails:
        return Rails("INA3221 " + " + ".join(sorted(rails)), list(rails.values()))
    zones = []
    for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        if (text_of(zone / "name") or "").startswith("package") and text_of(zone / "energy_uj"):
            zones.append(zone)
    return Rapl(zones) if zones else None


def energy_of(
    run: Callable[[], object],
    meter: Sensor,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Energy | None:
    """Energy of one call of `run`; None where it does not stand out from idle."""
    started, first = clock(), meter.joules(clock)
    while clock() - started < IDLE_S:
        sleep(EVERY_S)
        meter.joules(clock)
    idle = (meter.joules(clock) - first) / (clock() - started)
    begun, first, read = clock(), meter.joules(clock), clock()
    runs, now = 0, begun
    while now - begun < BUSY_S:
        run()
        runs, now = runs + 1, clock()
        if now - read >= EVERY_S:
            meter.joules(clock)
            read = now
    used = meter.joules(clock) - first - idle * (clock() - begun)
    watts = used / (clock() - begun)
    if used <= 0 or watts < 0.01 * idle:
        return None
    return Energy(meter.source, used / runs, watts, idle)


def _hwmon_rails(root: Path) -> dict[str, tuple[Path, Path | None]]:
    """Rails of JetPack 5 and newer: millivolts and milliamperes of each labelled channel."""
    rails: dict[str, tuple[Path, Path | None]] = {}
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if text_of(folder / "name") != "ina3221":
            continue
        for channel in (1, 2, 3):
            label = text_of(folder / f"in{channel}_label") or ""
            pair = folder / f"in{channel}_input", folder / f"curr{channel}_input"
            if label and "sum" not in label and all(text_of(path) for path in pair):
                rails[label] = pair
    return rails


def _iio_rails(root: Path) -> dict[str, tuple[Path, Path | None]]:
    """Rails of JetPack 4: milliwatts of each named channel."""
    rails: dict[str, tuple[Path, Path | None]] = {}
    for path in sorted((root / "sys/bus/i2c/drivers/ina3221x").glob("*/iio:device*/rail_name_*")):
        label = text_of(path) or ""
        watts = path.with_name(f"in_power{path.name[-1]}_input")
        if label and text_of(watts):
            rails[label] = (watts, None)
    return rails


def _watts(rail: tuple[Path, Path | None]) -> float:
    volts, amperes = rail
    if amperes is None:
        return _whole(volts) * 1e-3
    return _whole(volts) * _whole(amperes) * 1e-6


def _whole(path: Path) -> int:
    text = text_of(path) or ""
    return int(text) if text.lstrip("-").isdigit() else 0
