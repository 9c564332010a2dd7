"""Several runs side by side: their figures, what differs, and what must not be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evidence_samples import HOSTILE, make_result, saying
from markdown_it import MarkdownIt
from study_samples import make_study
from test_evidence_report import Outline, rows_of
from typer.testing import CliRunner

from edgedistill.cli import app
from edgedistill.errors import EdgedistillError
from edgedistill.evidence import comparison
from edgedistill.evidence.view import figures, sidebyside
from edgedistill.evidence.view.sidebyside import Entry
from edgedistill.recipe import Layered, Recipe, Resolved, compose
from edgedistill.result import Result


def entry(label: str, status: str = "pass", recipe: Any = None, **changes: Any) -> Entry:
    return Entry(label, make_result(status, run=label, **changes), recipe)  # type: ignore[arg-type]


def warned(*entries: Entry) -> str:
    return " ".join(sidebyside.warnings(entries))


def test_each_run_has_its_figures_in_page_text_and_terminal() -> None:
    found = [entry("small"), entry("sure", "fail"), entry("guess", "unconfirmed")]
    page, text = Outline(comparison.html(found)).words, comparison.markdown(found)
    for one in found:
        ships = one.ships
        assert ships is not None
        for number in (
            figures.accuracy(ships.top1),
            figures.interval(ships.top1),
            figures.megabytes(ships.size_bytes),
        ):
            assert number in page and number in text
        assert one.result.verdict.sentence in page
        assert f"`{one.label}`" in text
    assert "1.42 ms p90" in page and "1.20 ms p50" in page
    assert page.count("UNCONFIRMED") == 1


def test_runs_that_may_be_compared_bring_no_warning() -> None:
    assert warned(entry("a"), entry("b", "fail")) == ""


def test_other_test_images_are_a_warning() -> None:
    assert "Top-1 must not be compared between a and b" in warned(entry("a"), entry("b", each=50))


def test_another_grade_of_evidence_is_a_warning() -> None:
    words = warned(entry("a"), entry("b", "unconfirmed"))
    assert "the grade of the evidence (a measured on target, b predicted)" in words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"machine": "another board"}, "the machine (a aarch64, 6 cores, b another board)"),
        ({"threads": 4}, "what ran it"),
        ({"arrival": "paced", "fps": 30}, "how runs arrive (a back to back, b paced at 30 a second)"),
        ({"scope": "end_to_end"}, "what is timed (a the model alone, b picture to class)"),
        ({"device": "raspberry-pi-5"}, "the device"),
    ],
)  # fmt: skip
def test_latencies_that_were_taken_otherwise_are_a_warning(
    changes: dict[str, Any], words: str
) -> None:
    other = entry("b")
    ships = other.ships
    assert ships is not None
    rows = [row.model_copy(update=changes) for row in ships.latency]
    files = [
        a.model_copy(update={"latency": rows}) if a.name == ships.name else a
        for a in other.result.artifacts
    ]
    changed = Entry("b", other.result.model_copy(update={"artifacts": files}), None)
    assert words in warned(entry("a"), changed)


def test_only_what_differs_between_recipes_is_shown() -> None:
    first = {"seed": 0, "distill.epochs": 12, "data.source": "./flowers"}
    found = [
        entry("a", recipe=first),
        entry("b", recipe={**first, "distill.epochs": 30, "student.prune_from": "x"}),
        entry("c", recipe=None),
    ]
    rows = dict(sidebyside.differences(found))
    assert rows == {
        "distill.epochs": ["12", "30", sidebyside.NO_RECIPE],
        "student.prune_from": [sidebyside.NOT_SET, "x", sidebyside.NO_RECIPE],
    }


def test_facts_of_the_documents_differ_without_recipes_too() -> None:
    rows = dict(sidebyside.differences([entry("a"), entry("b", version="0.2.0")]))
    assert rows == {"edgedistill": ["0.1.0", "0.2.0"]}


def test_runs_of_one_name_are_told_apart() -> None:
    assert sidebyside.labels(["a", "b"], ["x", "y"]) == ["a", "b"]
    assert sidebyside.labels(["a", "a"], ["x", "y"]) == ["a (x)", "a (y)"]
    assert sidebyside.labels(["a", "a"], ["x", "x"]) == ["a (x) #1", "a (x) #2"]


def test_hostile_names_stay_text_in_the_page_and_the_markdown() -> None:
    found = []
    for text in HOSTILE:
        result = make_result("fail", HOSTILE, run=text, command=text, device={"name": text})
        found.append(Entry(text, saying(result, text), {text: text}))
    page = comparison.html(found)
    outline = Outline(page)
    assert outline.broken == []
    assert not any(outline.all(tag) for tag in ("img", "script", "iframe"))
    assert not set("\u202e\u2066\x1b\x07") & set(page)
    assert HOSTILE[0] in outline.words
    html = MarkdownIt("commonmark").enable("table").render(comparison.markdown(found))
    assert "<img" not in html and "<script" not in html and "<a " not in html
    assert len(set(rows_of(html.split("</table>")[0]))) == 1


# -- the command -------------------------------------------------------------------------------------


def run_folder(folder: Path, recipe: Recipe, **changes: Any) -> Result:
    """A run folder with a result and the recipe that belongs to it."""
    folder.mkdir(parents=True)
    resolved = Resolved(recipe, {})
    result = make_result("pass", run=folder.name, recipe_sha256=resolved.sha256(), **changes)
    (folder / "result.json").write_text(result.dumps(), "utf-8")
    (folder / "recipe.yaml").write_text(resolved.dump(), "utf-8")
    return result


def layered(**settings: Any) -> Layered:
    return compose(None, {}, settings)


def test_the_command_compares_runs_by_folder_and_by_file(tmp_path: Path) -> None:
    run_folder(tmp_path / "a", layered().recipe)
    run_folder(tmp_path / "b", layered(seed=7).recipe, seed=7)
    out = tmp_path / "out"
    done = CliRunner().invoke(
        app, ["report", str(tmp_path / "a"), str(tmp_path / "b" / "result.json"), "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in out.iterdir()) == ["comparison.html", "comparison.md"]
    assert "| `seed` | `0` | `7` |" in (out / "comparison.md").read_text("utf-8")
    assert "PASS" in done.output and "comparison.html" in done.output


def test_a_recipe_that_is_not_that_of_the_result_is_not_used(tmp_path: Path) -> None:
    run_folder(tmp_path / "a", layered().recipe)
    result = run_folder(tmp_path / "b", layered(seed=7).recipe)
    recipe = tmp_path / "b" / "recipe.yaml"
    assert comparison.recipe_of(result, tmp_path / "b") is not None
    recipe.write_text(recipe.read_text("utf-8").replace("seed: 7", "seed: 8"), "utf-8")
    assert comparison.recipe_of(result, tmp_path / "b") is None
    recipe.write_text("{[", "utf-8")
    assert comparison.recipe_of(result, tmp_path / "b") is None


def test_a_study_and_too_many_runs_are_refused_in_one_paragraph(tmp_path: Path) -> None:
    run_folder(tmp_path / "a", layered().recipe)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "study.json").write_text(make_study().dumps(), "utf-8")
    for runs, words in (
        (["a", "s"], "is a study, whose arms stand beside each other already"),
        (["a"] * 25, "at most 24"),
        (["a", "nothing"], "does not exist"),
    ):
        done = CliRunner().invoke(app, ["report", *(str(tmp_path / run) for run in runs)])
        assert isinstance(done.exception, EdgedistillError) and done.exception.exit_code == 2
        assert words in str(done.exception)
    assert not Path("comparison.html").exists()
