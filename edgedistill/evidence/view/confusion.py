"""The confusion matrix: a table of counts for few classes, a picture with a dot for each pair for many."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

from markupsafe import Markup

from edgedistill.evidence.view import figures
from edgedistill.result import Mistake, Result
from edgedistill.tables import CONFUSION

HEATMAP_CLASSES = 40
"""Up to so many classes the matrix is a table."""
MOST_PAIRS = 20
MOST_DOTS = 512
"""Of a row of the picture."""
LEAST_ALPHA = 70
"""Of 255: how much is seen of a single image."""
RIGHT, WRONG = (74, 108, 240), (220, 80, 66)
"""Colours of images that are right and wrong; they hold on light and dark ground."""


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
class Matrix:
    """The matrix as a picture: a data URI, and how many classes stand in one dot, each way."""

    uri: Markup
    step: int


def class_name(result: Result, index: int) -> str:
    """Name of class `index`; a number outside the list stays a number."""
    classes = result.data.classes
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def matrix(result: Result) -> list[list[int]]:
    """The confusion counts when they are a square of the classes, else an empty list."""
    size = len(result.data.classes)
    square = len(result.confusion) == size and all(len(row) == size for row in result.confusion)
    return result.confusion if square else []


def missing(result: Result) -> str | None:
    """Where the matrix lies that is not at hand; `None` where it is, or where there is none."""
    table = result.tables.get(CONFUSION)
    return table.path if table is not None and not matrix(result) else None


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
    found = result.mistakes or _counted(result)
    return [
        Pair(class_name(result, m.label), class_name(result, m.predicted), m.count, m.total)
        for m in found[:most]
    ]


def _counted(result: Result) -> list[Mistake]:
    """The mistakes of a document that was written without them."""
    counts = matrix(result)
    wrong = [
        (value, i, j)
        for i, row in enumerate(counts)
        for j, value in enumerate(row)
        if value and i != j
    ]
    wrong.sort(key=lambda item: (-item[0], item[1], item[2]))
    return [
        Mistake(label=i, predicted=j, count=value, total=sum(counts[i]))
        for value, i, j in wrong[:MOST_PAIRS]
    ]


def picture(result: Result) -> Matrix | None:
    """The matrix of many classes, a dot for each pair; `None` for few classes, or without a matrix.

    Where there are more classes than a picture has dots in a row, a dot is the strongest of its neighbours.
    """
    counts = matrix(result)
    if len(counts) <= HEATMAP_CLASSES:
        return None
    step = math.ceil(len(counts) / MOST_DOTS)
    raw = _png(counts, step)
    return Matrix(Markup("data:image/png;base64," + base64.b64encode(raw).decode()), step)


def _png(counts: list[list[int]], step: int) -> bytes:
    import numpy as np
    from PIL import Image

    table = np.asarray(counts, dtype=np.float64)
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    right = np.eye(len(table), dtype=bool)
    side = math.ceil(len(table) / step)
    levels = np.zeros((2, side, side))
    for plane, own in enumerate((right, ~right)):
        padded = np.zeros((side * step, side * step))
        padded[: len(table), : len(table)] = np.where(own, share, 0)
        levels[plane] = padded.reshape(side, step, side, step).max((1, 3))
    alpha = np.where(levels > 0, LEAST_ALPHA + (255 - LEAST_ALPHA) * np.sqrt(levels), 0).max(0)
    wrong = levels[1] > levels[0]
    pixels = np.zeros((side, side, 4), dtype=np.uint8)
    pixels[..., :3] = np.where(wrong[..., None], WRONG, RIGHT)
    pixels[..., 3] = alpha.round()
    pixels[pixels[..., 3] == 0] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()
