"""Where the shipped file is wrong, for the result document: its most frequent mistakes, and pictures of test images.

The surest mistakes come first: they are what a person should look at, and often it is the label that is wrong.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgedistill import metrics
from edgedistill.result import Example, Mistake

if TYPE_CHECKING:
    from PIL import Image

    from edgedistill.data.dataset import Item

WRONG, RIGHT = 24, 12
"""Pictures of mistakes, and of images that it has right."""
SIDE, COLOURS, PLAIN_BYTES = 96, 128, 4_000
"""Longest side of a picture in pixels; one of more bytes is kept in so many colours."""
MISTAKES = 40


def mistakes_of(counts: npt.NDArray[np.int64]) -> list[Mistake]:
    """The most frequent mistakes of a confusion matrix (C, C), true classes in rows; equal counts in its order."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    order = np.lexsort((columns, rows, -wrong[rows, columns]))[:MISTAKES]
    totals = counts.sum(1)
    return [
        Mistake(label=int(i), predicted=int(j), count=int(wrong[i, j]), total=int(totals[i]))
        for i, j in zip(rows[order], columns[order], strict=True)
    ]


def examples_of(
    logits: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    pixels: npt.NDArray[np.uint8],
    items: Sequence[Item],
) -> list[Example]:
    """Test images with the prediction of the shipped file: the surest mistakes, then some that are right.

    `logits` (N, C), `labels` (N,), `pixels` (N, H, W, 3).
    """
    share, found = metrics.softmax(logits).max(1), metrics.predictions(logits)
    right = metrics.correct(logits, labels)
    wrong_rows = sorted(np.flatnonzero(~right), key=lambda i: (-share[i], i))[:WRONG]
    even = np.flatnonzero(right)
    right_rows = even[np.linspace(0, len(even) - 1, min(RIGHT, len(even))).round().astype(int)]
    return [
        Example(
            png=small_png(np.asarray(pixels[row])),
            name=items[row].key,
            label=int(labels[row]),
            predicted=int(found[row]),
            confidence=float(share[row]),
        )
        for row in [*wrong_rows, *right_rows]
    ]


def small_png(pixels: npt.NDArray[np.uint8]) -> str:
    """An image (H, W, 3) as a PNG of at most `SIDE` pixels a side, in base64."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    raw = _png(image)
    if len(raw) > PLAIN_BYTES:
        raw = min(raw, _png(image.quantize(COLOURS)), key=len)
    return base64.b64encode(raw).decode()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
