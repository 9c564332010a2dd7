"""Several results side by side: `comparison.html`, `comparison.md` and the terminal. Views, which compute nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgedistill.errors import EdgedistillError, UsageError
from edgedistill.evidence.report import environment, style
from edgedistill.evidence.view import figures, sidebyside
from edgedistill.evidence.view.markdown import MARK, name, prose, table
from edgedistill.evidence.view.sidebyside import Entry
from edgedistill.files import write_atomic
from edgedistill.recipe import hash_of, leaves, read_yaml, validate
from edgedistill.result import Result, load
from edgedistill.studyresult import FILE as STUDY

__all__ = ["MOST_RUNS", "console", "entries", "html", "markdown", "write_views"]

MOST_RUNS = 24
"""Of one page: a table of more can no longer be read."""


def entries(paths: Sequence[Path]) -> list[Entry]:
    """The results at `paths`, run folders or files. Raises `UsageError` for a study among them, or too many, and
    `DocumentError` for one that is damaged.
    """
    if len(paths) > MOST_RUNS:
        raise UsageError(f"{len(paths)} runs are too many for one page; give at most {MOST_RUNS}")
    for path in paths:
        if path.name == STUDY or (path / STUDY).is_file():
            raise UsageError(
                f"{path} is a study, whose arms stand beside each other already: give it alone, or runs to compare"
            )
    results = [load(path) for path in paths]
    folders = [path if path.is_dir() else path.parent for path in paths]
    places = [folder.resolve().name for folder in folders]
    labels = sidebyside.labels([result.run for result in results], places)
    return [
        Entry(label, result, recipe_of(result, folder))
        for label, result, folder in zip(labels, results, folders, strict=True)
    ]


def recipe_of(result: Result, folder: Path) -> dict[str, Any] | None:
    """The values of the recipe in `folder` by dotted path; `None` where it is not that of the result."""
    try:
        recipe = validate(read_yaml(folder / "recipe.yaml"), "recipe.yaml")
    except EdgedistillError:
        return None
    values = recipe.model_dump(mode="json", exclude={"name"})
    return dict(leaves(values)) if hash_of(values) == result.recipe_sha256 else None


def html(found: Sequence[Entry]) -> str:
    """The comparison as one page without scripts or requests."""
    context = {
        "entries": found,
        "style": style(),
        "headline": sidebyside.headline,
        "warnings": sidebyside.warnings(found),
        "differences": sidebyside.differences(found)[: sidebyside.MOST_KEYS],
        "latency_chart": sidebyside.latency_chart(found),
        "top1_chart": sidebyside.top1_chart(found),
        "size_chart": sidebyside.size_chart(found),
        "seconds_chart": sidebyside.seconds_chart(found),
    }
    return environment().get_template("comparison.html.j2").render(context)


HEADS = (
    "Run", "Device", "Verdict", "Ships", "Size", "Top-1 (95 % interval)", "Latency", "Evidence", "Training",
)  # fmt: skip


def cells(entry: Entry) -> list[str]:
    """One run in the order of `HEADS`, as plain text."""
    ships, latency, arm = entry.ships, entry.latency, entry.arm
    top1 = ships.top1 if ships is not None else None
    ends = f" ({figures.interval(top1)})" if top1 is not None and top1.ci95 is not None else ""
    return [
        entry.label,
        entry.device,
        figures.STATUS_WORD[entry.result.verdict.status],
        f"{entry.result.chosen} of {entry.student}",
        figures.megabytes(ships.size_bytes if ships is not None else None),
        figures.accuracy(top1) + ends,
        sidebyside.headline(entry),
        figures.EVIDENCE_WORD[latency.evidence] if latency is not None else "none",
        figures.duration(arm.seconds if arm is not None else None),
    ]


def markdown(found: Sequence[Entry]) -> str:
    """The comparison as Markdown; ends with a newline."""
    rows = []
    for entry in found:
        label, device, status, ships, *rest = cells(entry)
        mark = MARK[entry.result.verdict.status]
        rows.append([name(label), name(device), f"{mark} {status}", name(ships), *rest])
    changed = [
        [name(what), *(name(cell) for cell in row)]
        for what, row in sidebyside.differences(found)[: sidebyside.MOST_KEYS]
    ]
    heads = ["What", *(name(entry.label) for entry in found)]
    blocks = [
        f"## {len(found)} runs side by side",
        table(HEADS, rows, (4, 5, 6, 8)),
        *[f"> ⚠️ {prose(words)}" for words in sidebyside.warnings(found)],
        "\n".join(f"- {name(e.label)}: {prose(e.result.verdict.sentence)}" for e in found),
        "### What differs",
        table(heads, changed) if changed else "Nothing that the documents and recipes tell.",
    ]
    return "\n\n".join(blocks) + "\n"


def console(found: Sequence[Entry], page: Path | None = None) -> RenderableType:
    """The comparison in the terminal: the table, and what must not be compared."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    shown.show_edge = False
    kept = [i for i, head in enumerate(HEADS) if head not in ("Ships", "Training")]
    for i in kept:
        left = HEADS[i] in ("Run", "Device", "Verdict", "Evidence")
        shown.add_column(
            HEADS[i].partition(" (")[0], justify="left" if left else "right", overflow="fold"
        )
    for entry in found:
        row = cells(entry)
        shown.add_row(
            *(
                Text(figures.short(row[i].partition(" (")[0] if i == 5 else row[i], 200))
                for i in kept
            )
        )
    parts: list[RenderableType] = [shown, Text()]
    parts += [Text(figures.short(words, 1000), "yellow") for words in sidebyside.warnings(found)]
    if page is not None:
        parts += [Text(), Text(figures.short(f"Comparison: {page}", 1000))]
    return Group(*parts)


def write_views(found: Sequence[Entry], folder: Path) -> list[Path]:
    """Write `comparison.html` and `comparison.md` into `folder`, each aside and then renamed; gives their paths."""
    texts = {"comparison.html": html(found), "comparison.md": markdown(found)}
    for file, text in texts.items():
        write_atomic(folder / file, text)
    return [folder / file for file in texts]
