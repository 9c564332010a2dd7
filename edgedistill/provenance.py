"""What made a result: versions of the packages that matter, of Python, and of edgedistill itself."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "torch", "torchvision", "timm", "accelerate", "diffusers", "onnx", "onnxruntime",
    "onnxruntime-gpu", "tensorrt", "numpy", "pillow",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of the packages that matter for a number, those that are installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def git_commit() -> str | None:
    """Commit of the edgedistill checkout that runs (with `-dirty`), or `None` for an installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def python_version() -> str:
    """Version of the running Python."""
    return platform.python_version()
