"""What an export made, for a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill.result import Precision


@dataclass(frozen=True)
class Row:
    """One file that was made: its numbers against torch, its validation top-1 if any, and why it ships or does not."""

    file: str
    size_bytes: int
    precision: Precision
    parity: Mapping[str, Any]
    val_top1: float | None
    reason: str


@dataclass(frozen=True)
class Exported:
    """What was written, for a person."""

    folder: Path
    title: str
    device: str
    rows: tuple[Row, ...]
    chosen: Precision
    images: str
    val_images: int
    notes: tuple[str, ...]
    bundle_bytes: int
