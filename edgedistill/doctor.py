"""`edgedistill doctor`: what is installed here, which accelerators are seen, and what to do about what is missing.

Nothing heavy is imported into this process but onnxruntime; torch is asked in a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Status = Literal["ok", "missing", "wrong"]
TORCH_TIMEOUT_S = 180
ASK_TORCH = (
    "import json, torch; cuda = torch.cuda.is_available(); "
    "print(json.dumps([torch.__version__, torch.cuda.get_device_name() if cuda else None, "
    "torch.version.cuda, torch.get_num_threads()]))"
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: its state, what was found, and what to do (empty when nothing)."""

    name: str
    status: Status
    found: str
    advice: str = ""


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _extra(name: str) -> str:
    return f'pip install "edgedistill[{name}]"'


def python_check() -> Check:
    """The running Python."""
    return Check("python", "ok", ".".join(map(str, sys.version_info[:3])))


def onnxruntime_check() -> Check:
    """onnxruntime: exactly one of its two packages, and what it can run on."""
    cpu, gpu = _version("onnxruntime"), _version("onnxruntime-gpu")
    if cpu and gpu:
        return Check(
            "onnxruntime", "wrong", f"onnxruntime {cpu} and onnxruntime-gpu {gpu}, in one folder",
            "uninstall both, then install one: pip uninstall onnxruntime onnxruntime-gpu",
        )  # fmt: skip
    if not (cpu or gpu):
        return Check("onnxruntime", "missing", "not installed", f"{_extra('cpu')}  (or gpu)")
    try:
        import onnxruntime
    except Exception as error:  # a broken build raises anything at import
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Check("onnxruntime", "wrong", f"cannot be imported: {first}", "install it again")
    providers = [p.removesuffix("ExecutionProvider") for p in onnxruntime.get_available_providers()]
    return Check("onnxruntime", "ok", f"{cpu or gpu}, runs on {', '.join(providers)}")


def torch_check() -> Check:
    """torch, asked in its own process, and the accelerator that it sees."""
    if importlib.util.find_spec("torch") is None:
        return Check("torch", "missing", "not installed", f"{_extra('train')}  (to train)")
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", ASK_TORCH],
            capture_output=True, text=True, timeout=TORCH_TIMEOUT_S, check=False,
        )  # fmt: skip
        version, gpu, cuda, threads = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return Check("torch", "wrong", "cannot be imported", "install it again")
    if gpu:
        return Check("torch", "ok", f"{version}, {gpu}, CUDA {cuda}")
    return Check("torch", "ok", f"{version}, no GPU seen, {threads} CPU threads")


def driver_check() -> Check:
    """The NVIDIA driver, by `nvidia-smi`."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Check("NVIDIA driver", "missing", "no nvidia-smi", "only needed for a GPU here")
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return Check("NVIDIA driver", "wrong", "nvidia-smi does not answer", "check the driver")
    if done.returncode != 0:
        return Check("NVIDIA driver", "wrong", "nvidia-smi finds no GPU", "check the driver")
    return Check("NVIDIA driver", "ok", "; ".join(done.stdout.strip().splitlines()))


def package_check(package: str, extra: str, use: str) -> Callable[[], Check]:
    """A check for one package of an extra."""

    def check() -> Check:
        version = _version(package)
        if version is None:
            return Check(package, "missing", "not installed", f"{_extra(extra)}  ({use})")
        return Check(package, "ok", version)

    return check


def weights_check() -> Check:
    """Pretrained weights that need no hub."""
    from edgedistill.teacher.bundled import BUNDLED, bundled_file

    here = [name for name in BUNDLED if bundled_file(name) is not None]
    if not here:
        return Check(
            "bundled weights", "missing", "none", f"{_extra('sample')}  (a teacher without a hub)"
        )
    return Check("bundled weights", "ok", ", ".join(f"bundled:{name}" for name in here))


def disk_check() -> Check:
    """Free space where runs go."""
    free = shutil.disk_usage(".").free
    if free < 1_000_000_000:
        return Check("disk", "wrong", f"{free / 1e9:.1f} GB free here", "free some space")
    return Check("disk", "ok", f"{free / 1e9:.0f} GB free here")


CHECKS: tuple[Callable[[], Check], ...] = (
    python_check,
    torch_check,
    driver_check,
    package_check("timm", "train", "teachers and students"),
    package_check("transformers", "hf", "teachers given as hf:..."),
    package_check("onnx", "cpu", "export"),
    onnxruntime_check,
    package_check("diffusers", "synth", "synthetic images"),
    package_check("tensorrt", "tensorrt", "engines on this machine"),
    package_check("tensorboard", "log", "training curves with --log tensorboard"),
    package_check("datasets", "data", "Parquet files, data sets of a hub, shards by address"),
    weights_check,
    disk_check,
)


def checks() -> list[Check]:
    """Every check, in order."""
    return [check() for check in CHECKS]


def doctor_view(found: list[Check]) -> RenderableType:
    """The checks as a table, and one sentence on what this machine can do."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    styles = {"ok": "green", "missing": "yellow", "wrong": "red"}
    for check in found:
        mark = Text(check.status, style=styles[check.status])
        table.add_row(mark, check.name, Text(check.found), Text(check.advice))
    state = {check.name: check.status for check in found}
    if "wrong" in state.values():
        verdict = "Something is wrong here; see the lines in red."
    elif state.get("torch") == "ok" and state.get("onnxruntime") == "ok":
        verdict = "This machine can run  edgedistill build."
    else:
        verdict = "This machine can plan, report and check; to build, install what is missing."
    return Group(table, Text(""), Text(verdict))
