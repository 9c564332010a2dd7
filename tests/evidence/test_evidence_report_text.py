"""Numbers and foreign text in the views."""

from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.evidence.view import figures
from edgedistill.result import Latency, VerdictRow


def measured(**changes: object) -> Latency:
    fields = {
        "device": "host", "machine": "x86-64", "runtime": "onnxruntime",
        "provider": "CPUExecutionProvider",
        "threads": 1, "batch": 1, "evidence": "measured_on_proxy", "p50_s": 0.004, "n": 40,
    }  # fmt: skip
    return Latency.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (4.1234, "4.12"),
        (41.234, "41.2"),
        (412.3, "412"),
        (15234.1, "15,234"),
        (0.000123, "0.000123"),
    ],
)
def test_numbers_are_written_plainly_with_three_significant_digits(value: float, text: str) -> None:
    assert figures.significant(value) == text


def test_seconds_become_milliseconds_and_bytes_megabytes_of_a_million_bytes() -> None:
    assert figures.milliseconds(0.00412) == "4.12 ms"
    assert figures.megabytes(7_642_881) == "7.64 MB"
    assert figures.signed_points(-0.0035) == "\u22120.35 points"
    assert figures.duration(252) == "4 min 12 s"
    assert figures.duration(3899) == "1 h 05 min"


def test_unknown_is_said_and_never_zero() -> None:
    writers = (
        figures.milliseconds, figures.megabytes, figures.percent, figures.count, figures.duration,
        figures.magnitude, figures.points, figures.accuracy, figures.interval, figures.band,
        figures.small,
    )  # fmt: skip
    assert {write(None) for write in writers} == {"not measured"}


def test_a_percentile_without_enough_runs_says_how_many_it_needs() -> None:
    latency = measured()
    assert figures.percentile(latency, "p50") == "4.00 ms"
    assert figures.percentile(latency, "p90") == "needs 64 runs"
    assert figures.percentile(latency, "p99") == "needs 662 runs"
    assert figures.percentile(measured(p50_s=None, n=7), "p50") == "needs 11 runs"


def test_a_percentile_that_no_number_of_runs_would_give_is_not_measured() -> None:
    assert figures.percentile(measured(n=700), "p99") == "not measured"
    assert figures.percentile(measured(evidence="predicted", n=0), "p90") == "not measured"


@settings(max_examples=200)
@given(
    st.floats(1e-6, 10),
    st.floats(1e-6, 10),
    st.sampled_from(["latency_s", "size_bytes", "min_top1", "max_top1_drop", "other"]),
)
def test_a_missed_limit_never_looks_equal_to_its_observation(
    allowed: float, observed: float, limit: str
) -> None:
    if abs(allowed - observed) < 1e-8:
        observed = allowed
    row = VerdictRow(limit=limit, allowed=allowed * 1e6, observed=observed * 1e6, status="fail")
    left, right = figures.limit_numbers(row)
    same = left.removeprefix("at most ").removeprefix("at least ") == right
    assert same == (allowed == observed)


def test_one_byte_too_many_is_visible() -> None:
    row = VerdictRow(limit="size_bytes", allowed=8_000_000, observed=8_000_001, status="fail")
    assert figures.limit_numbers(row) == ("at most 8.000000 MB", "8.000001 MB")


@settings(max_examples=200)
@given(st.text(alphabet=st.characters(codec=None), max_size=200))
def test_no_hidden_character_survives(text: str) -> None:
    shown = figures.short(text, 60)
    kinds = {unicodedata.category(c) for c in shown if c not in "\u200c\u200d"}
    assert not kinds & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    assert len(shown) <= 60
    shown.encode("utf-8")


def test_control_and_bidirectional_characters_are_spelled_out() -> None:
    assert figures.visible("a\x1b[31mb\u202ec\n") == "a\\x1b[31mb\\u{202e}c\\n"


@settings(max_examples=100)
@given(st.floats(allow_nan=False, allow_infinity=False, min_value=1e-300, max_value=1e300))
def test_a_number_stays_near_its_value_when_written(value: float) -> None:
    text = figures.significant(value)
    assert math.isclose(float(text.replace(",", "")), value, rel_tol=0.006, abs_tol=6e-13)
