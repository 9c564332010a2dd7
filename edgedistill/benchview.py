"""What the terminal shows of a measurement: percentiles with their counts, memory, what they are worth, what to do."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgedistill.benching import Benched
from edgedistill.evidence.view import figures
from edgedistill.latencyresult import Comparison, Latency

WORDS = {
    "measured_on_target": "on the target",
    "measured_on_proxy": "on a proxy",
    "predicted": "predicted",
}
QUIET = (
    "unstable: close other programs and fix the clocks (sudo jetson_clocks on a Jetson, the performance governor "
    "elsewhere), then measure again"
)


def bench_view(found: Benched) -> RenderableType:
    """The table of rows, or the comparison; below it the reason of the grade, and what to do."""
    if found.comparison is not None:
        return _comparison(found.comparison)
    rows = [(name, row) for name, several in found.rows.items() for row in several]
    parts: list[RenderableType] = [Text(_head(found, rows)), Text(""), _table(rows), Text("")]
    parts += [Text(line) for line in _notes(found, rows)]
    return Group(*parts)


def _head(found: Benched, rows: list[tuple[str, Latency]]) -> str:
    """What was measured, where, and what is the same in every row."""
    if not rows:
        return f"{figures.short(found.name)}: nothing was measured"
    first = rows[0][1]
    lines = [
        f"{figures.short(found.name)} for {figures.short(found.device)}, measured on {figures.short(first.machine)}"
    ]
    how = f"{first.runtime}, {', '.join(dict.fromkeys(row.provider for _, row in rows))}, batch {first.batch}"
    paced = f", paced at {first.fps:g} a second" if first.fps is not None else ""
    scope = "from picture to class" if first.scope == "end_to_end" else "model only"
    return "\n".join([*lines, figures.short(f"{how}, {scope}{paced}", 200)])


def _table(rows: list[tuple[str, Latency]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.show_edge = False
    table.add_column("file", overflow="fold")
    for head in ("threads", "p50 ms", "p90 ms", "p99 ms", "runs", "first ms", "memory MB"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("stable", no_wrap=True)
    for name, row in rows:
        table.add_row(
            figures.short(name, 40),
            str(row.threads),
            *(_ms(value) for value in (row.p50_s, row.p90_s, row.p99_s)),
            f"{row.n:,}",
            _ms(row.first_run_s),
            "-" if row.peak_rss_bytes is None else f"{row.peak_rss_bytes / 1e6:.0f}",
            {True: "yes", False: "no", None: "-"}[row.stable],
        )
    return table


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _ms(value: float | None) -> str:
    return "-" if value is None else figures.significant(1e3 * value)


def _notes(found: Benched, rows: list[tuple[str, Latency]]) -> Iterator[str]:
    yield (
        "Percentiles are upper bounds that hold with 99 % confidence; one that the runs cannot carry is not printed. "
        "Memory is above that of the empty process."
    )
    for words in dict.fromkeys(row.evidence_words for _, row in rows):
        several = {row.evidence for _, row in rows if row.evidence_words == words}
        yield f"Evidence: {', '.join(WORDS[e] for e in sorted(several))}, as {figures.short(words, 400)}."
    for name, row in rows:
        if row.warnings:
            told = "; ".join(figures.short(warning, 300) for warning in row.warnings[:5])
            yield f"- {figures.short(name, 40)}, {_threads(row.threads)}: {told}"
    if any(row.stable is False for _, row in rows):
        yield QUIET[0].upper() + QUIET[1:] + "."
    if not found.remote and any(row.evidence == "measured_on_proxy" for _, row in rows):
        yield "These numbers pass no limit of the device: measure on it, with --target ssh://user@board."
    if found.run is not None:
        yield f"Recorded in {figures.short(str(found.run), 200)}."


def _comparison(found: Comparison) -> RenderableType:
    """How much slower the new file is than the old one."""
    change = 100 * (found.ratio - 1)
    word = "slower" if change >= 0 else "faster"
    lines = [
        f"{figures.short(found.new.name)} against {figures.short(found.old.name)} on {figures.short(found.machine)}, "
        f"{figures.short(found.provider)}, {_threads(found.threads)}",
        "",
        f"{abs(change):.1f} % {word}: ratio {found.ratio:.3f}, {100 * found.confidence:g} % interval "
        f"{found.low:.3f} to "
        f"{found.high:.3f}, {len(found.ratios)} pairs of processes in turns",
        f"p50 {_ms(found.new.p50_s)} ms against {_ms(found.old.p50_s)} ms ({found.new.n:,} and {found.old.n:,} runs), "
        + WORDS[found.evidence],
    ]
    if found.low <= 1 <= found.high:
        lines.append(
            "No difference is shown: 1 lies in the interval. --thorough makes it narrower."
        )
    lines += [f"- {figures.short(w, 300)}" for w in found.warnings[:8]]
    return Text("\n".join(lines))
