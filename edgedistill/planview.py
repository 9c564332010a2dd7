"""What the terminal shows of plans and devices. Milliseconds and megabytes exist only in views like this."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgedistill.evidence.view.figures import milliseconds, visible
from edgedistill.result import Candidate, Plan
from edgedistill.target.device import Device, device_names, load_device
from edgedistill.target.latency import TIER_WORDS
from edgedistill.target.measured import Measured

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
    tier = f" {candidate.tier}" if candidate.tier else ""
    return f"{1e3 * candidate.latency_s:.2f} ({1e3 * low:.2f}-{1e3 * high:.2f}){tier}"


def _rows(title: str, candidates: Sequence[Candidate], most: int) -> list[RenderableType]:
    """One line of figures a candidate, and the reason below it, so that a narrow terminal shows both."""
    if not candidates:
        return []
    measured = any(c.measured_s for c in candidates)
    heads = ["student", "px", "precision", "start", "ms predicted", "MB", "MB used", "prior"]
    heads += ["ms here"] if measured else []
    cells = [heads, *(_cells(c, measured) for c in candidates[:most])]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    parts: list[RenderableType] = [Text(title, style="bold"), Text(lines[0], style="dim")]
    for line, candidate in zip(lines[1:], candidates, strict=False):
        parts += [Text(line), Text(visible(f"    {candidate.reason}"), style="dim")]
    more = len(candidates) - most
    parts += [Text(f"and {more} more", style="dim")] if more > 0 else []
    return [*parts, Text("")]


def _cells(c: Candidate, measured: bool) -> list[str]:
    memory = "-" if c.memory_bytes is None else f"{c.memory_bytes / 1e6:.0f}"
    prior = "-" if c.expected_top1 is None else f"{c.expected_top1:.3f}"
    start = "pretrained" if c.pretrained else "random"
    row = [c.model, str(c.input_size), c.precision, start, _band(c)]
    row += [f"{c.size_bytes / 1e6:.2f}", memory, prior]
    here = [f"{1e3 * c.measured_s:.2f}" if c.measured_s else "-"] if measured else []
    return row + here


def candidates_view(plan: Plan, limit_s: float | None = None, most: int = 5) -> RenderableType:
    """The chosen student, those behind it, the nearest misses, each with its reason, and the front as a chart."""
    parts: list[RenderableType] = [Text(f"{plan.considered:,} candidates were weighed."), Text("")]
    parts += _rows("chosen", [plan.chosen], 1)
    parts += _rows("behind it", plan.runners_up, most)
    parts += _rows("rejected, nearest first", plan.rejected, most)
    chart = front_chart(plan, limit_s)
    if chart:
        title = "what latency buys: expected accuracy against predicted milliseconds"
        parts += [Text(title, style="bold"), Text(chart), Text("")]
    return Group(*parts)


def front_chart(plan: Plan, limit_s: float | None = None, width: int = 64, height: int = 12) -> str:
    """The Pareto front as text, latency on a logarithmic axis; empty with fewer than two points.

    `*` is the choice, `o` a candidate of the front, `|` the limit.
    """
    points = [(c.latency_s, c.expected_top1, "o") for c in plan.front]
    points.append((plan.chosen.latency_s, plan.chosen.expected_top1, "*"))
    known = [(math.log(x), y, mark) for x, y, mark in points if x and y is not None]
    if len({x for x, _, _ in known}) < 2 or len({y for _, y, _ in known}) < 2:
        return ""
    limit = math.log(limit_s) if limit_s else known[0][0]
    left = min(limit, *(x for x, _, _ in known))
    right = max(limit, *(x for x, _, _ in known))
    low, high = min(y for _, y, _ in known), max(y for _, y, _ in known)
    grid = [[" "] * width for _ in range(height)]

    def column(x: float) -> int:
        return round((x - left) / (right - left) * (width - 1))

    if limit_s:
        for line in grid:
            line[column(limit)] = "|"
    for x, y, mark in known:
        grid[round((high - y) / (high - low) * (height - 1))][column(x)] = mark
    names = [f"{high:.3f}", *[""] * (height - 2), f"{low:.3f}"]
    lines = [f"{name:>6} {''.join(line).rstrip()}" for name, line in zip(names, grid, strict=True)]
    ends = f"{1e3 * math.exp(left):.2g} ms", f"{1e3 * math.exp(right):.2g} ms"
    lines.append(f"{'':7}{ends[0]}{ends[1]:>{max(1, width - len(ends[0]))}}")
    if limit_s:
        lines.append(f"{'':7}| {1e3 * limit_s:g} ms allowed, * the choice")
    return "\n".join(lines)


def plan_view(plan: Plan, resolved: Resolved, dataset: Dataset) -> RenderableType:
    """What `--dry-run` shows: data, candidates, and the whole recipe with its reasons."""
    counts = f"{len(dataset.train):,} train, {len(dataset.val):,} val, {len(dataset.test):,} test"
    data = Text(
        f"{visible(dataset.name)}: {counts} images, {len(dataset.classes)} classes, "
        f"{len(dataset.skipped)} files left out"
        + (f", {len(dataset.unlabelled):,} more without labels" if dataset.unlabelled else "")
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
    for precision, model in device.latency.items():
        low, high = model.bands[model.tier]
        words = model.words or TIER_WORDS[model.tier]
        more = ", wider where its sums disagree" if model.widening else ""
        shown = f"tier {model.tier}, times {low:.2g} to {high:.2g}{more}: {words}"
        source = "; ".join(model.sources) or device.sources.get("latency", "")
        table.add_row(f"latency, {precision}", shown, _plain(source))
    notes = [_plain(f"note: {note}") for note in device.notes]
    title = Text(visible(f"{device.name}: {device.title}"), style="bold")
    return Group(title, Text(""), table, *notes)


def measured_view(measured: Measured, path: Path) -> RenderableType:
    """What a measurement found: how well its fit predicts networks of families that it was not shown."""
    table = _table("precision", "networks", "median error", "p90 error", "band")
    for precision, model in measured.models.items():
        low, high = model.band
        table.add_row(
            precision, str(model.n), f"{100 * model.median_error:.1f} %",
            f"{100 * model.p90_error:.1f} %", f"times {low:.2f} to {high:.2f}",
        )  # fmt: skip
    cpu = measured.fingerprint.get("cpu", "this machine")
    threads = f"{measured.threads} thread{'' if measured.threads == 1 else 's'}"
    head = Text(visible(f"{measured.device}: {cpu}, {measured.runtime}, {threads}"), style="bold")
    words = (
        "errors are of the networks timed here, each predicted without its family: odd ones, chosen for what they "
        f"teach. The band is that of ordinary students. Kept in {path}"
    )
    tail = Text(visible(words), style="dim")
    return Group(head, table, tail)
