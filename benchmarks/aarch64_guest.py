"""A Debian of 64-bit Arm with the wheels that the kit needs, whose Python runs under qemu's user mode."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

TOOLS = {"qemu-aarch64-static": "qemu-user-static", "mmdebstrap": "mmdebstrap"}
"""Programs and the Debian packages that they come in."""
PACKAGES = "python3,libstdc++6"
"""What the arm64 root holds beside Debian's essential packages: what the wheels link to."""
WHEELS = ("onnxruntime", "numpy", "pillow")
TAGS = [f"manylinux_2_{minor}_aarch64" for minor in (34, 28, 27, 17)] + ["manylinux2014_aarch64"]


@dataclass(frozen=True)
class Processor:
    """A processor that qemu emulates: its name there, what Linux shows of it, and where it is found."""

    name: str
    part: str
    features: str
    found_in: str

    def cpuinfo(self, cores: int) -> str:
        """/proc/cpuinfo of a machine of such cores."""
        return "".join(
            f"processor\t: {core}\nBogoMIPS\t: 100.00\nFeatures\t: {self.features}\nCPU implementer\t: 0x41\n"
            f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {self.part}\nCPU revision\t: 3\n\n"
            for core in range(cores)
        )


PROCESSORS = (
    Processor("cortex-a72", "0xd08", "fp asimd evtstrm crc32 cpuid", "Raspberry Pi 4"),
    Processor(
        "cortex-a76", "0xd0b", "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
        "dcpop asimddp", "Raspberry Pi 5, RK3588",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Guest:
    """The arm64 root with its wheels, in `work`."""

    work: Path

    @property
    def root(self) -> Path:
        """Root file system."""
        return self.work / "root"

    @property
    def site(self) -> Path:
        """Installed wheels."""
        return self.work / "site"

    def python(self, processor: Processor) -> list[str]:
        """The command of its Python: a script, so that what Python starts by its own name is emulated too.

        qemu 7.2 shows this machine's /proc/cpuinfo, and onnxruntime 1.31.1 crashes at import on one that names no Arm
        core: the root gets one that does, which qemu takes first.
        """
        shown, script = self.root / "proc" / "cpuinfo", self.work / f"python-{processor.name}"
        shown.parent.mkdir(exist_ok=True)
        shown.write_text(processor.cpuinfo(os.cpu_count() or 1))
        words = ["-cpu", processor.name, "-0", str(script), "-L", str(self.root)]
        command = ["qemu-aarch64-static", *words, str(self.root / "usr" / "bin" / "python3")]
        script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        script.chmod(0o755)
        return [str(script)]


def install_tools() -> None:
    """Install by apt what is missing."""
    missing = [package for program, package in TOOLS.items() if shutil.which(program) is None]
    if missing:
        print(f"installing by apt: {', '.join(missing)}", flush=True)
        command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def make_guest(work: Path, suite: str) -> Guest:
    """The arm64 root and its wheels; nothing of Arm runs, so that neither binfmt_misc nor chroot is needed."""
    guest = Guest(work)
    if not guest.root.exists():
        fresh = work / "root.tmp"
        shutil.rmtree(fresh, ignore_errors=True)
        print(f"making an arm64 root of Debian {suite} with {PACKAGES}", flush=True)
        how = ["--variant=extract", "--architectures=arm64", f"--include={PACKAGES}", "--quiet"]
        subprocess.run(["mmdebstrap", *how, suite, str(fresh)], check=True)
        fresh.rename(guest.root)
    if not guest.site.exists():
        fresh, tools = work / "site.tmp", work / "tools"
        shutil.rmtree(fresh, ignore_errors=True)
        version = os.readlink(guest.root / "usr" / "bin" / "python3").removeprefix("python")
        wanted = [f"{name}=={metadata.version(name)}" for name in WHEELS]
        print(f"taking aarch64 wheels for Python {version}: {' '.join(wanted)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(tools)], check=True)
        platforms = [word for tag in TAGS for word in ("--platform", tag)]
        how = [
            "--quiet",
            "--only-binary=:all:",
            "--python-version",
            version,
            "--target",
            str(fresh),
        ]
        command = [str(tools / "bin" / "pip"), "install", *how, *platforms, *wanted]
        subprocess.run(command, check=True)
        fresh.rename(guest.site)
    return guest
