"""Every number of a view stands in its document, and a document that was changed or cut gives no view."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from evidence_numbers import without_source
from evidence_samples import make_result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from test_evidence_report import Outline
from typer.testing import CliRunner

from edgedistill.cli import app
from edgedistill.errors import DocumentError
from edgedistill.evidence import comparison, report
from edgedistill.evidence.view.sidebyside import Entry
from edgedistill.result import Result, load

TICK = re.compile(r'<text class="tick"[^>]*>.*?</text>')
"""Numbers of an axis: they come from its span."""


def text_of(page: str) -> str:
    return Outline(TICK.sub("", page)).words


@pytest.mark.parametrize("status", ["pass", "fail", "unconfirmed"])
def test_every_number_of_the_page_stands_in_the_document(status: str) -> None:
    result = make_result(status)  # type: ignore[arg-type]
    document = json.loads(result.dumps())
    assert without_source(text_of(report.html(result)), document) == []


@pytest.mark.parametrize("view", [report.markdown, report.model_card])
def test_every_number_of_the_texts_stands_in_the_document(view: Any) -> None:
    result = make_result()
    text = re.sub(r"^---\n.*?\n---\n", "", view(result), flags=re.DOTALL).replace("\\", "")
    assert without_source(text, json.loads(result.dumps())) == []


def test_every_number_of_a_comparison_stands_in_one_of_its_documents() -> None:
    results = [make_result("pass"), make_result("fail", run="other", each=90)]
    entries = [Entry(r.run, r, None) for r in results]
    documents = [json.loads(r.dumps()) for r in results]
    assert without_source(text_of(comparison.html(entries)), documents) == []


@pytest.mark.parametrize("number", ["12.34 ms", "7.77 MB", "91.23 %", "4,711", "0.1234"])
def test_a_number_that_a_view_made_up_would_be_found(number: str) -> None:
    result = make_result()
    page = report.html(result).replace("</h1>", f" {number}</h1>")
    assert without_source(text_of(page), json.loads(result.dumps())) == [number]


# -- damaged documents -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sealed() -> bytes:
    return make_result().dumps().encode()


def written(folder: Path, raw: bytes) -> Path:
    path = folder / "result.json"
    path.write_bytes(raw)
    return path


def said_the_same(path: Path) -> bool:
    """Whether the document is read, and says what it said; a changed one must not be read at all."""
    try:
        return load(path) == make_result()
    except DocumentError as error:
        assert str(path) in str(error)
        return True


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_cut_or_changed_document_is_refused_and_named(
    tmp_path: Path, sealed: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(sealed) - 3))
    kind = data.draw(st.sampled_from(["cut", "byte", "digit", "gone", "twice"]))
    other = data.draw(st.binary(min_size=1, max_size=1))
    here = sealed[at : at + 1]
    if kind == "digit" and here.isdigit():
        other = b"7" if here != b"7" else b"8"
    if kind == "cut":
        assert_refused(written(tmp_path, sealed[:at]))
        return
    put = {"gone": b"", "twice": here * 2}.get(kind, other)
    assert said_the_same(written(tmp_path, sealed[:at] + put + sealed[at + 1 :]))


def assert_refused(path: Path) -> None:
    with pytest.raises(DocumentError, match=re.escape(str(path))):
        load(path)


def paths_of(node: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the values of a document stand."""
    if isinstance(node, dict):
        return [p for k, v in node.items() for p in [(*here, k), *paths_of(v, (*here, k))]]
    if isinstance(node, list):
        return [p for i, v in enumerate(node) for p in [(*here, i), *paths_of(v, (*here, i))]]
    return []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_value_that_was_put_in_or_taken_out_is_noticed(
    tmp_path: Path, sealed: bytes, data: st.DataObject
) -> None:
    document = json.loads(sealed)
    places = [p for p in paths_of(document) if p != ("seal",)]
    *parents, last = data.draw(st.sampled_from(places))
    node = document
    for step in parents:
        node = node[step]
    other = data.draw(
        st.sampled_from([None, -1, 0, 0.123456, 1e308, "x", "", [], {}, [[]], True, "gone"])
    )
    if other == "gone":
        del node[last]
    else:
        node[last] = other
    assert said_the_same(written(tmp_path, json.dumps(document).encode()))


VIEWS = (report.html, report.markdown, report.model_card)
EXTREMES = (0, 1, 0.3, 1e14, 1e-300, 1e308, 10**30)


@settings(max_examples=40)
@given(data=st.data())
def test_whatever_is_read_can_be_shown(sealed: bytes, data: st.DataObject) -> None:
    """A document of extremes, that somebody may have written without a seal, is refused or shown, and never a crash."""
    document = json.loads(sealed)
    del document["seal"]
    places = paths_of(document)
    for _ in range(data.draw(st.integers(1, 4))):
        *parents, last = data.draw(st.sampled_from(places))
        node = document
        with contextlib.suppress(KeyError, IndexError, TypeError):
            for step in parents:
                node = node[step]
            number = isinstance(node[last], int | float) and not isinstance(node[last], bool)
            others = EXTREMES if number else (None, "", [], {})
            node[last] = data.draw(st.sampled_from(others))
    try:
        result = Result.model_validate(document)
    except ValidationError:
        return
    for view in VIEWS:
        assert view(result)
    assert comparison.html([Entry("a", result, None), Entry("b", make_result(), None)])


def test_the_command_gives_one_paragraph_and_no_page_for_a_changed_document(tmp_path: Path) -> None:
    result = make_result()
    text = result.dumps().replace('"seed": 0', '"seed": 1')
    written(tmp_path, text.encode())
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert isinstance(done.exception, DocumentError) and done.exception.exit_code == 2
    assert "changed or damaged after it was written" in str(done.exception)
    assert not (tmp_path / "report.html").exists()


def test_a_document_that_another_tool_laid_out_anew_is_the_same(tmp_path: Path) -> None:
    document = json.loads(make_result().dumps())
    path = written(tmp_path, json.dumps(document, separators=(",", ":"), sort_keys=True).encode())
    assert load(path) == make_result()
    del document["seal"]
    assert load(written(tmp_path, json.dumps(document).encode())) == make_result()
    assert Result.model_validate(json.loads(make_result().dumps())) == make_result()
