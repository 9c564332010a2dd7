"""Heat, clocks, throttling and other programs around a measurement, from files as boards have them."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest
from ontarget import conditions
from ontarget.conditions import Look, between, look


def put(root: Path, name: str, text: object) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def ticks(root: Path, user: int, idle: int, steal: int = 0) -> None:
    """/proc/stat of a machine: ticks of all cores."""
    put(root, "proc/stat", f"cpu  {user} 0 0 {idle} 0 0 0 {steal} 0 0\ncpu0 1 0 0 1 0 0 0 0 0 0")


def test_a_quiet_machine_has_no_warning_and_an_unknown_fact_is_none(tmp_path: Path) -> None:
    after, notes = between(look(tmp_path), look(tmp_path))
    assert notes == []
    assert after == {
        "temperature_c": None, "cpu_clock_hz": None, "gpu_clock_hz": None, "governor": None,
        "power_mode": None, "throttled": [], "busy": None,
    }  # fmt: skip


def test_heat_and_clocks_are_those_of_the_hottest_zone_and_the_fastest_core(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", 61000)
    for core, clock in enumerate((600000, 2400000)):
        put(tmp_path, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", clock)
    put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance")
    shown = look(tmp_path).shown
    assert (shown["temperature_c"], shown["cpu_clock_hz"]) == (61.0, 2_400_000_000)
    assert shown["governor"] == "performance"


def test_a_raspberry_pi_that_holds_back_says_for_what(tmp_path: Path) -> None:
    put(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "50005")
    after, notes = between(look(tmp_path), look(tmp_path))
    assert after["throttled"] == ["undervoltage", "throttled"]
    assert notes == ["the board slowed itself down: undervoltage, throttled"]
    put(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "50000")  # since its start
    assert between(look(tmp_path), look(tmp_path))[1] == []


def test_only_what_grew_meanwhile_counts_as_throttling(tmp_path: Path) -> None:
    heat = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    current = "sys/class/hwmon/hwmon3/oc2_event_cnt"
    put(tmp_path, heat, 7)
    put(tmp_path, current, 2)
    before = look(tmp_path)
    assert between(before, look(tmp_path))[1] == []
    put(tmp_path, heat, 8)
    assert between(before, look(tmp_path))[0]["throttled"] == ["heat"]
    put(tmp_path, current, 3)
    assert between(before, look(tmp_path))[0]["throttled"] == ["heat", "over-current"]


def test_the_share_of_others_leaves_this_process_out_and_counts_stolen_time(tmp_path: Path) -> None:
    ticks(tmp_path, 1000, 1000)
    before = look(tmp_path)
    own = os.sysconf("SC_CLK_TCK")
    ticks(tmp_path, 1000 + own, 1000 + own)  # as much as this process used
    one_second = Look({"throttled": []}, {}, look(tmp_path).busy_ticks, before.own_s + 1.0)
    assert between(before, one_second)[0]["busy"] == 0.0
    ticks(tmp_path, 1000 + own, 1000 + own, steal=2 * own)
    stolen = Look({"throttled": []}, {}, look(tmp_path).busy_ticks, before.own_s + 1.0)
    after, notes = between(before, stolen)
    assert after["busy"] == 0.5
    assert notes == ["other programs took 50% of the cores meanwhile"]


def _spin(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no /proc here")
def test_another_busy_program_is_seen_on_this_very_machine() -> None:
    other = multiprocessing.get_context("fork").Process(target=_spin, args=(0.6,))
    before = look()
    other.start()
    time.sleep(0.5)
    after, notes = between(before, look())
    other.join()
    assert after["busy"] > 0.5 / (os.cpu_count() or 1) * 0.5
    assert any("other programs took" in note for note in notes)


@pytest.mark.parametrize("text", ["", "cpu", "cpu  1 2", "nonsense", "cpu  x y z"])
def test_whatever_the_system_shows_nothing_raises(tmp_path: Path, text: str) -> None:
    put(tmp_path, "proc/stat", text)
    put(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", text)
    put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", text)
    between(look(tmp_path), look(tmp_path))
    assert conditions.MAX_BUSY < 0.1
