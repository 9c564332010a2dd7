"""The confusion matrix: counts of few classes, a picture of many, and never one that is not known."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from evidence_samples import make_result
from PIL import Image
from test_evidence_report import Outline
from typer.testing import CliRunner

from edgedistill import tables
from edgedistill.cli import app
from edgedistill.evidence import report
from edgedistill.evidence.view import confusion
from edgedistill.result import Mistake, Result


def many(classes: int, wrong: list[tuple[int, int, int]] = ()) -> Result:  # type: ignore[assignment]
    """So many classes of 50 images, all right but the `wrong` ones, `(true, predicted, images)`."""
    table = [[50 * (i == j) for j in range(classes)] for i in range(classes)]
    for true, predicted, images in wrong:
        table[true][predicted] += images
        table[true][true] -= images
    return make_result("pass", [f"kind {i}" for i in range(classes)], 50, confusion=table)


def pixels(result: Result) -> np.ndarray:
    found = confusion.picture(result)
    assert found is not None
    raw = base64.b64decode(str(found.uri).partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGBA"))


def test_a_single_image_can_be_seen_among_a_thousand_classes() -> None:
    shown = pixels(many(1000, [(700, 3, 1)]))
    assert shown.shape == (500, 500, 4)
    assert tuple(shown[350, 1, :3]) == confusion.WRONG and shown[350, 1, 3] > 80
    assert (shown[np.arange(500), np.arange(500), 3] == 255).all()
    assert (shown[..., 3] > 0).sum() == 501


def test_rows_are_true_classes_and_columns_predicted_ones() -> None:
    shown = pixels(many(60, [(50, 2, 25), (10, 40, 50)]))
    assert shown[50, 2, 3] < shown[10, 40, 3] == 255
    assert shown[2, 50, 3] == 0 and shown[10, 10, 3] == 0


def test_a_dot_of_several_classes_shows_the_strongest_of_them() -> None:
    shown = pixels(many(600, [(1, 0, 49)]))
    assert shown.shape[0] == 300 and tuple(shown[0, 0, :3]) == confusion.RIGHT
    worse = pixels(many(600, [(0, 1, 50), (1, 0, 50)]))
    assert tuple(worse[0, 0, :3]) == confusion.WRONG


def test_mistakes_come_from_the_document_and_of_an_older_one_from_the_matrix() -> None:
    result = many(60, [(5, 6, 9)])
    pair = confusion.Pair("kind 5", "kind 6", 9, 50)
    assert confusion.confused(result) == [pair]
    told = result.model_copy(
        update={"mistakes": [Mistake(label=1, predicted=2, count=7, total=50)], "confusion": []}
    )
    assert confusion.confused(told) == [confusion.Pair("kind 1", "kind 2", 7, 50)]


def written(folder: Path, result: Result) -> Path:
    small, files = tables.apart(result, "stages/15-report")
    place = folder / "stages" / "15-report"
    place.mkdir(parents=True)
    (folder / "result.json").write_text(small.dumps(), "utf-8")
    for name, text in files.items():
        (place / name).write_text(text, "utf-8")
    return place / "confusion.tsv"


def test_a_page_without_its_table_says_where_the_matrix_is_and_shows_none(tmp_path: Path) -> None:
    path = written(tmp_path, many(120, [(5, 6, 9)]))
    runner = CliRunner()
    assert runner.invoke(app, ["report", str(tmp_path)]).exit_code == 0
    whole = (tmp_path / "report.html").read_text("utf-8")
    assert "Confusion matrix of 120 classes" in whole
    path.unlink()
    assert runner.invoke(app, ["report", str(tmp_path)]).exit_code == 0
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Confusion matrix of" not in page
    assert "stages/15-report/confusion.tsv , which is not beside this result" in Outline(page).words


def test_a_page_with_a_changed_table_is_not_made(tmp_path: Path) -> None:
    path = written(tmp_path, many(120))
    path.write_text(path.read_text("utf-8").replace("\t50\n", "\t49\n", 1), "utf-8")
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert "its hash is another" in str(done.exception)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("classes", [2, 40])
def test_few_classes_are_shown_as_counts(classes: int) -> None:
    result = many(classes)
    assert confusion.picture(result) is None
    assert len(confusion.heatmap(result)) == classes
    assert "Confusion matrix: images of the class in the row" in report.html(result)
