"""Several results beside each other: figures, what differs between their recipes, and what must not be compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from edgedistill.evidence.view import charts, figures, latency
from edgedistill.evidence.view.sections import chosen
from edgedistill.result import Arm, Artifact, Latency, Result

NOT_SET = "not set"
NO_RECIPE = "no recipe beside it"
MOST_KEYS = 200


@dataclass(frozen=True)
class Entry:
    """One run: `label` is its name here, `recipe` its values by dotted path, `None` where its own is not at hand."""

    label: str
    result: Result
    recipe: Mapping[str, Any] | None

    @property
    def device(self) -> str:
        """Name of the device."""
        return str(self.result.device.get("name") or "unknown device")

    @property
    def ships(self) -> Artifact | None:
        """The file that ships."""
        return chosen(self.result)

    @property
    def latency(self) -> Latency | None:
        """The latency that counts."""
        return figures.best_latency(self.ships.latency) if self.ships is not None else None

    @property
    def arm(self) -> Arm | None:
        """The arm whose weights ship."""
        return next((a for a in self.result.arms if a.name == self.result.chosen_arm), None)

    @property
    def student(self) -> str:
        """The student with its input size."""
        return f"{self.result.student.model}, {self.result.student.input_size} px"


def labels(names: Sequence[str], places: Sequence[str]) -> list[str]:
    """A label for each run: its name, with the place where it lies, and then a number, where others have the same."""
    both = [
        name if names.count(name) == 1 else f"{name} ({place})"
        for name, place in zip(names, places, strict=True)
    ]
    return [
        label if both.count(label) == 1 else f"{label} #{both[: i + 1].count(label)}"
        for i, label in enumerate(both)
    ]


def headline(entry: Entry) -> str:
    """The latency that counts, with the percentile it is: `1.11 ms p90`."""
    found = entry.latency
    if found is None:
        return figures.UNKNOWN
    which, value = figures.headline(found)
    return f"{figures.milliseconds(value)} {which}"


def latency_chart(entries: Sequence[Entry]) -> Markup:
    """The latency that counts of each run: p50 with a whisker to p90, or the band of a prediction."""
    rows = []
    for entry in entries:
        found = entry.latency
        if found is None:
            rows.append(charts.Bar(entry.label, figures.UNKNOWN, None))
            continue
        row = latency.Row(entry.result.chosen, False, found, f"{entry.label}  {entry.device}")
        rows.append(latency.bar(row))
    desc = "; ".join(f"{figures.short(row.label)} {row.text} ({row.kind})" for row in rows)
    title = "Latency of the file that ships, p50"
    return charts.bars(title, desc, rows, lambda v: f"{v * 1e3:g} ms")


def top1_chart(entries: Sequence[Entry]) -> Markup:
    """Top-1 of the file that ships of each run, with its 95 % interval."""
    rows = []
    for entry in entries:
        top1 = entry.ships.top1 if entry.ships is not None else None
        low, high = top1.ci95 if top1 is not None and top1.ci95 is not None else (None, None)
        value = top1.value if top1 is not None else None
        rows.append(
            charts.Dot(entry.label, figures.accuracy(top1), value, low, high, kind="strong")
        )
    desc = "; ".join(f"{figures.short(row.label)} {row.text}" for row in rows)
    title = "Top-1 of the file that ships, with 95 % intervals"
    return charts.intervals(title, desc, rows, lambda v: f"{v * 100:.4g} %")


def size_chart(entries: Sequence[Entry]) -> Markup:
    """Size of the file that ships of each run."""
    rows = [
        charts.Bar(
            entry.label, figures.megabytes(size), None if size is None else float(size), kind="strong"
        )
        for entry in entries
        for size in (entry.ships.size_bytes if entry.ships is not None else None,)
    ]  # fmt: skip
    desc = "; ".join(f"{figures.short(row.label)} {row.text}" for row in rows)
    title = "Size of the file that ships"
    return charts.bars(title, desc, rows, lambda v: f"{v / 1e6:g} MB")


def seconds_chart(entries: Sequence[Entry]) -> Markup:
    """Seconds of the arm that ships of each run."""
    seconds = [entry.arm.seconds if entry.arm is not None else None for entry in entries]
    scale, unit = figures.time_unit(max((s for s in seconds if s is not None), default=0.0))
    rows = [
        charts.Bar(entry.label, figures.duration(took), None if took is None else took / scale)
        for entry, took in zip(entries, seconds, strict=True)
    ]
    desc = "; ".join(f"{figures.short(row.label)} {row.text}" for row in rows)
    title = "Training of the arm that ships"
    return charts.bars(title, desc, rows, lambda v: f"{v:g} {unit}")


FACTS: dict[str, Callable[[Entry], str]] = {
    "device": lambda e: e.device,
    "edgedistill": lambda e: e.result.version,
    "machine of the build": lambda e: e.result.environment.cpu,
    "data": lambda e: f"{e.result.data.name}, {e.result.data.train:,} training images",
    "teacher": lambda e: e.result.teacher.model,
    "student": lambda e: e.student,
    "arm that ships": lambda e: e.result.chosen_arm,
    "file that ships": lambda e: e.result.chosen,
}
"""What the documents themselves say of how a run came about, beside the recipes."""


def differences(entries: Sequence[Entry]) -> list[tuple[str, list[str]]]:
    """What is not the same in all runs, `(what, a cell for each)`: facts of the documents, then keys of recipes."""
    found = [(what, [read(entry) for entry in entries]) for what, read in FACTS.items()]
    known = [entry.recipe for entry in entries if entry.recipe is not None]
    keys = dict.fromkeys(key for recipe in known for key in recipe) if len(known) > 1 else {}
    for key in keys:
        values = [_value(recipe, key) for recipe in known]
        if len(set(values)) > 1:
            cells = [NO_RECIPE if e.recipe is None else _value(e.recipe, key) for e in entries]
            found.append((key, cells))
    return [(what, cells) for what, cells in found if len(set(cells)) > 1]


def _value(recipe: Mapping[str, Any], key: str) -> str:
    if key not in recipe:
        return NOT_SET
    value = recipe[key]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def warnings(entries: Sequence[Entry]) -> list[str]:
    """What must not be compared, and why; empty where everything may."""
    found = []
    tests = _groups(
        entries, lambda e: (e.result.data.sha256, e.result.data.test, tuple(e.result.data.classes))
    )
    if len(tests) > 1:
        found.append(
            f"Top-1 must not be compared between {_versus(tests)}: their data is not the same, so they may have been "
            "tested on other images."
        )
    timed = [entry for entry in entries if entry.latency is not None]
    parts = [_difference(timed, what, read) for what, read in LATENCIES.items()]
    if any(parts):
        words = "; ".join(part for part in parts if part)
        found.append(f"Latencies must not be compared as they stand. They differ in {words}.")
    missing = [entry for entry in entries if entry.latency is None]
    if missing:
        found.append(f"The latency of {_names(missing)} is not known.")
    unstable = [entry for entry in timed if entry.latency and entry.latency.stable is False]
    if unstable:
        found.append(
            f"The latency of {_names(unstable)} was measured while the machine was not steady."
        )
    return found


def _difference(entries: Sequence[Entry], what: str, read: Callable[[Entry], str]) -> str:
    """In what the latencies of some runs differ; empty where those that tell agree."""
    groups = _groups([entry for entry in entries if read(entry)], read)
    if len(groups) < 2:
        return ""
    words = ", ".join(f"{_names(group)} {figures.short(read(group[0]))}" for group in groups)
    return f"{what} ({words})"


def _latency_of(read: Callable[[Latency], str]) -> Callable[[Entry], str]:
    return lambda entry: read(entry.latency) if entry.latency is not None else ""


LATENCIES: dict[str, Callable[[Entry], str]] = {
    "the grade of the evidence": _latency_of(lambda x: figures.EVIDENCE_WORD[x.evidence]),
    "the device": _latency_of(lambda x: x.device),
    "the machine": _latency_of(lambda x: x.machine if x.evidence != "predicted" else ""),
    "what ran it": _latency_of(lambda x: figures.runs_on(x) if x.evidence != "predicted" else ""),
    "how runs arrive": _latency_of(latency.pace),
    "what is timed": _latency_of(
        lambda x: "the model alone" if x.scope == "model" else "picture to class"
    ),
}
"""In what two latencies must be the same to be compared."""


def _groups(entries: Sequence[Entry], read: Callable[[Entry], Any]) -> list[list[Entry]]:
    found: dict[Any, list[Entry]] = {}
    for entry in entries:
        found.setdefault(read(entry), []).append(entry)
    return list(found.values())


def _names(entries: Sequence[Entry]) -> str:
    return ", ".join(figures.short(entry.label, 40) for entry in entries)


def _versus(groups: Sequence[Sequence[Entry]]) -> str:
    return " and ".join(_names(group) for group in groups)
