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
from edgedistill.evidence.view.confusion import class_name, matrix
from edgedistill.result import Artifact, Example, Member, Result, Teacher

MOST_CLASS_ROWS = 1000
MOST_RECALL_BARS = 20
_PNG = b"\x89PNG\r\n\x1a\n"


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
    name: str
    label: str
    predicted: str
    confidence: float
    right: bool


def teachers(result: Result) -> list[Teacher] | list[Member]:
    """Every network that taught."""
    return result.teacher.members if len(result.teacher.members) > 1 else [result.teacher]


def chosen(result: Result) -> Artifact | None:
    """The artifact that ships, `None` when the document names none of its own."""
    return next((a for a in result.artifacts if a.name == result.chosen), None)


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


def class_rows(result: Result) -> list[ClassRow]:
    """Every class, lowest recall first, classes without test images last."""
    artifact = chosen(result)
    recall = artifact.per_class_recall if artifact else []
    train, counts = result.data.per_class_train, matrix(result)
    test = result.data.per_class_test or [sum(row) for row in counts]
    rows = [
        ClassRow(
            name,
            recall[i] if i < len(recall) else None,
            train[i] if i < len(train) else None,
            test[i] if i < len(test) else None,
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
    return Picture(
        uri, example.name, *names, example.confidence, example.label == example.predicted
    )


def commands(result: Result) -> list[tuple[str, str]]:
    """What to type in the run folder to get all this again, and to measure on the device: `(what it does, command)`."""
    found = [("This run again, on the machine that made it", result.command)]
    if result.device.get("name") != "host":
        found += [
            (
                "Latency on the device over ssh, into this report",
                "edgedistill bench . --target ssh://USER@BOARD",
            ),
            (
                "The same by hand: copy bundle/ to the device, and there, in bundle/",
                "python3 ontarget.pyz bench . --json board.json",
            ),
            (
                "What was measured by hand, into this report",
                "edgedistill record board.json --run .",
            ),
        ]
    return [*found, ("These pages anew from the document alone", "edgedistill report .")]
