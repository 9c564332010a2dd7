"""The SVG charts hold for any values."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from evidence_samples import make_result
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from edgedistill.evidence.view import arms, charts, latency, sections, svg

VALUES = (
    st.none() | st.floats() | st.sampled_from([0.0, -0.0, 1.0, 1e-300, 1e300, math.inf, math.nan])
)
LABELS = st.text(max_size=30)
COORDINATES = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"}


def parsed(chart: Markup) -> ElementTree.Element:
    """The chart as XML, so that every mistake in its text shows."""
    return ElementTree.fromstring(f"<div>{chart}</div>")


def coordinates(chart: Markup) -> list[float]:
    """Every coordinate of the chart."""
    found = []
    for element in parsed(chart).iter():
        found += [float(v) for k, v in element.attrib.items() if k in COORDINATES]
        found += [float(v) for v in re.split(r"[ ,]+", element.attrib.get("points", "")) if v]
    return found


def all_inside(chart: Markup) -> bool:
    return all(math.isfinite(v) and -20 <= v <= 5000 for v in coordinates(chart))


def write(value: float) -> str:
    return f"{value:g}"


@settings(max_examples=60)
@given(st.lists(st.tuples(LABELS, VALUES, VALUES, VALUES), max_size=6))
def test_intervals_have_finite_coordinates(rows: Sequence[tuple[str, float, float, float]]) -> None:
    dots = [charts.Dot(label, label, value, low, high) for label, value, low, high in rows]
    assert all_inside(charts.intervals("t", "d", dots, write))


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(LABELS, VALUES, VALUES, VALUES, st.sampled_from(["plain", "predicted", "proxy"])),
        max_size=6,
    ),
    VALUES,
)
def test_bars_have_finite_coordinates(
    rows: Sequence[tuple[str, float, float, float, charts.Kind]], limit: float
) -> None:
    bars = [
        charts.Bar(label, label, value, low, high, kind) for label, value, low, high, kind in rows
    ]
    assert all_inside(charts.bars("t", "d", bars, write, limit, "limit"))


@settings(max_examples=60)
@given(st.lists(st.lists(st.tuples(LABELS, st.floats(), LABELS), max_size=8), max_size=4))
def test_stacked_bars_have_finite_coordinates(rows: list[list[tuple[str, float, str]]]) -> None:
    assert all_inside(
        charts.stacked("t", "d", [charts.Stack("a", "b", parts) for parts in rows], write)
    )


@settings(max_examples=60)
@given(st.lists(st.lists(st.tuples(st.floats(), st.floats()), max_size=10), max_size=5))
def test_lines_have_finite_coordinates(rows: list[list[tuple[float, float]]]) -> None:
    assert all_inside(charts.lines("t", "d", [charts.Line("a", points) for points in rows], write))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_equal_values_are_drawn(value: float) -> None:
    dots = [charts.Dot("a", "", value, value, value), charts.Dot("b", "", value)]
    chart = charts.intervals("t", "d", dots, write)
    assert len(parsed(chart).findall(".//circle")) == 2


def test_an_unknown_value_draws_no_bar_but_keeps_its_row() -> None:
    chart = charts.bars("t", "d", [charts.Bar("a", "not measured", None)], write)
    classes = [r.attrib["class"] for r in parsed(chart).iter("rect")]
    assert classes == ["track-bar"]
    assert "not measured" in chart


def test_a_prediction_is_a_band_and_a_measurement_a_bar_from_zero() -> None:
    rows = [
        charts.Bar("a", "", 2.0, 1.0, 4.0, "predicted"),
        charts.Bar("b", "", 2.0, 2.0, 2.5, "target"),
    ]
    found = {
        r.attrib["class"]: r.attrib for r in parsed(charts.bars("t", "d", rows, write)).iter("rect")
    }
    assert float(found["bar predicted"]["x"]) > 0
    assert float(found["bar target"]["x"]) == 0


def test_the_widths_of_bars_are_in_proportion() -> None:
    rows = [charts.Bar("a", "", 1.0), charts.Bar("b", "", 3.0)]
    one, three = [
        float(r.attrib["width"])
        for r in parsed(charts.bars("t", "d", rows, write)).iter("rect")
        if r.attrib["class"] == "bar plain"
    ]
    assert three == pytest.approx(3 * one, rel=1e-3)


def test_every_chart_of_a_report_has_a_role_a_title_and_a_description() -> None:
    result = make_result()
    made = [
        arms.arms_chart(result), arms.gains_chart(result), arms.seconds_chart(result),
        arms.flops_chart(result), latency.bars(result), sections.size_chart(result),
        sections.stages_chart(result), sections.recall_chart(sections.class_rows(result)),
        *(chart for _, chart in arms.curve_charts(result)),
    ]  # fmt: skip
    assert len(made) == 11
    for chart in made:
        assert chart is not None
        svg = parsed(chart).find("svg")
        assert svg is not None and svg.attrib["role"] == "img"
        assert svg[0].tag == "title" and svg[0].text
        assert svg[1].tag == "desc" and svg[1].text


@settings(max_examples=100)
@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    marks = svg.ticks(low, low + span)
    assert len(marks) <= 7
    assert all(low - span * 1e-6 - 1e-6 <= m <= low + span * (1 + 1e-6) + 1e-6 for m in marks)


def test_long_curves_are_thinned_and_keep_their_last_point() -> None:
    line = charts.Line("a", [(float(i), float(i)) for i in range(10_000)])
    chart = charts.lines("t", "d", [line], write)
    points = parsed(chart).find(".//polyline").attrib["points"].split()  # type: ignore[union-attr]
    assert len(points) <= 301
    assert points[-1].startswith("472,")
