"""Whether the machine that a kit document names is the device of a profile: only then is its time a time of the target.

A board is known by the name that its device tree gives, and by what tells apart boards of one name: memory, power mode,
cores that are on, a 64-bit system. What cannot be known is said, and counts as no.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from edgedistill.target.device import Device, device_names, load_profile_facts
from edgedistill.target.measured import HOST, fingerprint

CPU, UNKNOWN = "CPUExecutionProvider", "unknown"
MEMORY_SHARE = (0.75, 1.35)
"""What a system shows of the declared memory: firmware and GPU keep some, and gigabytes are of two kinds."""
_CORES = re.compile(r"cortexa\d+[a-z]*|neoverse[a-z]\d[a-z]*|carmel|denver\d?")


@dataclass(frozen=True)
class Declared:
    """Of a profile, what a machine is compared with."""

    name: str
    title: str
    kind: str
    boards: tuple[str, ...] = ()
    cpu: str | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    power_mode: str | None = None


@dataclass(frozen=True)
class Match:
    """Whether a machine is the device, and the reason in words."""

    fits: bool
    words: str


def declared(device: Device | Declared) -> Declared:
    """What a device declares."""
    if isinstance(device, Declared):
        return device
    return Declared(
        device.name, device.title, device.kind, device.boards,
        device.cpu.name if device.cpu is not None else None,
        device.cores, device.memory_bytes, device.power_mode,
    )  # fmt: skip


def declared_in(document: Mapping[str, Any]) -> Declared:
    """The same of the `device` of a result; what an older result does not have comes from the shipped profile."""
    name = str(document.get("name") or "unknown")
    boards, cpu = document.get("boards"), document.get("cpu")
    if boards is None and name in device_names():
        boards = load_profile_facts(name).boards
    cores, memory, mode = (document.get(k) for k in ("cores", "memory_bytes", "power_mode"))
    return Declared(
        name=name,
        title=str(document.get("title") or name),
        kind=str(document.get("kind") or "unknown"),
        boards=tuple(str(b) for b in boards) if isinstance(boards, list | tuple) else (),
        cpu=str(cpu["name"]) if isinstance(cpu, Mapping) and "name" in cpu else None,
        cores=cores if isinstance(cores, int) else None,
        memory_bytes=memory if isinstance(memory, int) else None,
        power_mode=mode if isinstance(mode, str) else None,
    )


def match(
    wanted: Declared,
    machine: Mapping[str, Any],
    provider: str | None = None,
    here: Mapping[str, Any] | None = None,
) -> Match:
    """Whether `machine` (facts of a kit document) is the device, and for a run on `provider` whether that is what the
    device is for. `here` are the facts of what `host` means, this machine where it is `None`.
    """
    if wanted.name == HOST:
        return _host(machine, here)
    board = machine.get("board")
    if wanted.name == UNKNOWN:
        return Match(False, "it is not known which device this machine is: say it with --device")
    if not wanted.boards:
        return Match(
            False,
            f"the profile {wanted.name} does not say what its board calls itself (boards), so no machine is known to "
            "be it",
        )
    if not board:
        return Match(
            False, f"this machine gives no board name, so it is not known to be {_a(wanted.title)}"
        )
    if not any(_like(str(board), pattern) for pattern in wanted.boards):
        return Match(False, f'this is "{_short(board)}", not {_a(wanted.title)}')
    faults = [*_differences(wanted, machine), *_beside(wanted, provider)]
    if faults:
        return Match(False, f'this is "{_short(board)}", but {" and ".join(faults)}')
    mode = f" in {wanted.power_mode}" if wanted.power_mode else ""
    return Match(True, f'this is "{_short(board)}"{mode}')


def _host(machine: Mapping[str, Any], here: Mapping[str, Any] | None) -> Match:
    if here is None:
        from ontarget.machine import machine as own

        here = own()
    mine, its = fingerprint(here), fingerprint(machine)
    other = [
        f"{k} {_short(its.get(k, 'unknown'))}, not {_short(mine[k])}"
        for k in mine
        if its.get(k) != mine[k]
    ]
    if other:
        return Match(False, f"this is another machine than the host: {'; '.join(other)}")
    return Match(True, "this is the host itself")


def _differences(wanted: Declared, machine: Mapping[str, Any]) -> Iterator[str]:
    """What tells a board apart from another of the same name."""
    arch = str(machine.get("arch") or "aarch64").lower()
    if arch not in ("aarch64", "arm64"):
        yield f"it runs a system for {_short(arch)}, and the profile is of a 64-bit one"
    memory = machine.get("memory_bytes")
    if wanted.kind == "nvidia_gpu" and wanted.memory_bytes and isinstance(memory, int | float):
        low, high = MEMORY_SHARE
        if not low <= memory / wanted.memory_bytes <= high:
            yield f"it has {memory / 1e9:.1f} GB of memory, and the profile {wanted.memory_bytes / 1e9:.0f}"
    if wanted.power_mode is not None:
        mode = machine.get("power_mode")
        if not mode:
            yield "its power mode could not be read (nvpmodel -q)"
        elif _mode(str(mode)) != _mode(wanted.power_mode):
            yield f"it is in power mode {_short(mode)}, and the profile holds for {wanted.power_mode}"
    cores = machine.get("cores")
    if wanted.cores is not None and isinstance(cores, int) and cores != wanted.cores:
        yield f"{cores} cores are on, and the profile has {wanted.cores}"
    known, seen = _core_names(wanted.cpu), _core_names(machine.get("cpu"))
    if known and seen and not known & seen:
        yield f"its processor is {_short(machine['cpu'])}, and the profile has {wanted.cpu}"


def _beside(wanted: Declared, provider: str | None) -> Iterator[str]:
    """Where a run did not use what the device is for."""
    if provider is None:
        return
    if wanted.kind == "nvidia_gpu" and provider == CPU:
        yield "the model ran on its processor, not on its GPU"
    if wanted.kind == "npu":
        yield "the model did not run on its NPU"


def namesakes(machine: Mapping[str, Any]) -> list[Declared]:
    """Every shipped profile whose board has the machine's name, in whatever mode that is."""
    board = str(machine.get("board") or "")
    found = (declared(load_profile_facts(name)) for name in device_names() if name != HOST)
    return [d for d in found if any(_like(board, pattern) for pattern in d.boards)]


def identify(machine: Mapping[str, Any]) -> list[Declared]:
    """Every shipped profile that a machine fits, but `host`."""
    found = (declared(load_profile_facts(name)) for name in device_names() if name != HOST)
    return [d for d in found if match(d, machine).fits]


def _like(board: str, pattern: str) -> bool:
    return fnmatchcase(" ".join(board.lower().split()), pattern.lower())


def _mode(text: str) -> str:
    return text.strip().upper().removeprefix("MODE_")


def _core_names(text: object) -> set[str]:
    return set(_CORES.findall(re.sub(r"[^a-z0-9,]", "", str(text or "").lower())))


def _short(value: object, most: int = 80) -> str:
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return text if len(text) <= most else text[: most - 3] + "..."


def _a(title: str) -> str:
    return f"a{'n' if title[:1] in 'AEIOU' or title.startswith('NVIDIA') else ''} {title}"
