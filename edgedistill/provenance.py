"""What made a result: the time, versions of the packages that matter, of Python, and of edgedistill itself."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from edgedistill.errors import UsageError

PACKAGES = (
    "torch", "torchvision", "timm", "accelerate", "diffusers", "onnx", "onnxruntime",
    "onnxruntime-gpu", "tensorrt", "numpy", "pillow",
)  # fmt: skip
UTC_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
LATEST_EPOCH = 253_402_300_799
"""The end of the year 9999."""


def now_utc() -> str:
    """The time now, as `2026-11-22T10:00:00Z`."""
    return datetime.now(UTC).strftime(UTC_FORMAT)


def made_utc() -> str:
    """The time that ships: that of `SOURCE_DATE_EPOCH` where it is set, so that the same input gives the same bytes,
    else now.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch:
        return now_utc()
    if not (epoch.isascii() and epoch.isdecimal() and int(epoch[:20]) <= LATEST_EPOCH):
        raise UsageError(
            f'SOURCE_DATE_EPOCH is a whole number of seconds since 1970; got "{epoch[:40]}"'
        )
    return datetime.fromtimestamp(int(epoch), UTC).strftime(UTC_FORMAT)


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
