"""The page of a study in a real headless browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import chromium_pipe
import pytest
from evidence_samples import HOSTILE
from PIL import Image
from study_samples import make_study, unrun
from test_evidence_report_browser import CONTRAST

from edgedistill.evidence import study as views
from edgedistill.studyresult import StudyResult

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium_pipe.PROGRAM is None, reason="chromium is not installed"),
]
# Pairs of labels in the chart whose boxes, as the browser has drawn them, cover each other.
COVERED = """(() => {
  const all = [...document.querySelectorAll('.chart.study .label, .chart.study .teacher-text')];
  const boxes = all.map(e => [e.textContent, e.getBoundingClientRect()]);
  const found = [];
  boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
    const across = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const down = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (across > 1 && down > 4) found.push(a + ' / ' + b);
  }));
  return found;
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium_pipe.Page]:
    with chromium_pipe.browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def shown(page: chromium_pipe.Page, folder: Path, study: StudyResult, **window: object) -> Path:
    path = folder / "study.html"
    path.write_text(views.html(study), "utf-8")
    page.open(path, **window)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("hostile", [False, True])
def test_the_chart_alone_is_a_picture_that_asks_for_nothing(
    page: chromium_pipe.Page, tmp_path: Path, hostile: bool
) -> None:
    path = tmp_path / "study.svg"
    study = make_study(study=HOSTILE[0], remarks=list(HOSTILE)) if hostile else make_study()
    path.write_text(views.picture(study) or "", "utf-8")
    page.open(path)
    assert page.requests() == [path.resolve().as_uri()]
    assert page.complaints() == []
    assert page.script("document.documentElement.localName") == "svg"
    assert page.script("document.querySelectorAll('.dot').length") >= 8
    assert page.script("getComputedStyle(document.querySelector('.whisker')).stroke") != "none"
    outside = """(() => {
      const all = document.documentElement.viewBox.baseVal
      const inside = (b) => b.x >= all.x && b.y >= all.y
        && b.x + b.width <= all.x + all.width && b.y + b.height <= all.y + all.height
      return [...document.querySelectorAll('text')].filter((t) => !inside(t.getBBox())).length
    })()"""
    assert hostile or page.script(outside) == 0, "words that are cut off"


@pytest.mark.parametrize("hostile", [False, True])
def test_the_browser_asks_for_nothing_and_complains_of_nothing(
    page: chromium_pipe.Page, tmp_path: Path, hostile: bool
) -> None:
    facts = {"study": HOSTILE[0], "command": HOSTILE[1], "remarks": list(HOSTILE)}
    path = shown(page, tmp_path, make_study(**facts) if hostile else make_study())
    page.script("window.scrollTo(0, document.body.scrollHeight)")
    page.script("new Promise(r => setTimeout(r, 300))")
    assert page.requests() == [path.resolve().as_uri()]
    assert page.complaints() == []
    assert page.script("document.scripts.length") == 0
    assert page.script("document.querySelectorAll('.arm-row').length") == 8


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_colour_schemes(
    page: chromium_pipe.Page, tmp_path: Path, scheme: str
) -> None:
    shown(page, tmp_path, unrun(make_study(), "dkd"), scheme=scheme)
    background = page.script("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(15, 17, 21)") == (scheme == "dark")
    assert page.script(CONTRAST) == []


def test_the_headline_is_in_sight_and_no_label_covers_another(
    page: chromium_pipe.Page, tmp_path: Path
) -> None:
    study = make_study()
    shown(page, tmp_path, study)
    assert page.script("document.querySelector('h1').textContent") == study.headline
    assert page.script("document.querySelector('h1').getBoundingClientRect().bottom") < 400
    assert page.script("document.querySelectorAll('.chart.study .label').length") == 8
    assert page.script(COVERED) == []
    wide = "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth)"
    assert max(page.script(wide)) <= 1, "a table is cut on a wide screen"


def test_a_phone_needs_no_sideways_scrolling(page: chromium_pipe.Page, tmp_path: Path) -> None:
    shown(page, tmp_path, make_study(study=HOSTILE[0] * 3), width=390, height=844)
    assert page.script("document.documentElement.scrollWidth") == 390


def test_pictures_of_the_page_can_be_taken_and_it_prints(
    page: chromium_pipe.Page, tmp_path: Path
) -> None:
    shown(page, tmp_path, make_study())
    with Image.open(page.screenshot(tmp_path / "study.png")) as image:
        assert len(image.convert("RGB").getcolors(1_000_000) or []) > 50
    assert page.pdf(tmp_path / "study.pdf").read_bytes().startswith(b"%PDF-")
