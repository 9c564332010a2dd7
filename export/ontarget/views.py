"""Text for people: aligned tables, milliseconds, and names from a manifest without what a terminal
would obey.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ontarget.measure import smallest_n


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
    """The table of a bench, then a line for each percentile without enough runs and for each
    warning.
    """
    head = [
        "model",
        "threads",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "first ms",
        "load ms",
        "memory MB",
        "runs",
    ]
    body = [
        [
            str(row["model"]),
            str(row["threads"]),
            *(
                milliseconds(row[key])
                for key in ("p50_s", "p90_s", "p99_s", "first_run_s", "load_s")
            ),
            megabytes(row["peak_rss_bytes"]),
            str(row["n"]),
        ]
        for row in rows
    ]
    lines: list[str] = [table(head, body)]
    for row in rows:
        what = f"{row['model']}, threads {row['threads']}"
        for label, p in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
            if row[label + "_s"] is None:
                lines.append(f"{what}: {label} needs {smallest_n(p)} runs, has {row['n']}")
        lines.extend(f"{what}: {warning}" for warning in row["warnings"])
    return "\n".join(lines)
