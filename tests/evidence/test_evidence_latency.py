"""What a page says of time: whole distributions, bounds with their lower ends, and how each was measured."""

from __future__ import annotations

import re

import pytest
from evidence_parts import conditions, measured_fully, quantiles
from evidence_samples import make_result
from hypothesis import given, settings
from hypothesis import strategies as st
from test_evidence_report import Outline

from edgedistill.evidence import report
from edgedistill.evidence.view import figures, latency, strips
from edgedistill.result import Latency, Result


def timed(**changes: object) -> Latency:
    fields = {
        "device": "board", "machine": "arm", "runtime": "onnxruntime 1.31.1", "provider": "CPUExecutionProvider",
        "threads": 4, "batch": 1, "evidence": "measured_on_target",
    }  # fmt: skip
    return Latency.model_validate({**fields, **measured_fully(0.004), **changes})


def with_rows(*rows: Latency) -> Result:
    result = make_result()
    files = [
        a.model_copy(update={"latency": list(rows) if a.name == "float16" else []})
        for a in result.artifacts
    ]
    return result.model_copy(update={"artifacts": files})


def facts(*rows: Latency) -> dict[str, list[str | None]]:
    return dict(latency.how(with_rows(*rows))[1])


def strip_of(values: list[float]) -> str:
    return str(strips.strips("t", "d", [strips.Strip("a", "b", values, [], "target")]))


@settings(max_examples=60)
@given(st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=101))
def test_no_tail_is_clipped_whatever_its_length(values: list[float]) -> None:
    values = sorted(values)
    chart = strip_of(values)
    path = re.search(r'class="marks target" d="([^"]+)"', chart)
    assert path is not None
    places = [float(x) for x in re.findall(r"M([\d.]+) ", path[1])]
    assert len(places) == len(values)
    assert places == sorted(places)
    assert min(places) >= 0 and max(places) <= 480
    if values[-1] > values[0] * 1.01:
        assert places[0] == 8 and places[-1] == 472


def test_marks_of_a_bimodal_time_stand_where_its_runs_are() -> None:
    seen = quantiles(0.004, tail=40)
    path = re.search(r'class="marks target" d="([^"]+)"', strip_of(seen))
    assert path is not None
    places = [float(x) for x in re.findall(r"M([\d.]+) ", path[1])]
    assert len([p for p in places if p < 100]) >= 98
    assert places[-1] == 472


def test_a_far_limit_does_not_squeeze_the_runs_into_a_corner() -> None:
    rows = [strips.Strip("a", "b", quantiles(0.004), [], "target")]
    assert 'class="limit"' in strips.strips("t", "d", rows, 0.005, "limit")
    far = strips.strips("t", "d", rows, 5.0, "limit")
    assert 'class="limit"' not in far


def test_every_bound_has_its_lower_end_beside_it() -> None:
    page = Outline(report.html(with_rows(timed()))).words
    row = page[page.index("Percentiles of each file") :].split("A percentile is an upper bound")[0]
    for which in ("p50", "p90", "p95"):
        assert f"{figures.percentile(timed(), which)} from" in row
    assert "6.52 ms 1,000" in row  # p99 has no lower end here, and the runs come last
    assert "p99.9" not in row


def test_a_percentile_of_many_runs_gets_its_column() -> None:
    page = report.html(with_rows(timed(p999_s=0.0123, n=7000)))
    assert ">p99.9</th>" in page and "12.3 ms" in page


def test_conditions_are_shown_before_and_after() -> None:
    found = facts(timed(before=conditions(48.0), after=conditions(61.5, throttled=["cap"])))
    assert found["Temperature"] == ["48.0 °C → 61.5 °C"]
    assert found["Governor"] == ["schedutil"]
    assert found["Slowed down by"] == ["cap"]
    assert found["Taken by others"] == ["2.1 %"]
    assert "Energy" not in found


def test_the_scenario_is_said_in_words() -> None:
    paced = timed(arrival="paced", fps=30, late=3, scope="end_to_end", parts_s={"decode": 0.002})
    found = facts(paced, timed())
    assert found["Arrival"] == ["paced at 30 a second, 3 frames lost", "back to back"]
    assert found["What is timed"][0] == "picture to class; medians: decode 2.00 ms"
    assert found["Nodes of the graph on"] == ["CPU 65", "CPU 65"]


def test_a_measurement_of_an_older_kit_still_looks_right() -> None:
    old = Latency(
        device="host", machine="x86", runtime="onnxruntime", provider="CPUExecutionProvider", threads=1, batch=1,
        evidence="measured_on_target", p50_s=0.004, n=40, load_s=0.05, first_run_s=0.01,
    )  # fmt: skip
    result = with_rows(old)
    assert latency.distribution(result) is None
    words = Outline(report.html(result)).words
    assert "needs 64 runs" in words and "Loading 50.0 ms" in words and "First run, cold" in words
    assert not re.search(r"Temperature|Energy|Every run", words)


def test_the_sentence_says_what_is_measured_predicted_or_unknown() -> None:
    assert latency.headline(with_rows(timed())).startswith(
        "The p90 of float16 on board is at most 4.72 ms, with 99 % confidence from 1,000 runs"
    )
    guess = timed(
        evidence="predicted", p50_s=0.002, p90_s=None, band_s=(0.001, 0.003), quantiles_s=[]
    )
    assert "is predicted: 2.00 ms, 1.00 to 3.00 ms. Nobody has" in latency.headline(
        with_rows(guess)
    )
    assert latency.headline(with_rows()) == (
        "Nobody has measured the latency of the file that ships."
    )


def test_an_unsteady_measurement_warns_beside_the_headline() -> None:
    page = Outline(report.html(with_rows(timed(stable=False, warnings=["it got slower"])))).words
    assert "This measurement was not steady: it got slower." in page


@pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)>", "a\u202eb\x1b[31m", "| `x` |"])
def test_foreign_words_of_a_kit_stay_text(text: str) -> None:
    state = conditions(40.0, governor=text, power_mode=text, throttled=[text])
    row = timed(
        device=text, machine=text, runtime=text, provider=text, placement={text: 3}, parts_s={text: 0.1},
        scope="end_to_end", inputs=text, before=state, samples=text, warnings=[text],
        energy={"source": text, "joules": 0.1, "watts": 1.0, "idle_watts": 0.5},
    )  # fmt: skip
    outline = Outline(report.html(with_rows(row)))
    assert outline.broken == [] and len(outline.all("img")) == len(make_result().examples)
    assert not set("\u202e\x1b") & set(
        report.html(with_rows(row)) + report.markdown(with_rows(row))
    )


def test_only_what_the_limit_means_stands_beside_it() -> None:
    paced = timed(arrival="paced", fps=30)
    whole = timed(scope="end_to_end")
    many = timed(batch=8)
    result = with_rows(timed(), paced, whole, many)
    for chart in (latency.bars, latency.distribution):
        beside, apart = str(chart(result)), str(chart(result, meant=False))
        assert 'class="limit"' in beside and 'class="limit"' not in apart
        for words in ("paced at 30", "end to end", "batch 8"):
            assert words in apart and words not in beside
    assert latency.bars(with_rows(timed()), meant=False) is None
    page = Outline(report.html(with_rows(paced)))
    assert page.broken == [] and "the limit is about none of these" in page.words


def test_a_page_shows_the_newest_of_each_way_and_counts_what_it_leaves_out() -> None:
    again = [timed(n=1000 + i) for i in range(300)]
    result = with_rows(*again)
    (shown,) = latency.rows(result)
    assert shown.latency.n == 1299
    words = "Left out here: 299 older of the same kind; result.json has them all."
    assert words in Outline(report.html(result)).words and words in report.markdown(result)
    assert latency.left_out(with_rows(timed())) == ""


def test_a_page_stays_small_however_many_ways_were_measured() -> None:
    ways = [timed(arrival="paced", fps=1 + i) for i in range(400)]
    result = with_rows(timed(), *ways)
    shown = latency.rows(result)
    assert len(shown) == latency.MOST_ROWS and shown[0].latency.arrival == "back_to_back"
    assert shown[-1].latency.fps == 400
    assert "341 of another kind" in latency.left_out(result)
    assert len(report.html(result)) < report.MAX_HTML_BYTES
