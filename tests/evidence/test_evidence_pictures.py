"""The pictures of docs/reading-the-report.md: small, used, and of parts that the pages still have."""

from __future__ import annotations

import io
import re
from pathlib import Path

import chromium_pipe
import pytest
from PIL import Image
from report_pictures import FOLDER, MAX_BYTES, PICTURES, pages, taken

GUIDE = FOLDER.parent / "reading-the-report.md"


def test_every_picture_is_small_and_stands_in_the_guide_once() -> None:
    used = re.findall(r"!\[[^\]]+\]\(img/([\w-]+)\.png\)", GUIDE.read_text("utf-8"))
    assert sorted(used) == sorted(PICTURES) == sorted(p.stem for p in FOLDER.glob("*.png"))
    for name in PICTURES:
        raw = (FOLDER / f"{name}.png").read_bytes()
        assert len(raw) < MAX_BYTES
        with Image.open(io.BytesIO(raw)) as image:
            assert image.size[0] > 400 and len(image.convert("RGB").getcolors() or []) > 8


@pytest.mark.browser
def test_every_picture_can_be_taken_anew_as_large_as_it_is(tmp_path: Path) -> None:
    """Fonts differ between machines, so a picture taken here may be somewhat higher or lower than the one kept."""
    with chromium_pipe.browser(tmp_path / "profile") as page:
        for name, raw in taken(page, tmp_path):
            with Image.open(io.BytesIO(raw)) as new, Image.open(FOLDER / f"{name}.png") as kept:
                assert new.size[0] == kept.size[0], name
                assert 0.7 < new.size[1] / kept.size[1] < 1.4, f"{name}: make docs"


def test_words_that_the_guide_explains_stand_in_the_pages() -> None:
    text = " ".join(pages().values())
    guide = GUIDE.read_text("utf-8")
    for words in (
        "measured on target", "measured on proxy", "predicted", "the file itself", "Steadiness", "Arrival",
        "What is timed", "What INT8 did", "Against float", "Every run", "How it was measured",
    ):  # fmt: skip
        assert words.lower() in guide.lower() and words in text
