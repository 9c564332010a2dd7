"""Bytes by layer in every file, and what INT8 did to the classes."""

from __future__ import annotations

from evidence_samples import HOSTILE, make_result
from test_evidence_report import Outline

from edgedistill.evidence import report
from edgedistill.evidence.view import layers
from edgedistill.result import Layer


def test_a_layer_is_shown_in_every_file_that_has_it() -> None:
    rows = layers.layer_rows(make_result())
    assert [row.params for row in rows] == sorted((row.params for row in rows), reverse=True)
    first = rows[0]
    assert [layer.size_bytes for layer in first.found if layer] == [1_643_584, 821_824, 410_944]
    renamed = next(row for row in rows if row.name == "/input/Conv")
    assert renamed.found[0] is None and renamed.found[2] is not None
    assert not any(row.operator == "Add" for row in rows)  # scales alone are no weights


def test_the_table_has_every_byte_that_the_document_has() -> None:
    result = make_result()
    page = Outline(report.html(result)).words
    for artifact in result.artifacts:
        for layer in artifact.layers:
            if layer.params:
                assert f"{layer.size_bytes:,}" in page


def test_a_short_name_keeps_the_parts_that_tell_layers_apart() -> None:
    def short(name: str, operator: str = "Conv") -> str:
        return layers.tail(layers.LayerRow(name, operator, 1, []))

    assert short("/model/blocks/blocks.6/blocks.6.0/conv_pwl/Conv") == "model/blocks.6.0/conv_pwl"
    assert short("Conv 12") == "Conv 12"
    assert short("/Conv") == "Conv"
    assert short("") == "(no name)"


def test_without_layers_nothing_is_drawn() -> None:
    result = make_result()
    bare = [a.model_copy(update={"layers": []}) for a in result.artifacts]
    result = result.model_copy(update={"artifacts": bare})
    assert layers.layers_chart(result) is None
    assert "Its largest layers" not in report.html(result)


def test_hostile_names_of_layers_stay_text() -> None:
    result = make_result()
    named = [Layer(name=t, operator=t, size_bytes=9, params=3) for t in HOSTILE]
    files = [a.model_copy(update={"layers": named}) for a in result.artifacts]
    outline = Outline(report.html(result.model_copy(update={"artifacts": files})))
    assert outline.broken == []
    assert len(outline.all("img")) == len(result.examples) and not outline.all("script")


def test_the_classes_that_int8_hurts_most_come_first_and_those_it_helps_last() -> None:
    rows = layers.classes(make_result())
    falls = [row.after - row.before for row in rows]
    assert falls == sorted(falls) and falls[0] < 0 < falls[-1]
    many = layers.changed([rows[0]] * 30 + [rows[-1]] * 30)
    assert many == [rows[0]] * 5 + [rows[-1]] * 5
    words = Outline(report.html(make_result())).words
    first = rows[0]
    assert f"{first.name} {first.test} images" in words
    assert f"{first.before * 100:.1f} % → {first.after * 100:.1f} %" in words


def test_a_run_without_int8_says_nothing_of_it() -> None:
    result = make_result()
    files = [a for a in result.artifacts if a.precision != "int8"]
    page = report.html(result.model_copy(update={"artifacts": files}))
    assert "What INT8 did" not in page


def test_classes_that_int8_left_alone_are_not_drawn() -> None:
    result = make_result()
    same = {"per_class_recall": result.artifact("float32").per_class_recall}
    files = [a.model_copy(update=same) for a in result.artifacts]
    page = report.html(result.model_copy(update={"artifacts": files}))
    assert "The recall of no class changed." in page
    assert "changed most" not in page
