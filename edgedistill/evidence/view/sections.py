"""Parts of the page that need more than a template: charts, heat map, confused pairs, pictures.

Each function takes a `Result` and gives `Markup` or plain facts; nothing is measured here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgedistill.evidence.view import charts, figures
from edgedistill.result import Artifact, Example, Latency, Member, Result, Teacher

HEATMAP_CLASSES = 40
"""Above this many classes the most confused pairs take the place of the heat map."""
MOST_PAIRS = 20
MOST_CLASS_ROWS = 1000
MOST_RECALL_BARS = 20
_PNG = b"\x89PNG\r\n\x1a\n"
_KIND: dict[str, charts.Kind] = {
    "measured_on_target": "target",
    "measured_on_proxy": "proxy",
    "predicted": "predicted",
}


@dataclass(frozen=True)
class Cell:
    """One count of the heat map: `level` is the share of its row in tenths, 0 to 9."""

    count: int
    level: int
    right: bool
    tip: str


@dataclass(frozen=True)
class Pair:
    """Images of class `label` that were taken for `predicted`, out of `total`."""

    label: str
    predicted: str
    count: int
    total: int


@dataclass(frozen=True)
class ClassRow:
    """One class: recall of the chosen file (`None`: no test image), training and test images."""

    name: str
    recall: float | None
    train: int | None
    test: int | None


@dataclass(frozen=True)
class Picture:
    """An example image as a checked data URI, `None` when it is not a PNG."""

    uri: str | None
    label: str
    predicted: str
    confidence: float
    right: bool


def class_name(result: Result, index: int) -> str:
    """Name of class `index`; a number outside the list stays a number."""
    classes = result.data.classes
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def teachers(result: Result) -> list[Teacher] | list[Member]:
    """Every network that taught."""
    return result.teacher.members if len(result.teacher.members) > 1 else [result.teacher]


def chosen(result: Result) -> Artifact | None:
    """The artifact that ships, `None` when the document names none of its own."""
    return next((a for a in result.artifacts if a.name == result.chosen), None)


def matrix(result: Result) -> list[list[int]]:
    """The confusion counts when they are a square of the classes, else an empty list."""
    size = len(result.data.classes)
    square = len(result.confusion) == size and all(len(row) == size for row in result.confusion)
    return result.confusion if square else []


def _latency_bar(artifact: Artifact, latency: Latency, ships: bool) -> charts.Bar:
    predicted = latency.evidence == "predicted"
    ends = latency.band_s if predicted else None
    if not predicted and latency.p50_s is not None and latency.p90_s is not None:
        ends = (latency.p50_s, latency.p90_s)
    low, high = ends or (None, None)
    threads = f", {latency.threads} thread{'s' * (latency.threads > 1)}" if latency.threads else ""
    label = f"{artifact.name}{' ●' if ships else ''}  {latency.device}{threads}"
    text = figures.milliseconds(latency.p50_s)
    if predicted and latency.p50_s is None:
        text = figures.band(latency.band_s)
    return charts.Bar(label, text, latency.p50_s, low, high, _KIND[latency.evidence])


def latency_chart(result: Result) -> Markup:
    """p50 of every measurement, the predicted bands, and the limit."""
    rows = [
        _latency_bar(artifact, latency, artifact.name == result.chosen)
        for artifact in result.artifacts
        for latency in artifact.latency
    ]
    desc = "; ".join(f"{row.label} {row.text} ({row.kind})" for row in rows) or figures.UNKNOWN
    limit = result.budget.latency_s
    return charts.bars(
        "Latency at batch 1, p50",
        desc,
        rows,
        lambda v: f"{v * 1e3:g} ms",
        limit,
        f"limit {figures.milliseconds(limit)}",
    )


def size_chart(result: Result) -> Markup:
    """Size of every file, and the limit."""
    rows = [
        charts.Bar(
            f"{a.name}{' ●' if a.name == result.chosen else ''}",
            figures.megabytes(a.size_bytes),
            float(a.size_bytes),
            kind="strong" if a.name == result.chosen else "plain",
        )
        for a in result.artifacts
    ]
    desc = "; ".join(f"{row.label} {row.text}" for row in rows)
    limit = result.budget.size_bytes
    write = figures.megabytes(limit)
    return charts.bars(
        "Size of each file", desc, rows, lambda v: f"{v / 1e6:g} MB", limit, f"limit {write}"
    )


def stages_chart(result: Result) -> Markup:
    """Time of every stage of the run."""
    scale, unit = figures.time_unit(max((s.seconds for s in result.stages), default=0.0))
    rows = [
        charts.Bar(s.name, figures.duration(s.seconds), s.seconds / scale) for s in result.stages
    ]
    desc = "; ".join(f"{row.label} {row.text}" for row in rows)
    return charts.bars("Time of each stage", desc, rows, lambda v: f"{v:g} {unit}")


def heatmap(result: Result) -> list[tuple[str, list[Cell]]]:
    """Rows of the confusion table, `(class, cells)`; empty above `HEATMAP_CLASSES` classes."""
    counts = matrix(result)
    if not 0 < len(counts) <= HEATMAP_CLASSES:
        return []
    rows = []
    for i, row in enumerate(counts):
        total = sum(row) or 1
        name = class_name(result, i)
        cells = []
        for j, value in enumerate(row):
            level = min(9, -(-value * 10 // total)) if value else 0
            tip = f"{figures.short(name)} taken for {figures.short(class_name(result, j))}: {value}"
            cells.append(Cell(value, level, i == j, tip))
        rows.append((name, cells))
    return rows


def confused(result: Result, most: int = MOST_PAIRS) -> list[Pair]:
    """The most frequent mistakes, largest count first."""
    counts = matrix(result)
    wrong = [
        (value, i, j)
        for i, row in enumerate(counts)
        for j, value in enumerate(row)
        if value and i != j
    ]
    wrong.sort(key=lambda item: (-item[0], item[1], item[2]))
    return [
        Pair(class_name(result, i), class_name(result, j), value, sum(counts[i]))
        for value, i, j in wrong[:most]
    ]


def class_rows(result: Result) -> list[ClassRow]:
    """Every class, lowest recall first, classes without test images last."""
    artifact = chosen(result)
    recall = artifact.per_class_recall if artifact else []
    train, counts = result.data.per_class_train, matrix(result)
    rows = [
        ClassRow(
            name,
            recall[i] if i < len(recall) else None,
            train[i] if i < len(train) else None,
            sum(counts[i]) if counts else None,
        )
        for i, name in enumerate(result.data.classes)
    ]
    return sorted(rows, key=lambda row: (row.recall is None, row.recall or 0.0))


def recall_chart(rows: Sequence[ClassRow]) -> Markup:
    """Recall of the classes with the lowest recall."""
    entries = [
        charts.Bar(row.name, figures.percent(row.recall), row.recall)
        for row in rows[:MOST_RECALL_BARS]
    ]
    desc = "; ".join(f"{figures.short(x.label)} {x.text}" for x in entries)
    return charts.bars("Recall by class, lowest first", desc, entries, lambda v: f"{v * 100:g} %")


def png_uri(text: str) -> str | None:
    """A PNG in base64 as a data URI; `None` for bytes that are none."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return "data:image/png;base64," + base64.b64encode(raw).decode() if raw[:8] == _PNG else None


def licence_parts(result: Result) -> list[tuple[str, str, str | None]]:
    """What a student is made from: part, which one, licence."""
    made = result.synthetic
    return [
        *[("Teacher weights", t.model, t.licence) for t in teachers(result)],
        ("Student weights", result.student.weights_source, result.student.licence),
        ("Images", result.data.name, result.data.licence),
        *([("Generator of synthetic images", made.generator, made.licence)] if made else []),
    ]


def picture(result: Result, example: Example) -> Picture:
    """An example with its names; bytes that are not a PNG are not shown."""
    uri = png_uri(example.png)
    names = class_name(result, example.label), class_name(result, example.predicted)
    return Picture(uri, *names, example.confidence, example.label == example.predicted)
