"""The views of a result: `report.html`, `report.md`, `model_card.md` and the terminal's verdict.

Pure functions from a `Result` to text; every number in a view stands in `result.json`. The
page is one file without scripts or requests: a content security policy forbids them, so even a
mistake here could not load anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from edgedistill.evidence.view import arms, confusion, figures, latency, layers, sections
from edgedistill.evidence.view.comparisons import (
    DISTILLED,
    SYNTHETIC,
    comparisons,
    cost_parts,
    costs,
    gains_over,
    notes,
    other_remarks,
    seed_rows,
)
from edgedistill.evidence.view.console import console
from edgedistill.evidence.view.front import front_chart
from edgedistill.evidence.view.markdown import markdown
from edgedistill.evidence.view.model_card import model_card
from edgedistill.files import write_atomic
from edgedistill.result import Evidence, Result, VerdictRow
from edgedistill.tables import with_tables

__all__ = ["MAX_HTML_BYTES", "console", "html", "markdown", "model_card", "write_views"]

MAX_HTML_BYTES = 1_500_000
MAX_SHEET_BYTES = 700_000
MAX_TEXT = 4000
MOST_SKIPPED = 100
MOST_CANDIDATES = 60


def _safe(value: Any) -> Any:
    """What a template prints: hidden characters spelled out, `None` as words."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return figures.UNKNOWN
    return figures.short(value, MAX_TEXT) if isinstance(value, str) else value


def _name(text: str) -> Markup:
    """A foreign name: cut to 80 characters, its writing direction isolated."""
    return Markup("<bdi>{}</bdi>").format(figures.short(text))


def _grade(evidence: Evidence | None, words: str | None = None) -> Markup:
    """The badge of an evidence grade."""
    if evidence is None:
        return Markup('<span class="grade none">{}</span>').format(words or figures.UNKNOWN)
    badge = Markup('<span class="grade {}">{}</span>')
    return badge.format(evidence, figures.EVIDENCE_WORD[evidence])


def _row_grade(row: VerdictRow) -> Markup:
    return _grade(row.evidence, figures.limit_evidence(row))


@cache
def environment() -> Environment:
    """Where templates come from, and how they write what is foreign."""
    env = Environment(
        loader=PackageLoader("edgedistill", "evidence/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_safe,
    )
    env.filters["name"] = _name
    env.filters["grade"] = _grade
    env.filters["row_grade"] = _row_grade
    env.globals["f"] = figures
    return env


@cache
def style(*sheets: str) -> Markup:
    """Style sheets by name; where none is named, those of every page."""
    folder = files("edgedistill").joinpath("evidence/templates")
    texts = [
        folder.joinpath(f"{name}.css").read_text("utf-8") for name in sheets or ("chart", "report")
    ]
    return Markup("".join(texts))


def _page(result: Result, pictures: Sequence[sections.Picture]) -> str:
    classes = sections.class_rows(result)
    context: dict[str, Any] = {
        "r": result,
        "style": style(),
        "max_skipped": MOST_SKIPPED,
        "max_candidates": MOST_CANDIDATES,
        "max_classes": sections.MOST_CLASS_ROWS,
        "chosen": sections.chosen(result),
        "chosen_arm": next((a for a in result.arms if a.name == result.chosen_arm), None),
        "remarks": other_remarks(result),
        "comparisons": comparisons(result.arms),
        "gains": gains_over(result.arms),
        "taught_words": {DISTILLED: "the distilled arm", SYNTHETIC: "see above"},
        "costs": costs(result.arms),
        "cost_parts": cost_parts(result.arms),
        "notes": notes(result.arms),
        "seeds": seed_rows(result.arms),
        "arms_chart": arms.arms_chart(result),
        "gains_chart": arms.gains_chart(result),
        "seconds_chart": arms.seconds_chart(result),
        "flops_chart": arms.flops_chart(result),
        "size_chart": sections.size_chart(result),
        "front": front_chart(result),
        "stages_chart": sections.stages_chart(result),
        "curves": arms.curve_charts(result),
        "class_rows": classes,
        "recall_chart": sections.recall_chart(classes),
        "pictures": pictures,
        "licences": sections.licence_parts(result),
        "sheet": _sheet(result),
    }
    context |= _latency(result) | _files(result) | _confusion(result)
    return environment().get_template("report.html.j2").render(context)


def _latency(result: Result) -> dict[str, Any]:
    ships, found = sections.chosen(result), latency.rows(result)
    measured, how = latency.how(result)
    return {
        "times": latency,
        "best_latency": figures.best_latency(ships.latency) if ships is not None else None,
        "latency_words": latency.headline(result),
        "latency_rows": found,
        "latency_older": latency.left_out(result),
        "latency_chart": latency.bars(result),
        "distribution": latency.distribution(result),
        "other_latency_chart": latency.bars(result, meant=False),
        "other_distribution": latency.distribution(result, meant=False),
        "percentiles": latency.shown_percentiles(found),
        "measured": measured,
        "how": how,
    }


def _files(result: Result) -> dict[str, Any]:
    by_precision = {artifact.precision: artifact for artifact in result.artifacts}
    both = "float32" in by_precision and "int8" in by_precision
    return {
        "layers_chart": layers.layers_chart(result),
        "layer_rows": layers.layer_rows(result),
        "layer_files": layers.files(result),
        "max_layers": layers.MOST_ROWS,
        "float32": by_precision.get("float32"),
        "int8": by_precision["int8"] if both else None,
        "int8_chart": layers.int8_chart(result),
        "int8_known": bool(layers.classes(result)),
        "commands": sections.commands(result),
    }


def _confusion(result: Result) -> dict[str, Any]:
    return {
        "heatmap": confusion.heatmap(result),
        "pairs": confusion.confused(result),
        "confusion_picture": confusion.picture(result),
        "confusion_missing": confusion.missing(result),
    }


def _sheet(result: Result) -> Markup | None:
    """The picture of synthetic images as a data URI, where there is one that the page can hold."""
    text = result.synthetic.sheet if result.synthetic is not None else None
    uri = sections.png_uri(text) if text is not None and len(text) <= MAX_SHEET_BYTES else None
    return Markup(uri) if uri is not None else None  # base64 alone: nothing to escape, and whole


def _fitting(result: Result, room: int) -> list[sections.Picture]:
    """The first pictures that fit into `room` bytes, mistakes before right ones."""
    kept = []
    for picture in (sections.picture(result, example) for example in result.examples):
        texts = (picture.uri or "", str(escape(picture.label)), str(escape(picture.predicted)))
        room -= (
            sum(len(text.encode("utf-8", "replace")) for text in texts) * 2 + 600 - len(texts[0])
        )
        if room < 0:
            break
        kept.append(picture)
    return sorted(kept, key=lambda picture: picture.right)


def html(result: Result) -> str:
    """The report as one self-contained page; pictures beyond `MAX_HTML_BYTES` are left out."""
    room = MAX_HTML_BYTES - len(_page(result, []).encode("utf-8")) - 2_000
    return _page(result, _fitting(result, room))


def write_views(result: Result, folder: Path, run: Path | None = None) -> list[Path]:
    """Write the three files into `folder`, each aside and then renamed; gives their paths.

    Large tables are read from the run folder, `folder` where it is `None`. Raises `DocumentError` for a changed one.
    """
    whole = with_tables(result, run or folder)
    views = {"report.html": html, "report.md": markdown, "model_card.md": model_card}
    texts = {name: view(whole) for name, view in views.items()}
    for name, text in texts.items():
        write_atomic(folder / name, text)
    return [folder / name for name in texts]
