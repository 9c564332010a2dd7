"""The front of the plan as a chart: in the report, and as text in the terminal."""

from __future__ import annotations

from typing import Any

import pytest
from evidence_samples import make_result
from target_parts import make_candidate

from edgedistill.evidence.view.front import front_chart
from edgedistill.planview import front_chart as text_chart
from edgedistill.result import Candidate, Limits, Plan


def _candidate(model: str, latency_s: float | None, top1: float, **facts: Any) -> Candidate:
    band = None if latency_s is None else (latency_s / 2, latency_s * 2)
    known = {"latency_s": latency_s, "latency_band_s": band, "expected_top1": top1}
    return make_candidate(model=model, **(known | facts))


def _plan(*times: float | None) -> Plan:
    front = [_candidate(f"net{i}", t, 0.5 + 0.1 * i) for i, t in enumerate(times)]
    return Plan(considered=9, chosen=front[0], front=front)


def test_the_text_chart_shows_the_choice_the_front_and_the_limit() -> None:
    lines = text_chart(_plan(0.001, 0.004, 0.02), 0.01).splitlines()
    assert lines[0].startswith(" 0.700") and lines[11].startswith(" 0.500 *")
    assert sum(line.count("o") for line in lines[:12]) == 2
    column = {line.index("|") for line in lines[:12]}
    assert len(column) == 1
    assert lines[12].split() == ["1", "ms", "20", "ms"]
    assert lines[13].strip() == "| 10 ms allowed, * the choice"


@pytest.mark.parametrize("times", [(0.001,), (None, None), (0.001, 0.001)])
def test_one_point_is_no_chart(times: tuple[float | None, ...]) -> None:
    assert text_chart(_plan(*times)) == ""


def test_the_report_has_the_front_with_its_bands_and_the_limit() -> None:
    plan = _plan(0.001, 0.004, 0.02)
    result = make_result().model_copy(update={"plan": plan, "budget": Limits(latency_s=0.01)})
    chart = front_chart(result)
    assert chart is not None
    assert chart.count("<circle") == 4 and "limit 10" in chart
    assert "net2 at 96 px in float32: 20" in chart
    alone = result.model_copy(update={"plan": _plan(0.001)})
    assert front_chart(alone) is None
