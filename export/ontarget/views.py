"""Text for people: aligned tables, milliseconds, and names from a manifest without what a terminal
would obey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ontarget.percentiles import PERCENTILES, smallest_n


def clean(text: str, limit: int = 60) -> str:
    """Untrusted text for a terminal: control, direction and other unprintable characters become
    `?`.
    """
    short = text if len(text) <= limit else text[: limit - 3] + "..."
    return "".join(c if c.isprintable() else "?" for c in short)


def milliseconds(seconds: float | None) -> str:
    """Seconds as milliseconds with about three digits, `-` for None."""
    if seconds is None:
        return "-"
    value = seconds * 1000
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2 if value >= 0.9995 else 3
    return f"{value:.{digits}f}"


def megabytes(size: int | None) -> str:
    """Bytes as MB (10^6), `-` for None."""
    return "-" if size is None else f"{size / 1e6:.1f}" if size >= 100_000 else f"{size / 1e6:.3f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned table; the first column to the left, the others to the right."""
    lines = [list(head)] + [list(row) for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    out = []
    for line in lines:
        cells = [line[0].ljust(widths[0])] + [line[i].rjust(widths[i]) for i in range(1, len(line))]
        out.append("  ".join(cells).rstrip())
    return "\n".join(out)


def bench_table(rows: Sequence[dict[str, Any]]) -> str:
    """The table of a bench, then what it cannot show: percentiles without enough runs, parts of a run, warnings."""
    thorough = any(row["tier"] == "thorough" for row in rows)
    shown = [name for name, _ in PERCENTILES if thorough or name not in ("p95", "p999")]
    head = ["model", "threads", *(f"{_label(name)} ms" for name in shown), "first ms", "load ms"]
    body = [
        [
            str(row["model"]),
            str(row["threads"]),
            *(milliseconds(row[name + "_s"]) for name in shown),
            milliseconds(row["first_run_s"]),
            milliseconds(row["load_s"]),
            megabytes(row["peak_rss_bytes"]),
            str(row["n"]),
            {True: "yes", False: "NO", None: "-"}[row["stable"]],
        ]
        for row in rows
    ]
    lines: list[str] = [table([*head, "memory MB", "runs", "stable"], body)]
    for row in rows:
        what = f"{row['model']}, threads {row['threads']}"
        if row["parts_s"]:
            parts = ", ".join(f"{k} {milliseconds(v)}" for k, v in row["parts_s"].items())
            lines.append(f"{what}: of that, in ms: {parts}")
        if row["energy"]:
            energy = row["energy"]
            lines.append(
                f"{what}: {1e3 * energy['joules']:.3g} mJ a run above {energy['idle_watts']:.3g} W "
                f"idle ({energy['source']})"
            )
        for name, p in PERCENTILES:
            if name in shown and row[name + "_s"] is None:
                lines.append(f"{what}: {_label(name)} needs {smallest_n(p)} runs, has {row['n']}")
        lines.extend([f"{what}: {'; '.join(row['warnings'])}"] if row["warnings"] else [])
    lines.append(
        "Percentiles are upper bounds that hold with 99 % confidence; memory is above that of the "
        "empty process."
    )
    return "\n".join(lines)


def _label(name: str) -> str:
    return "p99.9" if name == "p999" else name


def compare_text(found: Mapping[str, Any]) -> str:
    """How two files stand to each other, in two lines and one for each warning."""
    slower = found["ratio"] >= 1
    change = abs(found["ratio"] - 1)
    old, new = found["old"], found["new"]
    lines = [
        f"{new['file']} takes {milliseconds(new['p50_s'])} ms, {old['file']} {milliseconds(old['p50_s'])} ms "
        f"({found['provider']}, threads {found['threads']}, batch {found['batch']})",
        f"new by old: {found['ratio']:.4f} ({change:.1%} {'slower' if slower else 'faster'}), "
        f"{found['low']:.4f} to {found['high']:.4f} with {found['confidence']:.1%} confidence, "
        f"{len(found['ratios'])} pairs of processes",
    ]
    return "\n".join([*lines, *found["warnings"]])
