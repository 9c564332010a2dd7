"""Writes the pictures of docs/reading-the-report.md from the sample result, in a real browser: `make docs`."""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import chromium_pipe
from evidence_samples import make_result
from PIL import Image

from edgedistill.evidence import comparison, report
from edgedistill.evidence.view.sidebyside import Entry

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "img"
MAX_BYTES = 200_000
WIDTH, MOST_HEIGHT, BORDER = 1000, 1500, 12
PICTURES = {
    "verdict": ("report", "#verdict"),
    "latency": ("report", "#latency .pair"),
    "percentiles": ("report", "table.times"),
    "measured": ("report", "table.how"),
    "arms": ("report", "#help .pair"),
    "layers": ("report", "#files .pair"),
    "confusion": ("report", "table.heat"),
    "mistakes": ("report", "#examples .gallery"),
    "comparison": ("comparison", "#runs"),
}
"""Each picture: the page it is of, and what of it."""
BOX = """(() => { const b = document.querySelector(SELECTOR).getBoundingClientRect();
  return [b.x, b.y + scrollY, b.width, b.height]; })()"""


def pages() -> dict[str, str]:
    """The pages that pictures are taken of."""
    runs = [("jetson", "pass"), ("jetson-small", "fail"), ("planned", "unconfirmed")]
    entries = [
        Entry(name, make_result(status, run=name), {"distill.epochs": 12 * (i + 1)})  # type: ignore[arg-type]
        for i, (name, status) in enumerate(runs)
    ]
    return {"report": report.html(make_result("pass")), "comparison": comparison.html(entries)}


def taken(page: chromium_pipe.Page, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Each picture by name, as a PNG of few colours."""
    texts = pages()
    for name, (which, selector) in PICTURES.items():
        path = folder / f"{which}.html"
        path.write_text(texts[which], "utf-8")
        page.open(path, width=WIDTH)
        x, y, width, height = page.script(BOX.replace("SELECTOR", repr(selector)))
        clip = {
            "x": max(0, x - BORDER), "y": y - BORDER, "width": width + 2 * BORDER,
            "height": min(height + 2 * BORDER, MOST_HEIGHT), "scale": 1,
        }  # fmt: skip
        shot = page.call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip
        )
        with Image.open(io.BytesIO(base64.b64decode(shot["data"]))) as image:
            file = io.BytesIO()
            image.convert("RGB").quantize(64).save(file, "PNG", optimize=True)
        yield name, file.getvalue()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as name,
        chromium_pipe.browser(Path(name) / "profile") as tab,
    ):
        for picture, raw in taken(tab, Path(name)):
            (FOLDER / f"{picture}.png").write_bytes(raw)
            print(f"docs/img/{picture}.png  {len(raw):,} bytes")
            if len(raw) > MAX_BYTES:
                sys.exit(f"larger than {MAX_BYTES:,} bytes")
