"""The pages for everybody: axe finds nothing, the keyboard reaches everything, paper cuts nothing."""

from __future__ import annotations

import importlib.util
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium_pipe
import pytest
from evidence_samples import HOSTILE, make_result, png, saying
from study_samples import make_study

from edgedistill.evidence import comparison, report, study
from edgedistill.evidence.view.sidebyside import Entry
from edgedistill.result import Example, Result

AXE = importlib.util.find_spec("axe_playwright_python")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium_pipe.PROGRAM is None, reason="chromium is not installed"),
]
OPEN = "document.querySelectorAll('details').forEach(d => d.open = true)"
RUN = """axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.map(
  v => `${v.impact} ${v.id}: ${v.nodes.map(n => n.html.slice(0, 120)).join(' | ')}`))"""
# Milliseconds from the start of loading to the first paint.
PAINTED = """new Promise(resolve => new PerformanceObserver(list => {
  for (const e of list.getEntriesByName('first-paint')) resolve(e.startTime);
}).observe({type: 'paint', buffered: true}))"""
# What scrolls sideways or folds, and what can be followed.
REACHABLE = """[...document.querySelectorAll('a[href], summary, .scroll, pre')].filter(
  e => e.checkVisibility()).length"""
# Regions that scroll without a stop of the keyboard.
UNREACHED = """[...document.querySelectorAll('body *')].filter(e => {
  const o = getComputedStyle(e).overflowX;
  return (o === 'auto' || o === 'scroll') && e.scrollWidth > e.clientWidth + 1 && e.tabIndex < 0
    && !e.querySelector('a[href]');
}).map(e => e.outerHTML.slice(0, 80))"""
# The element with the focus: a name, and whether an outline shows it inside the window.
FOCUSED = """(() => {
  const e = document.activeElement, s = getComputedStyle(e), b = e.getBoundingClientRect();
  return [e.tagName + (e.id || e.className) + e.textContent.slice(0, 30), e.tagName,
    s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2,
    b.bottom > 0 && b.top < innerHeight];
})()"""
# Tables whose content is wider than the paper.
CUT = """[...document.querySelectorAll('table')].filter(t => t.checkVisibility()
  && t.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(t => t.caption ? t.caption.textContent : t.className)"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium_pipe.Page]:
    with chromium_pipe.browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def comparison_page(names: tuple[str, ...] = ("small", "larger", "unmeasured")) -> str:
    states = ["pass", "fail", "unconfirmed"]
    results = [
        make_result(states[i % 3], run=name, each=100 + i)  # type: ignore[arg-type]
        for i, name in enumerate(names)
    ]
    return comparison.html(
        [Entry(r.run, r, {r.run: r.run, "seed": i}) for i, r in enumerate(results)]
    )


def thousand() -> Result:
    """1,000 classes, 50,000 test images, and as many pictures as a result has."""
    rng = random.Random(0)
    table = [[0] * 1000 for _ in range(1000)]
    for i, row in enumerate(table):
        for _ in range(50):
            row[i if rng.random() < 0.76 else rng.randrange(1000)] += 1
    names = [f"species of beetle number {i}" for i in range(1000)]
    shown = [
        Example(png=png(i, 96), name=f"{i}.jpg", label=i, predicted=(i + (i < 24)) % 1000, confidence=0.9)
        for i in range(36)
    ]  # fmt: skip
    return make_result("pass", names, 50, confusion=table, examples=shown)


PAGES = {
    "report": lambda: report.html(make_result("fail")),
    "hostile": lambda: report.html(saying(make_result(classes=HOSTILE, run=HOSTILE[0]), HOSTILE[1])),
    "comparison": comparison_page,
    "study": lambda: study.html(make_study()),
}  # fmt: skip


def axe() -> str:
    """axe-core, whose results are found in `axe`."""
    if AXE is None or AXE.origin is None:
        assert not os.environ.get("REQUIRE_PROGRAMS"), "make test sets up axe-playwright-python"
        pytest.skip("axe-playwright-python is not installed: make test sets it up")
    return Path(AXE.origin).with_name("axe.min.js").read_text("utf-8") + ";1"


def opened(page: chromium_pipe.Page, folder: Path, text: str, **window: Any) -> Path:
    path = folder / "page.html"
    path.write_text(text, "utf-8")
    page.open(path, **window)
    return path


LOOKED_AT = [
    ("report", "light"), ("report", "dark"), ("hostile", "light"), ("comparison", "light"),
    ("comparison", "dark"), ("study", "dark"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "scheme"), LOOKED_AT)
def test_axe_finds_nothing(
    page: chromium_pipe.Page, tmp_path: Path, name: str, scheme: str
) -> None:
    width = 360 if (name, scheme) == ("report", "dark") else 1280
    path = opened(page, tmp_path, PAGES[name](), scheme=scheme, width=width)
    page.script(OPEN)
    page.script(axe())
    assert page.script("axe.version").startswith("4.")
    assert page.script(RUN) == []
    assert page.requests() == [path.resolve().as_uri()]
    assert page.complaints() == []


def test_axe_would_find_a_picture_without_words(page: chromium_pipe.Page, tmp_path: Path) -> None:
    opened(page, tmp_path, PAGES["comparison"]().replace("<h1", '<img src="data:,"><h1', 1))
    page.script(axe())
    assert [line.partition(":")[0] for line in page.script(RUN)] == ["critical image-alt"]


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_the_keyboard_reaches_every_region_and_is_seen_there(
    page: chromium_pipe.Page, tmp_path: Path, name: str
) -> None:
    opened(page, tmp_path, PAGES[name](), width=700)
    page.script("document.documentElement.style.scrollBehavior = 'auto'")
    assert page.script(UNREACHED) == []
    seen: list[str] = []
    for _ in range(page.script(REACHABLE)):
        for kind in ("keyDown", "keyUp"):
            page.call(
                "Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9
            )
        what, tag, outlined, inside = page.script(FOCUSED)
        assert outlined and inside, what
        seen.append(what)
        assert tag != "BODY"
    assert seen[0].startswith("Askip")
    assert len(set(seen)) == len(seen)
    assert len([what for what in seen if what.startswith("DIVscroll")]) >= 3


def test_the_skip_link_leads_past_the_sections(page: chromium_pipe.Page, tmp_path: Path) -> None:
    opened(page, tmp_path, PAGES["report"]())
    for key, code in (("Tab", 9), ("Enter", 13), ("Tab", 9)):
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            page.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )  # fmt: skip
    assert page.script("location.hash") == "#main"
    assert page.script("document.activeElement.closest('main') !== null") is True


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_no_table_is_cut_on_paper(page: chromium_pipe.Page, tmp_path: Path, name: str) -> None:
    opened(page, tmp_path, PAGES[name](), width=703, media="print")  # A4 less its margins
    assert page.script(CUT) == []
    raw = page.pdf(tmp_path / "page.pdf").read_bytes()
    pages = max(int(n) for n in re.findall(rb"/Count (\d+)", raw))
    assert 1 <= pages <= 16


@pytest.mark.parametrize("name", ["report", "comparison", "hostile"])
def test_no_page_is_wider_than_a_small_phone(
    page: chromium_pipe.Page, tmp_path: Path, name: str
) -> None:
    opened(page, tmp_path, PAGES[name](), width=360, height=740)
    assert page.script("document.documentElement.scrollWidth") == 360


def test_a_thousand_classes_and_50_000_images_paint_within_a_second(
    page: chromium_pipe.Page, tmp_path: Path
) -> None:
    result = thousand()
    assert sum(map(sum, result.confusion)) == 50_000
    text = report.html(result)
    assert len(text.encode()) <= report.MAX_HTML_BYTES
    path = opened(page, tmp_path, text)
    assert 0 < page.script(PAINTED) < 1000
    assert page.script("document.querySelector('.matrix img').naturalWidth") == 500
    assert page.script("document.querySelectorAll('.gallery img').length") == 36
    assert page.requests() == [path.resolve().as_uri()]


def test_hostile_names_run_nothing_in_the_comparison(
    page: chromium_pipe.Page, tmp_path: Path
) -> None:
    path = opened(page, tmp_path, comparison_page(HOSTILE))
    page.script("new Promise(r => setTimeout(r, 200))")
    assert page.requests() == [path.resolve().as_uri()]
    assert page.complaints() == []
    assert page.script("document.scripts.length + document.images.length") == 0
