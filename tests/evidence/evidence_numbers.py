"""Which numbers of a view stand in its document: each with its unit, against every number as `figures` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from edgedistill.evidence.view import figures

NUMBER = re.compile(
    r"(?<![\w.\-/#])([-\u2212+]?\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?)(?![\w/.]*[A-Za-z_])"
    r"(?:\s(ms|MB|GB|%|points|nats|MHz|W|mJ|°C|[EPTGM]?FLOP|s|min|h|px|M|G|k)(?!\w))?"
)
SCALES = {
    "ms": (1e3,), "MB": (1e-6,), "GB": (1e-9,), "%": (100,), "points": (100,), "MHz": (1e-6,), "mJ": (1e3,),
    "M": (1e-6,), "G": (1e-9,), "k": (1e-3,), "TFLOP": (1e-12,), "GFLOP": (1e-9,), "PFLOP": (1e-15,),
}  # fmt: skip
OWN = ("95 % interval", "95 % intervals", "99 % confidence", "95 %", "1 thread")
"""What views say themselves."""


def numbers(node: Any) -> Iterator[float]:
    """Every number of a document, and the length of every list and mapping."""
    if isinstance(node, bool) or node is None:
        return
    if isinstance(node, (int, float)):
        yield node
    elif isinstance(node, dict):
        yield len(node)
        for value in node.values():
            yield from numbers(value)
    elif isinstance(node, list):
        yield len(node)
        for value in node:
            yield from numbers(value)


def words(node: Any) -> Iterator[str]:
    """Every text of a document, as a view shows it."""
    if isinstance(node, str):
        yield figures.visible(node)
    elif isinstance(node, dict):
        for key, value in node.items():
            yield figures.visible(key)
            yield from words(value)
    elif isinstance(node, list):
        for value in node:
            yield from words(value)


@cache
def _forms(value: float, unit: str) -> frozenset[str]:
    found = set()
    for scale in SCALES.get(unit, (1, 100, 1e3, 1e-3, 1e-6, 1e-9, 1e-12)):
        scaled = abs(value * scale)
        found |= {f"{scaled:,.{d}f}" for d in range(5)} | {
            figures.significant(scaled, d) for d in (2, 3, 4)
        }
        found |= {f"{scaled:.2g}", f"{scaled:g}", f"{scaled:,.0f}"}
    if unit in ("", "s", "min", "h"):
        found |= set(re.findall(r"[\d.]+", figures.duration(abs(value))))
        found |= {part.lstrip("0") or "0" for part in found}
    return frozenset(found)


def without_source(text: str, document: Any) -> list[str]:
    """The numbers of `text` that are no number of the document, and stand in no text of it."""
    said = " ".join(words(document))
    values = [v for v in numbers(document) if abs(v) < 1e15]
    for own in OWN:
        text = text.replace(own, " ")
    text = re.sub(r"needs [\d,]+ runs", " ", text)
    lost = []
    for found in NUMBER.finditer(text):
        number, unit = found[1].lstrip("-\u2212+").rstrip(","), found[2] or ""
        if re.search(rf"(?<![\d.]){re.escape(number)}(?![\d])", said):
            continue
        if not any(number in _forms(value, unit) for value in values):
            lost.append(found[0])
    return lost
