"""Facts of a machine are read from where boards keep them, and unknown ones are None."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ontarget import machine as module
from ontarget.machine import (
    board,
    cpu_model,
    governor,
    l4t_release,
    machine,
    memory_bytes,
    peak_rss_bytes,
    power_mode,
    temperature_c,
)


def _put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def cpuinfo(*cores: tuple[str, str], more: str = "", after: str = "") -> str:
    """/proc/cpuinfo of 64-bit Arm: implementer and part of each core; lines `more` in each, and `after` all."""
    return (
        "".join(
            f"processor\t: {number}\n{more}BogoMIPS\t: 62.50\nFeatures\t: fp asimd evtstrm crc32 cpuid\n"
            f"CPU implementer\t: {implementer}\nCPU architecture: 8\nCPU variant\t: 0x0\n"
            f"CPU part\t: {part}\nCPU revision\t: 1\n\n"
            for number, (implementer, part) in enumerate(cores)
        )
        + after
    )


ORIN = cpuinfo(*[("0x41", "0xd42")] * 6, more="model name\t: ARMv8 Processor rev 1 (v8l)\n")


def test_a_jetson_is_known_by_its_files(tmp_path: Path) -> None:
    _put(tmp_path, "proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    _put(tmp_path, "proc/cpuinfo", ORIN)
    release = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
    _put(tmp_path, "etc/nv_tegra_release", release)
    _put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "schedutil\n")
    _put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "45500\n")
    _put(tmp_path, "sys/class/thermal/thermal_zone1/temp", "51000\n")
    _put(tmp_path, "sys/class/thermal/thermal_zone2/temp", "-256000\n")
    _put(tmp_path, "proc/meminfo", "MemTotal:        7802636 kB\nMemFree: 1 kB\n")
    assert board(tmp_path) == "NVIDIA Jetson Orin Nano Developer Kit"
    assert cpu_model(tmp_path) == "Cortex-A78AE"
    assert l4t_release(tmp_path) == "36.4.3"
    assert governor(tmp_path) == "schedutil"
    assert temperature_c(tmp_path) == 51.0
    assert memory_bytes(tmp_path) == 7802636 * 1024


def test_a_pc_is_known_by_its_model_name(tmp_path: Path) -> None:
    _put(tmp_path, "proc/cpuinfo", "processor\t: 0\nmodel name\t: AMD EPYC 7763\n")
    assert cpu_model(tmp_path) == "AMD EPYC 7763"
    assert [f(tmp_path) for f in (board, governor, temperature_c, l4t_release)] == [None] * 4


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (cpuinfo(*[("0x41", "0xd0b")] * 4), "Cortex-A76"),
        (
            cpuinfo(
                *[("0x41", "0xd08")] * 4,
                after="Hardware\t: BCM2835\nRevision\t: c03114\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
            ),
            "Cortex-A72",
        ),
        (
            cpuinfo(("0x41", "0xd07"), ("0x4e", "0x003"), ("0x4e", "0x003"), ("0x41", "0xd07")),
            "Cortex-A57, NVIDIA Denver 2",
        ),
        (cpuinfo(*[("0x41", "0xd05")] * 4, *[("0x41", "0xd0b")] * 4), "Cortex-A55, Cortex-A76"),
    ],
    ids=["Raspberry Pi 5", "Raspberry Pi 4", "Jetson TX2", "RK3588"],
)
def test_an_arm_board_is_known_by_its_cores(tmp_path: Path, text: str, name: str) -> None:
    _put(tmp_path, "proc/cpuinfo", text)
    assert cpu_model(tmp_path) == name


def test_an_old_arm_kernel_that_names_no_core_is_known_by_its_hardware(tmp_path: Path) -> None:
    _put(tmp_path, "proc/cpuinfo", "Processor\t: ARM\n\nHardware\t: Freescale i.MX6\n")
    assert cpu_model(tmp_path) == "Freescale i.MX6"


def test_an_unknown_arm_core_is_shown_by_its_numbers(tmp_path: Path) -> None:
    _put(tmp_path, "proc/cpuinfo", "CPU implementer\t: 0x99\nCPU part\t: 0x123\n")
    assert cpu_model(tmp_path) == "Arm 0x99/0x123"


def test_the_power_mode_is_read_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvpmodel"
    tool.write_text("#!/bin/sh\n[ \"$1\" = -q ] && printf 'NV Power Mode: MAXN_SUPER\\n2\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert power_mode() == "MAXN_SUPER"
    tool.write_text("#!/bin/sh\nexit 1\n")
    assert power_mode() is None
    monkeypatch.setenv("PATH", "")
    assert power_mode() is None


def test_this_machine_is_a_plain_json_document() -> None:
    facts = machine()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["cores"] >= facts["cores_usable"] >= 1
    assert facts["python"] == sys.version.split()[0]
    assert facts["memory_bytes"] > 1 << 28
    assert facts["onnxruntime"] and facts["numpy"]


def test_a_fact_that_cannot_be_read_is_none_and_nothing_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> str:
        raise RuntimeError("no such sensor")

    monkeypatch.setattr(module, "governor", broken)
    monkeypatch.setattr("ontarget.machine.platform.platform", broken)
    facts = machine()
    assert (facts["governor"], facts["os"]) == (None, None)
    assert facts["python"] is not None


def test_the_peak_is_that_of_this_program_and_not_of_the_one_that_started_it() -> None:
    if peak_rss_bytes() is None:
        pytest.skip("this machine tells no peak")
    script = (
        "import subprocess, sys\n"
        "held = bytearray(300_000_000)\n"
        "from ontarget.machine import peak_rss_bytes\n"
        "print(peak_rss_bytes(), flush=True)\n"
        "ask = 'from ontarget.machine import peak_rss_bytes; print(peak_rss_bytes())'\n"
        "subprocess.run([sys.executable, '-c', ask], check=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    parent, child = (int(line) for line in done.stdout.split())
    assert parent > 300_000_000
    assert 5_000_000 < child < 200_000_000
