"""Energy of a run above idle, from rails and counters as Jetsons and PCs show them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ontarget.fake import FakeClock
from ontarget.power import Rails, Rapl, energy_of, sensor


def put(root: Path, name: str, text: object) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def rails(root: Path, *known: tuple[str, int, int], hwmon: int = 1) -> None:
    """INA3221 channels: label, millivolts, milliamperes."""
    folder = f"sys/class/hwmon/hwmon{hwmon}"
    put(root, f"{folder}/name", "ina3221")
    for channel, (label, volts, amperes) in enumerate(known, 1):
        put(root, f"{folder}/in{channel}_label", label)
        put(root, f"{folder}/in{channel}_input", volts)
        put(root, f"{folder}/curr{channel}_input", amperes)


def test_a_machine_without_sensors_has_none(tmp_path: Path) -> None:
    assert sensor(tmp_path) is None


def test_the_rail_of_the_whole_module_is_taken_where_there_is_one(tmp_path: Path) -> None:
    rails(tmp_path, ("VDD_IN", 5000, 1200), ("VDD_CPU_GPU_CV", 5000, 400), ("VDD_SOC", 5000, 300))
    put(tmp_path, "sys/class/hwmon/hwmon0/name", "other")
    found = sensor(tmp_path)
    assert isinstance(found, Rails) and found.source == "INA3221 VDD_IN"
    clock = FakeClock()
    assert found.joules(clock) == 0.0
    clock.advance(2.0)
    assert found.joules(clock) == pytest.approx(12.0)


def test_an_agx_adds_its_rails_up_but_not_the_one_within_another(tmp_path: Path) -> None:
    rails(
        tmp_path,
        ("VDD_GPU_SOC", 10000, 500),
        ("VDD_CPU_CV", 10000, 100),
        ("VIN_SYS_5V0", 5000, 800),
    )
    rails(tmp_path, ("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 300), hwmon=2)
    put(tmp_path, "sys/class/hwmon/hwmon2/in3_label", "sum of shunt voltages")
    found = sensor(tmp_path)
    assert found is not None
    assert found.source == "INA3221 NC + VDD_CPU_CV + VDD_GPU_SOC + VIN_SYS_5V0"
    clock = FakeClock()
    found.joules(clock)
    clock.advance(1.0)
    assert found.joules(clock) == pytest.approx(10.0)


def test_a_jetson_nano_of_jetpack_4_shows_milliwatts(tmp_path: Path) -> None:
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    for number, (label, milliwatts) in enumerate([("POM_5V_IN", 2100), ("POM_5V_GPU", 80)]):
        put(tmp_path, f"{folder}/rail_name_{number}", label)
        put(tmp_path, f"{folder}/in_power{number}_input", milliwatts)
    found, clock = sensor(tmp_path), FakeClock()
    assert found is not None and found.source == "INA3221 POM_5V_IN"
    found.joules(clock)
    clock.advance(10.0)
    assert found.joules(clock) == pytest.approx(21.0)


def test_counters_of_packages_add_up_and_may_start_anew(tmp_path: Path) -> None:
    for zone, name, energy in (
        ("0", "package-0", 999_000_000),
        ("0:0", "core", 5),
        ("1", "package-1", 0),
    ):
        put(tmp_path, f"sys/class/powercap/intel-rapl:{zone}/name", name)
        put(tmp_path, f"sys/class/powercap/intel-rapl:{zone}/energy_uj", energy)
        put(tmp_path, f"sys/class/powercap/intel-rapl:{zone}/max_energy_range_uj", 1_000_000_000)
    found, clock = sensor(tmp_path), FakeClock()
    assert isinstance(found, Rapl) and found.source == "RAPL, 2 packages"
    found.joules(clock)
    put(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", 1_000_000)
    put(tmp_path, "sys/class/powercap/intel-rapl:1/energy_uj", 500_000)
    assert found.joules(clock) == pytest.approx(2.5)


class Meter:
    """A board that draws `idle` watts, and `joules` more for each run."""

    source = "a meter"

    def __init__(self, clock: FakeClock, idle: float, joules: float, rippling: float = 0.0) -> None:
        self._clock, self._idle, self._joules, self.runs = clock, idle, joules, 0

    def run(self) -> None:
        self._clock.advance(0.01)
        self.runs += 1

    def joules(self, clock: Callable[[], float]) -> float:
        return clock() * self._idle + self.runs * self._joules


def test_idle_power_is_taken_off_the_energy_of_a_run() -> None:
    clock = FakeClock()
    meter = Meter(clock, 4.0, 0.05)
    found = energy_of(meter.run, meter, clock, clock.advance)
    assert found is not None
    assert found.joules == pytest.approx(0.05)
    assert (found.watts, found.idle_watts) == (pytest.approx(5.0), pytest.approx(4.0))


def test_what_does_not_stand_out_from_idle_is_no_energy() -> None:
    clock = FakeClock()
    meter = Meter(clock, 50.0, 0.0001)
    assert energy_of(meter.run, meter, clock, clock.advance) is None
