"""A picture of a job: a row of kept images for each class, and a row for each reason to drop one."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from edgedistill.synth.generators import Pixels
from edgedistill.synth.ledger import Line

ACROSS, SIDE, GAP, LEFT = 12, 48, 4, 190
"""Images of a row, their side and the space between them in pixels, and the room for words."""
MOST_CLASSES = 20
"""Of more classes, as many are shown."""
COLOURS = 256
"""Of the whole picture, which so fits into a page."""
KEPT_COLOUR, DROPPED_COLOUR, PAPER = (20, 110, 60), (160, 40, 40), (255, 255, 255)


def rows_of(lines: Sequence[Line], classes: Sequence[str]) -> list[tuple[str, bool, list[Line]]]:
    """What is shown: (words, whether kept, images) of classes and of each reason, evenly from first to last."""
    shown = np.linspace(0, len(classes) - 1, min(MOST_CLASSES, len(classes))).round().astype(int)
    found = [
        (classes[k], True, [line for line in lines if line.kept and line.label == k]) for k in shown
    ]
    reasons = sorted({line.reason for line in lines if line.reason})
    found += [
        (reason, False, [line for line in lines if line.reason == reason]) for reason in reasons
    ]
    return [(words, kept, _spread(own)) for words, kept, own in found if own]


def _spread(lines: list[Line]) -> list[Line]:
    places = np.linspace(0, len(lines) - 1, min(ACROSS, len(lines))).round().astype(int)
    return [lines[place] for place in places]


def picture(lines: Sequence[Line], classes: Sequence[str], read: Callable[[Line], Pixels]) -> bytes:
    """The picture as PNG."""
    rows = rows_of(lines, classes)
    step = SIDE + GAP
    sheet = Image.new("RGB", (LEFT + ACROSS * step, max(1, len(rows)) * step), PAPER)
    draw = ImageDraw.Draw(sheet)
    for down, (words, kept, own) in enumerate(rows):
        colour = KEPT_COLOUR if kept else DROPPED_COLOUR
        draw.text((GAP, down * step + SIDE // 2 - 6), _short(words), fill=colour)
        for across, line in enumerate(own):
            image = Image.fromarray(read(line)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            sheet.paste(image, (LEFT + across * step, down * step + GAP // 2))
    out = io.BytesIO()
    small = sheet.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(out, "PNG", optimize=True)
    return out.getvalue()


def _short(words: str) -> str:
    plain = words.encode("ascii", "replace").decode()
    return plain if len(plain) <= 30 else f"{plain[:27]}..."
