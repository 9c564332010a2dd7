"""What the bytes of each file are spent on, layer by layer, and what INT8 did to the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from edgedistill.evidence.view import charts, figures, svg
from edgedistill.evidence.view.svg import WIDTH
from edgedistill.result import Artifact, Layer, Result

MOST_BARS, MOST_ROWS, MOST_CLASSES = 12, 400, 10
BAR, GAP, HEAD = 6.0, 2.0, 22.0


@dataclass(frozen=True)
class LayerRow:
    """A layer in every file by its name: `None` where a file has none of that name."""

    name: str
    operator: str
    params: int
    found: Sequence[Layer | None]


@dataclass(frozen=True)
class ClassRow:
    """Recall of one class by two files on the same test images."""

    name: str
    before: float
    after: float
    test: int | None


def files(result: Result) -> list[Artifact]:
    """The files whose layers are known."""
    return [artifact for artifact in result.artifacts if artifact.layers]


def layer_rows(result: Result) -> list[LayerRow]:
    """Every layer that holds weights in some file, the largest first."""
    known = [{layer.name: layer for layer in artifact.layers} for artifact in files(result)]
    names = dict.fromkeys(name for layers in known for name in layers)
    rows = []
    for name in names:
        found = [layers.get(name) for layers in known]
        first = next(layer for layer in found if layer is not None)
        if any(layer.params for layer in found if layer is not None):
            rows.append(LayerRow(name, first.operator, first.params, found))
    return sorted(rows, key=lambda row: -_most(row))


def _most(row: LayerRow) -> int:
    return max(layer.size_bytes for layer in row.found if layer is not None)


def layers_chart(result: Result) -> Markup | None:
    """The largest layers, a bar for each file; `None` where no file was looked into."""
    rows, names = layer_rows(result)[:MOST_BARS], [artifact.name for artifact in files(result)]
    if not rows:
        return None
    high = max(_most(row) for row in rows) * 1.02 or 1.0
    tall = HEAD + len(names) * (BAR + GAP) + 8
    bottom = len(rows) * tall
    body = []
    for value in svg.ticks(0.0, high / 1e6, 4):
        at = value * 1e6 / high * WIDTH
        anchor = "start" if at < 16 else "end" if at > WIDTH - 16 else "middle"
        body.append(svg.rule("grid", at, 0, at, bottom))
        body.append(svg.text("tick", at, bottom + 15, f"{value:g} MB", anchor))
    for i, row in enumerate(rows):
        top = i * tall
        text = " / ".join(_size(layer) for layer in row.found)
        for j, layer in enumerate(row.found):
            size = layer.size_bytes if layer is not None else 0
            tip = f"{names[j]}: {figures.megabytes(size)}"
            place = top + HEAD + j * (BAR + GAP)
            body.append(svg.rect("track-bar", 0, place, WIDTH, BAR))
            body.append(svg.rect(f"part c{min(j, 5)}", 0, place, size / high * WIDTH, BAR, tip))
        body += charts.head(top, tail(row), text)
    desc = "; ".join(
        f"{figures.short(row.name)} {' / '.join(_size(layer) for layer in row.found)} MB"
        for row in rows
    )
    items = "".join(
        f'<li><span class="swatch c{min(j, 5)}"></span>{escape(figures.short(name))}</li>'
        for j, name in enumerate(names)
    )
    chart = svg.svg("layers", "Bytes of the largest layers, by file", desc, bottom + 22, body)
    return chart + Markup(f'<ul class="legend">{items}</ul>')


def _size(layer: Layer | None) -> str:
    return "–" if layer is None else figures.megabytes(layer.size_bytes, 2).removesuffix(" MB")


def tail(row: LayerRow, most: int = 34) -> str:
    """The end of a layer's name: the parts that tell it from the others, its operator only where it has no other."""
    parts = [part for part in figures.short(row.name, 400).split("/") if part]
    if len(parts) > 1 and parts[-1] == row.operator:
        parts.pop()
    kept = parts[-1:]
    for part in reversed(parts[:-1]):
        if part in kept[0]:
            continue
        if len("/".join([part, *kept])) > most:
            break
        kept.insert(0, part)
    return "/".join(kept) or "(no name)"


def classes(result: Result) -> list[ClassRow]:
    """Recall of each class by the float32 and the INT8 file, the largest fall first, then the rest by change."""
    by_name = {artifact.precision: artifact for artifact in result.artifacts}
    plain, small = by_name.get("float32"), by_name.get("int8")
    if plain is None or small is None:
        return []
    test, names = result.data.per_class_test, result.data.classes
    rows = [
        ClassRow(name, before, after, test[i] if i < len(test) else None)
        for i, (name, before, after) in enumerate(
            zip(names, plain.per_class_recall, small.per_class_recall, strict=False)
        )
        if before is not None and after is not None
    ]
    return sorted(rows, key=lambda row: (row.after - row.before, row.name))


def changed(rows: Sequence[ClassRow], most: int = MOST_CLASSES) -> list[ClassRow]:
    """The classes that lost most, and those that gained most, where there are more than can be shown."""
    if len(rows) <= most:
        return list(rows)
    return [*rows[: most // 2], *rows[-(most // 2) :]]


def _images(row: ClassRow) -> str:
    return "" if row.test is None else f"  {row.test:,} images"


def int8_chart(result: Result) -> Markup | None:
    """Recall of the classes that INT8 changed most; `None` where it changed none, or there are no two files."""
    rows = changed([row for row in classes(result) if row.after != row.before])
    if not rows:
        return None
    entries = [
        charts.Dot(
            f"{figures.short(row.name, 30)}{_images(row)}",
            f"{figures.percent(row.before)} → {figures.percent(row.after)}", row.after,
            kind="strong", beside=(row.before,),
        )
        for row in rows
    ]  # fmt: skip
    desc = "; ".join(f"{figures.short(entry.label)} {entry.text}" for entry in entries)
    title = "Recall by class, float32 and INT8"
    return charts.intervals(title, desc, entries, lambda v: f"{v * 100:.4g} %")
