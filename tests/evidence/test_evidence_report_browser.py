"""The page in a real headless browser: no request, no complaint, the verdict in sight."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import chromium_pipe
import numpy as np
import pytest
from evidence_samples import HOSTILE, make_result, saying
from PIL import Image

from edgedistill.evidence import report
from edgedistill.result import Example, Result

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium_pipe.PROGRAM is None, reason="chromium is not installed"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium_pipe.Page]:
    with chromium_pipe.browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def shown(page: chromium_pipe.Page, folder: Path, result: Result, **window: object) -> Path:
    path = folder / "report.html"
    path.write_text(report.html(result), "utf-8")
    page.open(path, **window)  # type: ignore[arg-type]
    return path


BOTTOMS = """Math.max(...[...document.querySelectorAll('h1, .big, .limit-row')]
  .map(e => e.getBoundingClientRect().bottom))"""
# Milliseconds from the start of loading to the first paint.
PAINTED = """new Promise(resolve => new PerformanceObserver(list => {
  for (const e of list.getEntriesByName('first-paint')) resolve(e.startTime);
}).observe({type: 'paint', buffered: true}))"""
# Labels of charts that end outside of their figure.
OUTSIDE = """[...document.querySelectorAll('figure .chart text')].filter(t => {
  const a = t.getBoundingClientRect(), b = t.closest('figure').getBoundingClientRect();
  return a.left < b.left || a.right > b.right;
}).map(t => t.textContent)"""
# Contrast of each text with the solid colour behind it, by the relative luminance of WCAG 2.2.
CONTRAST = """(() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const linear = v => v / 255 <= .04045 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const lum = c => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2]);
  const back = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3) return c;
      if (c.length === 4 && c[3] > 0) return null;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    const behind = back(e);
    if (!own || !behind || !e.checkVisibility() || e.closest('.zero')) continue;
    const style = getComputedStyle(e);
    const fore = parse(e instanceof SVGElement ? style.fill : style.color);
    const a = lum(fore), b = lum(behind);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.push(e.tagName + ' ' + ratio + ' ' + e.textContent.slice(0, 30));
  }
  return low;
})()"""


@pytest.mark.parametrize("status", ["pass", "fail", "unconfirmed"])
def test_the_verdict_and_every_limit_are_in_sight_without_scrolling(
    page: chromium_pipe.Page, tmp_path: Path, status: str
) -> None:
    result = make_result(status)  # type: ignore[arg-type]
    shown(page, tmp_path, result)
    assert page.script("document.querySelector('h1').textContent") == result.verdict.sentence
    assert page.script("document.querySelectorAll('.limit-row').length") == len(result.verdict.rows)
    assert 100 < page.script(BOTTOMS) <= 800


def test_long_words_of_advice_stay_in_sight_too(page: chromium_pipe.Page, tmp_path: Path) -> None:
    result = make_result("fail")
    rows = [
        row.model_copy(update={"advice": "Allow more milliseconds or a larger file. " * 4})
        for row in result.verdict.rows
    ]
    verdict = result.verdict.model_copy(
        update={"rows": rows, "sentence": "A sentence of some length. " * 9}
    )
    shown(page, tmp_path, result.model_copy(update={"verdict": verdict}))
    assert page.script(BOTTOMS) <= 800


@pytest.mark.parametrize("classes", [None, HOSTILE])
def test_the_browser_asks_for_nothing_and_complains_of_nothing(
    page: chromium_pipe.Page, tmp_path: Path, classes: tuple[str, ...] | None
) -> None:
    result = (
        make_result()
        if classes is None
        else saying(make_result(classes=classes, run=HOSTILE[0], command=HOSTILE[1]), HOSTILE[1])
    )
    path = shown(page, tmp_path, result)
    page.script("window.scrollTo(0, document.body.scrollHeight)")
    page.script("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.script("new Promise(r => setTimeout(r, 300))")
    assert page.requests() == [path.resolve().as_uri()]
    assert page.complaints() == []
    assert page.script("document.scripts.length") == 0
    assert page.script("[...document.images].every(i => i.complete && i.naturalWidth > 0)") is True


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_colour_schemes(
    page: chromium_pipe.Page, tmp_path: Path, scheme: str
) -> None:
    shown(page, tmp_path, make_result("fail"), scheme=scheme)
    background = page.script("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(15, 17, 21)") == (scheme == "dark")
    assert page.script(CONTRAST) == []


@pytest.mark.parametrize("classes", [None, HOSTILE])
def test_a_phone_needs_no_sideways_scrolling(
    page: chromium_pipe.Page, tmp_path: Path, classes: tuple[str, ...] | None
) -> None:
    result = make_result()
    if classes is not None:
        result = saying(make_result(classes=classes, run=HOSTILE[0] * 3), HOSTILE[0] * 3)
    shown(page, tmp_path, result, width=390, height=844)
    assert page.script("document.documentElement.scrollWidth") == 390
    assert page.script("document.querySelector('.big').getBoundingClientRect().bottom") < 300


@pytest.mark.parametrize("width", [1280, 390])
def test_no_label_of_a_chart_runs_out_of_its_frame(
    page: chromium_pipe.Page, tmp_path: Path, width: int
) -> None:
    shown(page, tmp_path, make_result(), width=width, height=844)
    assert page.script(OUTSIDE) == []
    assert page.script("document.querySelectorAll('.line').length") >= 12


def test_the_keyboard_reaches_the_links_and_the_folded_parts(
    page: chromium_pipe.Page, tmp_path: Path
) -> None:
    shown(page, tmp_path, make_result())
    seen = []
    for _ in range(12):
        for kind in ("keyDown", "keyUp"):
            page.call(
                "Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9
            )
        seen.append(page.script("document.activeElement.textContent.trim().slice(0, 20)"))
    assert seen[0] == "Skip to the verdict"
    assert {"Verdict", "Distillation", "Files"} <= set(seen)
    page.script("document.querySelector('summary').focus()")
    for kind in ("keyDown", "keyUp"):
        page.call(
            "Input.dispatchKeyEvent",
            type=kind,
            key="Enter",
            code="Enter",
            text="\r",
            windowsVirtualKeyCode=13,
        )
    assert page.script("document.querySelector('details').open") is True


def test_a_thousand_classes_paint_within_a_second(page: chromium_pipe.Page, tmp_path: Path) -> None:
    names = [f"species of beetle number {i}" for i in range(1000)]
    shown(page, tmp_path, make_result("pass", names, each=50))
    paint = page.script(PAINTED)
    assert 0 < paint < 1000
    assert page.script(BOTTOMS) <= 800


def test_pictures_of_the_page_can_be_taken_and_it_prints(
    page: chromium_pipe.Page, tmp_path: Path
) -> None:
    shown(page, tmp_path, make_result())
    with Image.open(page.screenshot(tmp_path / "report.png")) as image:
        assert image.size == (1280, 800)
        assert len(image.convert("RGB").getcolors(1_000_000) or []) > 50
    assert page.pdf(tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")
    shown(page, tmp_path, make_result(), scheme="dark", media="print")
    assert page.script("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.script("getComputedStyle(document.querySelector('nav')).display") == "none"


def test_pictures_of_any_size_are_shown_whole(page: chromium_pipe.Page, tmp_path: Path) -> None:
    """A photograph's PNG is far longer than any text that the page would cut."""
    rng = np.random.default_rng(0)
    examples = []
    for label, side in enumerate((28, 64, 224)):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, "PNG")
        png = base64.b64encode(file.getvalue()).decode()
        examples.append(Example(png=png, label=label, predicted=0, confidence=0.5))
    shown(page, tmp_path, make_result().model_copy(update={"examples": examples}))
    widths = page.script("[...document.querySelectorAll('figure img')].map(i => i.naturalWidth)")
    assert sorted(widths) == [28, 64, 224]
    assert page.complaints() == []
