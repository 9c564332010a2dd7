"""Which machine is which device: known by its name and by what tells boards of one name apart, and never guessed."""

from __future__ import annotations

from typing import Any

import pytest
from ontarget.machine import machine as this_machine

from edgedistill.target.device import device_names, device_to_dict, load_device, load_profile_facts
from edgedistill.target.fingerprint import declared, declared_in, identify, match

ORIN: dict[str, Any] = {
    "board": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "arch": "aarch64",
    "cpu": "Cortex-A78AE", "cores": 6, "memory_bytes": 7_976_886_272, "power_mode": "15W",
}  # fmt: skip
PI = {"board": "Raspberry Pi 5 Model B Rev 1.1", "arch": "aarch64", "cpu": "Cortex-A76", "cores": 4}


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (ORIN, "jetson-orin-nano-8gb"),
        ({**ORIN, "board": "NVIDIA Jetson Orin Nano Developer Kit"}, "jetson-orin-nano-8gb"),
        ({**ORIN, "power_mode": "MAXN_SUPER"}, "jetson-orin-nano-8gb-super"),
        ({**ORIN, "memory_bytes": 3_900_000_000, "power_mode": "10W"}, "jetson-orin-nano-4gb"),
        ({**ORIN, "board": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "cores": 8,
          "memory_bytes": 15_900_000_000, "power_mode": "MAXN"}, "jetson-orin-nx-16gb"),
        ({**ORIN, "board": "Jetson-AGX", "cpu": "NVIDIA Carmel", "cores": 8, "memory_bytes": 32_600_000_000,
          "power_mode": "MAXN"}, "jetson-agx-xavier"),
        ({**ORIN, "board": "NVIDIA Jetson Xavier NX Developer Kit (SD-card)", "cpu": "NVIDIA Carmel",
          "power_mode": "MODE_20W_6CORE"}, "jetson-xavier-nx"),
        ({**PI, "memory_bytes": 16_400_000_000}, "raspberry-pi-5"),
        ({**PI, "board": "Raspberry Pi 4 Model B Rev 1.5", "cpu": "Cortex-A72"}, "raspberry-pi-4"),
        ({**PI, "board": "Raspberry Pi Zero 2 W Rev 1.0", "cpu": "Cortex-A53"}, "raspberry-pi-zero-2w"),
    ],
)  # fmt: skip
def test_a_board_is_one_device_and_no_other(machine: dict[str, Any], name: str) -> None:
    assert [d.name for d in identify(machine)] == [name]
    assert match(declared(load_device(name)), machine).fits


@pytest.mark.parametrize(
    "machine",
    [
        {}, {**PI, "board": None}, {**PI, "board": "Raspberry Pi"}, {**PI, "board": "My Raspberry Pi 5 Model B"},
        {**PI, "arch": "armv7l"}, {**PI, "cores": 2}, {**PI, "cpu": "Cortex-A72"},
        {**ORIN, "power_mode": "25W"}, {**ORIN, "power_mode": None}, {**ORIN, "memory_bytes": 16e9},
        {**ORIN, "cores": 4}, {**ORIN, "board": "NVIDIA Jetson"}, {"board": "*", "arch": "aarch64"},
        {"arch": "x86_64", "cpu": "Intel(R) N100", "cores": 4},
    ],
)  # fmt: skip
def test_what_is_not_known_to_be_a_device_is_none(machine: dict[str, Any]) -> None:
    assert identify(machine) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"board": "Raspberry Pi 5 Model B Rev 1.0"}, 'this is "Raspberry Pi 5 Model B Rev 1.0", not an NVIDIA Jetson'),
        ({"board": None}, "gives no board name"),
        ({"memory_bytes": 4e9}, "it has 4.0 GB of memory, and the profile 8"),
        ({"power_mode": "MAXN_SUPER"}, "power mode MAXN_SUPER, and the profile holds for 15W"),
        ({"power_mode": None}, "could not be read (nvpmodel -q)"),
        ({"cores": 4}, "4 cores are on, and the profile has 6"),
        ({"cpu": "Cortex-A57"}, "its processor is Cortex-A57"),
        ({"arch": "armv7l"}, "the profile is of a 64-bit one"),
    ],
)  # fmt: skip
def test_the_reason_says_what_differs(change: dict[str, Any], words: str) -> None:
    found = match(declared(load_device("jetson")), {**ORIN, **change})
    assert not found.fits and words in found.words


def test_a_jetson_is_not_measured_on_its_processor() -> None:
    wanted = declared(load_device("jetson"))
    assert "not on its GPU" in match(wanted, ORIN, "CPUExecutionProvider").words
    for provider in ("TensorRT", "CUDAExecutionProvider", "TensorrtExecutionProvider"):
        assert match(wanted, ORIN, provider).fits
    assert match(declared(load_device("raspberry-pi-5")), PI, "CPUExecutionProvider").fits


def test_the_host_is_this_machine_and_every_fact_must_agree() -> None:
    wanted, here = declared(load_device("host")), this_machine()
    assert match(wanted, here).fits
    assert not match(wanted, {}).fits
    assert "cores 4096" in match(wanted, {**here, "cores": 4096}).words
    assert match(wanted, {"cpu": "a", "cores": 2}, here={"cpu": "a", "cores": 2}).fits


@pytest.mark.parametrize("name", device_names())
def test_what_a_result_keeps_of_a_device_says_the_same_as_its_profile(name: str) -> None:
    device = load_device(name)
    kept = device_to_dict(device)
    assert declared_in(kept) == declared(device)
    del kept["boards"]  # as a result from before profiles had them
    assert declared_in(kept).boards == device.boards


def test_a_profile_names_its_board_with_a_source_or_says_nothing() -> None:
    for name in device_names():
        facts = load_profile_facts(name)
        assert bool(facts.boards) == ("boards" in facts.sources), name
        if name.startswith(("jetson-", "raspberry-pi-")) and facts.kind != "npu":
            assert facts.boards, name


def test_a_hostile_machine_is_only_compared() -> None:
    wanted = declared_in(
        {"name": 5, "boards": ["[", "*]"], "cpu": [], "cores": "x", "memory_bytes": None}
    )
    found = match(
        wanted, {"board": "\x1b[2J" + "x" * 5000, "memory_bytes": "many", "cores": None, "cpu": 7}
    )
    assert not found.fits and len(found.words) < 300 and "\x1b" not in found.words
