"""Which machine this is, as far as it tells: every fact is None when it is not known, and nothing
raises.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ontarget.fields import ContractError
from ontarget.session import cores

ROOT = Path("/")


def text_of(path: Path, limit: int = 1 << 20) -> str | None:
    """The text of a file of the system, None where it is empty or cannot be read."""
    try:
        with path.open("rb") as file:
            raw = file.read(limit)
    except (OSError, ValueError):
        return None
    return raw.decode("utf-8", "replace").replace("\0", "").strip() or None


def board(root: Path = ROOT) -> str | None:
    """The board's name from the device tree, for example of a Jetson or a Raspberry Pi; None on a
    PC.
    """
    return text_of(root / "proc/device-tree/model")


def cpu_model(root: Path = ROOT) -> str | None:
    """The processor's name; on Arm, where Linux gives none, the implementer and part of each kind
    of core.

    What else stands there on Arm names no processor: a Jetson has "ARMv8 Processor rev 1 (v8l)" as
    its model, and each Raspberry Pi to the fourth BCM2835 as its hardware.
    """
    text = text_of(root / "proc/cpuinfo")
    if text is None:
        return platform.processor() or platform.machine() or None
    parts = re.findall(
        r"^CPU implementer\s*:\s*(\S+)(?:.*\n)*?CPU part\s*:\s*(\S+)", text, re.MULTILINE
    )
    if parts:
        return ", ".join(sorted({_ARM_PARTS.get(p, "Arm " + "/".join(p)) for p in parts}))
    for key in ("model name", "Hardware", "cpu model"):
        found = re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.machine() or None


_ARM_PARTS = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse N1",
    ("0x41", "0xd40"): "Neoverse V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd44"): "Cortex-X1",
    ("0x41", "0xd46"): "Cortex-A510",
    ("0x41", "0xd4d"): "Cortex-A715",
    ("0x41", "0xd4e"): "Cortex-X3",
    ("0x41", "0xd4f"): "Neoverse V2",
    ("0x41", "0xd83"): "Neoverse V3AE",
    ("0x4e", "0x003"): "NVIDIA Denver 2",
    ("0x4e", "0x004"): "NVIDIA Carmel",
}


def affinity() -> list[int]:
    """The logical cores that this process may use, empty where the system does not tell."""
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:
        return []


def governor(root: Path = ROOT) -> str | None:
    """The frequency governor of the first core, None when the system shows none."""
    return text_of(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def memory_bytes(root: Path = ROOT) -> int | None:
    """Memory of the machine in bytes."""
    found = re.search(r"^MemTotal:\s*(\d+) kB", text_of(root / "proc/meminfo") or "", re.MULTILINE)
    if found:
        return int(found.group(1)) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def available_bytes(root: Path = ROOT) -> int | None:
    """Memory that programs can still have, in bytes."""
    text = text_of(root / "proc/meminfo") or ""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def require_room(images: int, side: int, itemsize: int) -> None:
    """Raises ContractError where a batch of inputs, as bytes and as the graph takes them, is more than memory has."""
    need, have = images * side * side * 3 * (1 + itemsize), available_bytes()
    if have is not None and need > have:
        raise ContractError(
            f"a batch of {images} images of {side} px takes {need / 1e9:.1f} GB of inputs alone, and "
            f"{have / 1e9:.1f} GB are free: use a smaller --batch, or a model without a batch of its own."
        )


def limit_memory() -> None:
    """Let this process have no more memory than the machine has, and be the first that the system ends for want of it.

    What a hostile graph asks for then ends its own process and no other; nothing where the system has no such limit.
    """
    with contextlib.suppress(OSError):
        (ROOT / "proc/self/oom_score_adj").write_text("1000")
    most = memory_bytes()
    try:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if most is not None and (hard == resource.RLIM_INFINITY or most < hard):
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    except (ImportError, OSError, ValueError):
        pass


def gpu_clock_hz(root: Path = ROOT) -> int | None:
    """The GPU's clock on a Jetson, as its device frequency driver shows it."""
    try:
        folders = sorted((root / "sys/class/devfreq").glob("*"))
    except OSError:
        return None
    for folder in folders:
        if folder.name.endswith((".gpu", ".gv11b", ".gp10b", ".ga10b")):
            text = text_of(folder / "cur_freq") or ""
            return int(text) if text.isdigit() else None
    return None


def temperature_c(root: Path = ROOT) -> float | None:
    """The hottest thermal zone in degrees Celsius, None when none is shown."""
    found = []
    try:
        zones = sorted((root / "sys/class/thermal").glob("thermal_zone*/temp"))
    except OSError:
        return None
    for zone in zones:
        try:
            value = int(text_of(zone) or "") / 1000
        except ValueError:
            continue
        if 0 < value < 150:
            found.append(value)
    return max(found) if found else None


def l4t_release(root: Path = ROOT) -> str | None:
    """Jetson Linux as "36.4.3" from /etc/nv_tegra_release, None elsewhere."""
    text = text_of(root / "etc/nv_tegra_release") or ""
    found = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", text)
    return f"{found.group(1)}.{found.group(2)}" if found else None


def power_mode() -> str | None:
    """The Jetson's power mode by name from `nvpmodel -q`, None elsewhere. Numbers differ from board
    to board.
    """
    program = shutil.which("nvpmodel")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-q"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"NV Power Mode\s*:\s*(.+)", done.stdout.decode("utf-8", "replace"))
    return found.group(1).strip() if found else None


def package_version(name: str) -> str | None:
    """The version of an installed package without importing it."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except Exception:  # damaged metadata of a foreign package must not end a run
        return None


def runtime_version() -> str | None:
    """The version of onnxruntime under whichever of its packages it came."""
    for name in ("onnxruntime", "onnxruntime-gpu"):
        version = package_version(name)
        if version is not None:
            return version
    try:
        return str(importlib.import_module("onnxruntime").__version__)
    except Exception:
        return None


def machine() -> dict[str, Any]:
    """Facts on this machine for the report; a fact that is not known is None. Never raises."""
    facts: dict[str, Callable[[], Any]] = {
        "board": board,
        "cpu": cpu_model,
        "arch": platform.machine,
        "cores": os.cpu_count,
        "cores_usable": cores,
        "memory_bytes": memory_bytes,
        "os": platform.platform,
        "python": platform.python_version,
        "governor": governor,
        "temperature_c": temperature_c,
        "l4t": l4t_release,
        "power_mode": power_mode,
        "numpy": lambda: package_version("numpy"),
        "onnxruntime": runtime_version,
        "tensorrt": lambda: package_version("tensorrt"),
    }
    out: dict[str, Any] = {}
    for key, ask in facts.items():
        try:
            out[key] = ask()
        except Exception:  # a fact that cannot be read is unknown, nothing more
            out[key] = None
    return out


def peak_rss_bytes() -> int | None:
    """Peak resident size of this process in bytes, None on Windows.

    On Linux it is VmHWM, which starts anew with each program: the peak of `getrusage` still holds
    that of the process which started this one, and would charge a small child for a large parent.
    """
    found = re.search(r"^VmHWM:\s*(\d+) kB", text_of(Path("/proc/self/status")) or "", re.MULTILINE)
    if found:
        return int(found.group(1)) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
