"""What the terminal shows of plans and devices. Milliseconds and megabytes exist only in views like this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgedistill.evidence.figures import milliseconds, visible
from edgedistill.result import Candidate, Plan
from edgedistill.target.device import Device, device_names, load_device

if TYPE_CHECKING:
    from edgedistill.data.dataset import Dataset
    from edgedistill.recipe import Resolved


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _plain(text: str) -> Text:
    """Words as they stand: square brackets are no markup, and hidden characters are spelled out."""
    return Text(visible(text))


def _band(candidate: Candidate) -> str:
    if candidate.latency_s is None or candidate.latency_band_s is None:
        return "no prediction"
    low, high = candidate.latency_band_s
    return f"{1e3 * candidate.latency_s:.2f} ({1e3 * low:.2f}-{1e3 * high:.2f})"


def _rows(title: str, candidates: Sequence[Candidate], most: int) -> list[RenderableType]:
    if not candidates:
        return []
    table = _table("student", "px", "precision", "start", "ms predicted", "MB", "why")
    for c in candidates[:most]:
        start = "pretrained" if c.pretrained else "random"
        size = f"{c.size_bytes / 1e6:.2f}"
        reason = _plain(c.reason)
        table.add_row(c.model, str(c.input_size), c.precision, start, _band(c), size, reason)
    more = len(candidates) - most
    tail = [Text(f"and {more} more", style="dim")] if more > 0 else []
    return [Text(title, style="bold"), table, *tail, Text("")]


def candidates_view(plan: Plan) -> RenderableType:
    """The chosen student, those behind it, and the nearest misses, each with its reason."""
    parts: list[RenderableType] = [Text(f"{plan.considered:,} candidates were weighed."), Text("")]
    parts += _rows("chosen", [plan.chosen], 1)
    parts += _rows("behind it", plan.runners_up, 5)
    parts += _rows("rejected", plan.rejected, 5)
    return Group(*parts)


def plan_view(plan: Plan, resolved: Resolved, dataset: Dataset) -> RenderableType:
    """What `--dry-run` shows: data, candidates, and the whole recipe with its reasons."""
    counts = f"{len(dataset.train):,} train, {len(dataset.val):,} val, {len(dataset.test):,} test"
    data = Text(
        f"{visible(dataset.name)}: {counts} images, {len(dataset.classes)} classes, "
        f"{len(dataset.skipped)} files left out"
    )
    return Group(data, candidates_view(plan), Text(resolved.dump()))


def devices_view() -> RenderableType:
    """Every shipped profile with aliases and default limits."""
    table = _table("device", "also called", "runtime", "latency", "size", "what it is")
    for name in device_names():
        device = load_device(name)
        limits = device.limits
        size = f"{limits.size_bytes / 1e6:g} MB" if limits.size_bytes else "-"
        latency = milliseconds(limits.latency_s) if limits.latency_s else "-"
        table.add_row(name, ", ".join(device.aliases), device.runtime, latency, size, device.title)
    return table


def device_view(device: Device) -> RenderableType:
    """One device: its facts, and the source of each."""
    table = _table("fact", "value", "source")
    facts = {
        "kind": device.kind,
        "runtime": device.runtime,
        "precisions": ", ".join(device.precisions),
        "natural_precision": device.natural_precision,
        "cores": device.cores,
        "memory_bytes": device.memory_bytes,
        "memory_bytes_per_s": device.memory_bytes_per_s,
        "opset": device.opset,
        "input_layout": device.input_layout,
        "int8_flavour": device.int8_flavour,
        "jetpack": device.jetpack,
        "tensorrt": device.tensorrt,
    }
    for key, value in facts.items():
        shown = (
            "unknown" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
        )
        table.add_row(key, _plain(shown), _plain(device.sources.get(key, "")))
    for precision, terms in device.latency.items():
        bandwidth = f", {terms.bytes_per_s / 1e9:,.1f} GB/s" if terms.bytes_per_s else ""
        words = (
            f"{1e6 * terms.overhead_s:.1f} us a kernel, {terms.macs_per_s / 1e9:,.0f} GMAC/s"
            f"{bandwidth}, tier {terms.tier}"
        )
        table.add_row(f"latency, {precision}", words, _plain(device.sources.get("latency", "")))
    notes = [_plain(f"note: {note}") for note in device.notes]
    title = Text(visible(f"{device.name}: {device.title}"), style="bold")
    return Group(title, Text(""), table, *notes)
