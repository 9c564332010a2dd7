"""What a page says of time: every run of each measurement as a strip, the bounds, and how it was measured.

A strip has a mark for each percentile of the runs, from the fastest to the slowest: none is clipped, so a tail is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgedistill.evidence.gate import current, plain
from edgedistill.evidence.view import charts, figures, strips
from edgedistill.result import Conditions, Latency, Result

PERCENTILES = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9"}
ALWAYS = ("p50", "p90", "p99")
MOST_ROWS = 60
"""Of a page: it stays readable, and small, however often a run was measured."""
_KIND: dict[str, charts.Kind] = {
    "measured_on_target": "target",
    "measured_on_proxy": "proxy",
    "predicted": "predicted",
}


@dataclass(frozen=True)
class Row:
    """One measurement, or a prediction, of one file; `label` tells it from the others in a chart."""

    file: str
    ships: bool
    latency: Latency
    label: str

    @property
    def predicted(self) -> bool:
        """Whether nobody measured it."""
        return self.latency.evidence == "predicted"


def rows(result: Result) -> list[Row]:
    """Of each file the newest of each way of measuring, in the order of the document; of more than `MOST_ROWS` those
    of the file that ships, of what a limit means, and the newest.
    """
    found = [
        Row(a.name, a.name == result.chosen, x, label_of(a.name, a.name == result.chosen, x))
        for a in result.artifacts
        for x in current(a.latency)
    ]
    order = range(len(found))
    first = sorted(order, key=lambda i: (not found[i].ships, not plain(found[i].latency), -i))
    return [found[i] for i in sorted(first[:MOST_ROWS])]


def left_out(result: Result) -> str:
    """How many measurements a page does not show, and where they are; empty where it shows all."""
    every = sum(len(a.latency) for a in result.artifacts)
    newest = sum(len(current(a.latency)) for a in result.artifacts)
    more = newest - len(rows(result))
    parts = [f"{every - newest:,} older of the same kind"] if every > newest else []
    parts += [f"{more:,} of another kind"] if more else []
    return f"Left out here: {' and '.join(parts)}; result.json has them all." if parts else ""


def label_of(file: str, ships: bool, latency: Latency) -> str:
    """File, device and what else tells a measurement from its neighbours: threads, provider, pace, whole pictures."""
    parts = [latency.device, threads(latency)]
    provider = figures.provider(latency)
    parts += [provider] if provider not in ("CPU", "predicted", "TensorRT") else []
    parts += [pace(latency)] if latency.arrival == "paced" else []
    parts += ["end to end"] if latency.scope == "end_to_end" else []
    parts += [f"batch {latency.batch}"] if latency.batch != 1 else []
    return f"{file}{' ●' if ships else ''}  {', '.join(part for part in parts if part)}"


def threads(latency: Latency) -> str:
    """Threads in words; empty where they are not known."""
    if not latency.threads:
        return ""
    return "1 thread" if latency.threads == 1 else f"{latency.threads} threads"


def pace(latency: Latency) -> str:
    """How runs arrive."""
    if latency.arrival == "back_to_back":
        return "back to back"
    return "paced" if latency.fps is None else f"paced at {latency.fps:g} a second"


def shown_percentiles(found: Sequence[Row]) -> dict[str, str]:
    """The percentiles that get a column: three, and others where a measurement has them."""
    return {
        which: words
        for which, words in PERCENTILES.items()
        if which in ALWAYS or any(getattr(row.latency, f"{which}_s") is not None for row in found)
    }


def headline(result: Result) -> str:
    """The latency of the file that ships in one sentence; what is not known is said."""
    ships = next((a for a in result.artifacts if a.name == result.chosen), None)
    best = figures.best_latency(ships.latency) if ships is not None else None
    if best is None:
        return "Nobody has measured the latency of the file that ships."
    where = f"{figures.short(result.chosen)} on {figures.short(best.device)}"
    if best.evidence == "predicted":
        point = figures.milliseconds(best.p50_s)
        band = f", {figures.band(best.band_s)}" if best.band_s is not None else ""
        return f"The latency of {where} is predicted: {point}{band}. Nobody has measured it there."
    which, value = figures.headline(best)
    return (
        f"The {which} of {where} is at most {figures.milliseconds(value)}, with 99 % confidence from "
        f"{figures.count(best.n)} runs ({figures.runs_on(best)})."
    )


def bars(result: Result, meant: bool = True) -> Markup | None:
    """p50 with a whisker to p90, and the predicted bands: of what a limit means, with the limit, or of all else."""
    found = [row for row in rows(result) if plain(row.latency) == meant]
    if not found:
        return None
    entries = [bar(row) for row in found]
    desc = "; ".join(f"{row.label} {row.text} ({row.kind})" for row in entries)
    title = "Latency at batch 1, p50" if meant else "Latency measured in other ways, p50"
    limit = result.budget.latency_s if meant else None
    return charts.bars(
        title, desc, entries, lambda v: f"{v * 1e3:g} ms", limit,
        f"limit {figures.milliseconds(limit)}",
    )  # fmt: skip


def bar(row: Row) -> charts.Bar:
    """One bar: p50 with a whisker to p90, or the band of a prediction."""
    latency = row.latency
    ends = latency.band_s if row.predicted else None
    if not row.predicted and latency.p50_s is not None and latency.p90_s is not None:
        ends = (latency.p50_s, latency.p90_s)
    low, high = ends or (None, None)
    text = figures.milliseconds(latency.p50_s)
    if row.predicted and latency.p50_s is None:
        text = figures.band(latency.band_s)
    return charts.Bar(row.label, text, latency.p50_s, low, high, _KIND[latency.evidence])


def distribution(result: Result, meant: bool = True) -> Markup | None:
    """All runs of each measurement that kept its percentiles, `None` where none did: of what a limit means, with the
    limit, or of all else.
    """
    entries = [
        strips.Strip(
            row.label, figures.band((row.latency.quantiles_s[0], row.latency.quantiles_s[-1])),
            row.latency.quantiles_s,
            [
                (words, value)
                for which, words in PERCENTILES.items()
                if (value := getattr(row.latency, f"{which}_s")) is not None
            ],
            _KIND[row.latency.evidence],
        )
        for row in rows(result)
        if len(row.latency.quantiles_s) > 1 and plain(row.latency) == meant
    ]  # fmt: skip
    if not entries:
        return None
    desc = "; ".join(f"{entry.label} {entry.text}" for entry in entries)
    limit = result.budget.latency_s if meant else None
    words = f"limit {figures.milliseconds(limit)}"
    title = "Time of every run" if meant else "Time of every run, measured in other ways"
    return strips.strips(title, desc, entries, limit, words)


def how(result: Result) -> tuple[list[Row], list[tuple[str, list[str | None]]]]:
    """The measurements, and facts about them as `(name, a cell for each)`; a fact that none has is left out."""
    measured = [row for row in rows(result) if not row.predicted]
    found = [(name, [fact(row.latency) for row in measured]) for name, fact in FACTS.items()]
    return measured, [(name, cells) for name, cells in found if any(cells)]


def _scope(x: Latency) -> str | None:
    if x.scope == "model":
        return "the model alone"
    parts = ", ".join(f"{figures.short(k)} {figures.milliseconds(v)}" for k, v in x.parts_s.items())
    return "picture to class" + (f"; medians: {parts}" if parts else "")


def _pace(x: Latency) -> str | None:
    late = "" if x.late is None else f", {figures.count(x.late)} frames lost"
    return pace(x) + late


def _warmup(x: Latency) -> str | None:
    if x.warmup_runs is None:
        return None
    took = "" if x.warmup_s is None else f" in {figures.duration(x.warmup_s)}"
    return f"{figures.count(x.warmup_runs)} runs{took}"


def _cores(x: Latency) -> str | None:
    cores = f" on cores {', '.join(map(str, x.affinity[:64]))}" if x.affinity else ""
    return (threads(x) + cores) or None


def _nodes(x: Latency) -> str | None:
    parts = [
        f"{figures.short(k.removesuffix('ExecutionProvider'))} {v:,}"
        for k, v in x.placement.items()
    ]
    return ", ".join(parts) or None


def _steady(x: Latency) -> str | None:
    words = {True: "steady", False: "unstable", None: ""}[x.stable]
    cv = "" if x.cv is None else f"spread {figures.percent(x.cv)} of the mean"
    drift = "" if x.drift is None else f"drift {figures.signed_percent(x.drift)}"
    return ", ".join(part for part in (words, cv, drift) if part) or None


def _energy(x: Latency) -> str | None:
    if x.energy is None:
        return None
    e = x.energy
    return (
        f"{figures.significant(e.joules * 1e3)} mJ a run: {figures.significant(e.watts)} W above "
        f"{figures.significant(e.idle_watts)} W idle ({figures.short(e.source)})"
    )


def _runs(x: Latency) -> str | None:
    tier = f", {x.tier}" if x.tier else ""
    return f"{figures.count(x.n)}{tier}"


def _both(read: Callable[[Conditions], str | None]) -> Callable[[Latency], str | None]:
    """A condition before and after, once where it did not change."""

    def fact(x: Latency) -> str | None:
        before = read(x.before) if x.before is not None else None
        after = read(x.after) if x.after is not None else None
        if before == after or after is None or before is None:
            return before or after
        return f"{before} → {after}"

    return fact


def _given(value: float | None, write: Callable[[float], str]) -> str | None:
    return None if value is None else write(value)


def _clock(hz: float) -> str:
    return f"{figures.significant(hz / 1e6)} MHz"


FACTS: dict[str, Callable[[Latency], str | None]] = {
    "What is timed": _scope,
    "Arrival": _pace,
    "Input": lambda x: figures.short(x.inputs, 200) if x.inputs else None,
    "Runs": _runs,
    "Warm-up, not counted": _warmup,
    "Loading": lambda x: _given(x.load_s, figures.milliseconds),
    "First run, cold": lambda x: _given(x.first_run_s, figures.milliseconds),
    "Mean": lambda x: _given(x.mean_s, figures.milliseconds),
    "Slowest run": lambda x: _given(x.max_s, figures.milliseconds),
    "Steadiness": _steady,
    "Warnings": lambda x: figures.short("; ".join(x.warnings), 1000) or None,
    "Threads": _cores,
    "Provider": lambda x: figures.short(x.provider),
    "Nodes of the graph on": _nodes,
    "Temperature": _both(lambda c: _given(c.temperature_c, lambda v: f"{v:.1f} °C")),
    "Processor clock": _both(lambda c: _given(c.cpu_clock_hz, _clock)),
    "GPU clock": _both(lambda c: _given(c.gpu_clock_hz, _clock)),
    "Governor": _both(lambda c: figures.short(c.governor) if c.governor else None),
    "Power mode": _both(lambda c: figures.short(c.power_mode) if c.power_mode else None),
    "Slowed down by": _both(
        lambda c: figures.short(", ".join(c.throttled), 200) if c.throttled else None
    ),
    "Taken by others": _both(lambda c: _given(c.busy, figures.percent)),
    "Energy": _energy,
    "Peak memory": lambda x: _given(x.peak_rss_bytes, figures.megabytes),
    "Machine": lambda x: figures.short(x.machine) if x.machine else None,
    "Samples": lambda x: figures.short(x.samples, 200) if x.samples else None,
}
"""What is said of a measurement beside its percentiles, in the order of the page."""
