"""The verdict: what each number is worth, row by row, and the sentence about all of them."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.evidence.gate import (
    ORDER,
    Facts,
    drop_row,
    judge,
    judged_latency,
    latency_row,
    memory_row,
    sentence,
    size_row,
    top1_row,
)
from edgedistill.result import Artifact, Evidence, Gain, Latency, Limits, Proportion, VerdictRow


def latency(evidence: Evidence, p50: float | None, **more: Any) -> Latency:
    base: dict[str, Any] = {
        "device": "board", "machine": "some processor", "runtime": "onnxruntime 1.2",
        "provider": "CPUExecutionProvider", "threads": 1, "batch": 1, "n": 700,
    }  # fmt: skip
    return Latency(**{**base, "evidence": evidence, "p50_s": p50, **more})


def artifact(*rows: Latency, **more: Any) -> Artifact:
    base: dict[str, Any] = {
        "name": "int8", "path": "bundle/model.int8.onnx", "sha256": "0" * 64, "size_bytes": 5_000_000,
        "precision": "int8", "runtime": "tensorrt", "opset": 17, "input": "uint8_nhwc",
    }  # fmt: skip
    return Artifact(**{**base, "latency": list(rows), **more})


def facts(*rows: Latency, proxy: bool = False, memory: int | None = None, **more: Any) -> Facts:
    return Facts("board", "mobilenetv2_100 at 96 px", artifact(*rows, **more), proxy, memory)


def lat(limit: float, *rows: Latency, proxy: bool = False) -> VerdictRow:
    row = latency_row(limit, facts(*rows, proxy=proxy))
    assert row is not None
    return row


# Latency

TARGET_OK = latency("measured_on_target", 0.004, p90_s=0.0045)
TARGET_SLOW = latency("measured_on_target", 0.004, p90_s=0.0061)
PREDICTED_OK = latency("predicted", 0.003, band_s=(0.0015, 0.0075), n=0, threads=0)
PREDICTED_SLOW = latency("predicted", 0.006, band_s=(0.003, 0.012), n=0)
PROXY_OK = latency("measured_on_proxy", 0.002, p90_s=0.0025)
PROXY_SLOW = latency("measured_on_proxy", 0.020, p90_s=0.025)


def test_no_limit_is_no_row() -> None:
    empty = facts(TARGET_OK)
    rows = [f(None, empty) for f in (latency_row, size_row, memory_row, top1_row, drop_row)]
    assert rows == [None] * 5


def test_a_measurement_on_the_target_decides_both_ways() -> None:
    row = lat(0.005, TARGET_OK, PREDICTED_SLOW, PROXY_SLOW, proxy=True)
    assert (row.status, row.evidence, row.observed) == ("pass", "measured_on_target", 0.0045)
    assert row.note == "p90 of 700 runs, batch 1, 1 thread" and row.advice == ""
    row = lat(0.005, TARGET_SLOW, PREDICTED_OK, PROXY_OK, proxy=True)
    assert (row.status, row.evidence, row.observed) == ("fail", "measured_on_target", 0.0061)
    assert "--student" in row.advice


def test_a_prediction_inside_the_limit_is_unconfirmed_and_says_how_to_measure() -> None:
    row = lat(0.005, PREDICTED_OK)
    assert (row.status, row.evidence, row.observed) == ("unconfirmed", "predicted", 0.003)
    assert row.note == "predicted, 1.5 to 7.5 ms"
    assert "ontarget.pyz bench" in row.advice


def test_a_prediction_above_the_limit_fails_labelled_predicted() -> None:
    row = lat(0.005, PREDICTED_SLOW)
    assert (row.status, row.evidence) == ("fail", "predicted")
    assert row.note.startswith("predicted") and "--latency-ms" in row.advice


@pytest.mark.parametrize("proxy", [PROXY_OK, PROXY_SLOW])
def test_a_proxy_of_another_class_never_enters_the_row(proxy: Latency) -> None:
    assert lat(0.005, proxy, PREDICTED_OK) == lat(0.005, PREDICTED_OK)
    alone = lat(0.005, proxy)
    assert (alone.status, alone.observed, alone.evidence) == ("unconfirmed", None, None)


def test_a_proxy_of_the_same_class_counts_before_a_prediction_and_never_passes() -> None:
    row = lat(0.005, PROXY_OK, PREDICTED_SLOW, proxy=True)
    assert (row.status, row.evidence, row.observed) == ("unconfirmed", "measured_on_proxy", 0.0025)
    row = lat(0.005, PROXY_SLOW, PREDICTED_OK, proxy=True)
    assert (row.status, row.evidence) == ("fail", "measured_on_proxy")


def test_a_like_machines_graphics_card_is_no_proxy_for_a_processor() -> None:
    card = latency("measured_on_proxy", 0.0001, provider="CUDAExecutionProvider")
    assert lat(0.005, card, PREDICTED_OK, proxy=True) == lat(0.005, PREDICTED_OK)
    assert lat(0.005, card, PROXY_OK, proxy=True).observed == 0.0025


def test_without_any_number_the_row_stays_open() -> None:
    for rows in ([], [latency("measured_on_target", None)], [latency("predicted", None)]):
        row = lat(0.005, *rows)
        assert (row.status, row.observed) == ("unconfirmed", None)
        assert "ontarget.pyz bench" in row.advice


def test_the_fastest_way_to_run_it_on_the_target_is_judged() -> None:
    four = latency("measured_on_target", 0.002, p90_s=0.0022, threads=4)
    row = lat(0.003, TARGET_OK, four)
    assert row.observed == 0.0022 and "4 threads" in row.note


def test_p50_stands_in_for_a_p90_that_its_samples_cannot_carry() -> None:
    row = lat(0.005, latency("measured_on_target", 0.004, n=12))
    assert (row.observed, row.status) == (0.004, "unconfirmed")
    assert row.note.startswith("p50 of 12 runs")


def test_an_unstable_measurement_says_so() -> None:
    assert lat(0.005, latency("measured_on_target", 0.004, stable=False)).note.endswith(
        ", unstable"
    )
    assert "unstable" not in lat(0.005, latency("measured_on_target", 0.004, stable=True)).note


def test_exactly_on_the_limit_is_inside() -> None:
    assert lat(0.0045, TARGET_OK).status == "pass"
    assert lat(0.003, PREDICTED_OK).status == "unconfirmed"


def test_a_measurement_of_many_images_at_once_is_not_the_latency_of_one() -> None:
    """The limit is seconds for one image at batch 1."""
    batched = latency("measured_on_target", 0.001, p90_s=0.001, batch=8)
    assert lat(0.005, batched).observed is None
    assert lat(0.005, batched, TARGET_SLOW).status == "fail"


# Size


def test_size_is_that_of_the_file_and_decides() -> None:
    row = size_row(5_000_000, facts())
    assert row is not None
    assert (row.status, row.observed, row.evidence) == ("pass", 5_000_000, None)
    row = size_row(4_999_999, facts())
    assert row is not None and row.status == "fail" and "--size-mb" in row.advice


# Memory


def memory(limit: int, *rows: Latency, predicted: int | None = None) -> VerdictRow:
    row = memory_row(limit, facts(*rows, memory=predicted))
    assert row is not None
    return row


def test_memory_measured_on_the_target_decides_and_the_largest_counts() -> None:
    rows = [latency("measured_on_target", 0.004, peak_rss_bytes=b) for b in (50, 90, None)]
    row = memory(90, *rows, predicted=10**9)
    assert (row.status, row.observed, row.evidence) == ("pass", 90, "measured_on_target")
    assert memory(89, *rows).status == "fail"


def test_predicted_memory_inside_is_unconfirmed_and_above_fails() -> None:
    row = memory(100, predicted=80)
    assert (row.status, row.observed, row.evidence) == ("unconfirmed", 80, "predicted")
    assert "ontarget.pyz bench" in row.advice
    row = memory(100, predicted=120)
    assert (row.status, row.evidence) == ("fail", "predicted")
    assert "--memory-mb" in row.advice


def test_memory_of_a_proxy_does_not_count() -> None:
    proxy = latency("measured_on_proxy", 0.004, peak_rss_bytes=10**9)
    assert memory(100, proxy, predicted=80).observed == 80
    row = memory(100, proxy)
    assert (row.status, row.observed, row.evidence) == ("unconfirmed", None, None)


# Accuracy


def proportion(value: float, low: float | None = None) -> Proportion:
    interval = None if low is None else (low, min(1.0, 2 * value - low))
    return Proportion(value=value, n=2000, ci95=interval)


def test_top1_is_that_of_the_file_and_decides() -> None:
    row = top1_row(0.9, facts(top1=proportion(0.9, 0.9)))
    assert row is not None
    assert (row.status, row.observed, row.evidence) == ("pass", 0.9, None)
    assert row.note == "2000 test images, the file itself run by the kit"
    row = top1_row(0.9, facts(top1=proportion(0.8999)))
    assert row is not None and row.status == "fail" and "distill.epochs" in row.advice


def test_a_pass_within_the_interval_says_so() -> None:
    row = top1_row(0.9, facts(top1=proportion(0.91, 0.89)))
    assert row is not None and row.status == "pass" and "inside the 95 % interval" in row.note


def test_an_accuracy_that_is_not_known_does_not_pass_silently() -> None:
    for make in (top1_row, drop_row):
        row = make(0.5, facts())
        assert row is not None
        assert (row.status, row.observed, row.evidence) == ("unconfirmed", None, None)


def gain(value: float) -> Gain:
    return Gain(against="float32", value=value, ci95=(value, value), p_value=1.0, words="")


@pytest.mark.parametrize(
    ("value", "status"), [(-0.021, "fail"), (-0.02, "pass"), (0.0, "pass"), (0.05, "pass")]
)
def test_a_drop_is_what_the_file_loses_and_a_gain_is_a_negative_drop(
    value: float, status: str
) -> None:
    row = drop_row(0.02, facts(drop=gain(value)))
    assert row is not None
    assert (row.status, row.observed) == (status, -value)
    assert str(row.observed) != "-0.0"
    assert row.note == "against float32, same test images"


# All of them


def judged(limits: dict[str, Any], *rows: Latency, **more: Any) -> Any:
    return judge(Limits(**limits), facts(*rows, **more), ["a remark"])


def test_rows_come_in_the_order_of_the_limits_and_remarks_are_kept() -> None:
    limits = {
        "max_top1_drop": 0.02, "min_top1": 0.8, "memory_bytes": 10**9, "size_bytes": 6_000_000,
        "latency_s": 0.005,
    }  # fmt: skip
    found = judged(limits, PREDICTED_OK, top1=proportion(0.9), drop=gain(0.0), memory=10**8)
    assert [row.limit for row in found.rows] == [
        "latency_s", "size_bytes", "memory_bytes", "min_top1", "max_top1_drop",
    ]  # fmt: skip
    assert found.remarks == ["a remark"] and found.status == "unconfirmed"
    assert found.sentence == (
        "mobilenetv2_100 at 96 px in int8 for board keeps 3 of 5 limits as measured; latency and "
        "memory are not yet measured on the device and must be confirmed there."
    )


def test_one_open_limit_is_told_in_the_singular() -> None:
    found = judged({"latency_s": 0.005, "size_bytes": 6_000_000}, PREDICTED_OK)
    assert "keeps 1 of 2 limits as measured; latency is not yet measured" in found.sentence


def test_a_pass_says_that_each_limit_was_measured() -> None:
    found = judged({"latency_s": 0.005, "size_bytes": 6_000_000}, TARGET_OK)
    assert found.status == "pass"
    assert found.sentence.endswith("keeps all 2 limits, each of them measured.")


def test_one_limit_that_is_kept_reads_well() -> None:
    found = judged({"size_bytes": 6_000_000})
    assert found.sentence.endswith("keeps its one limit, as measured.")


def test_a_fail_names_what_was_missed() -> None:
    limits = {"latency_s": 0.005, "size_bytes": 4_000_000, "min_top1": 0.5}
    found = judged(limits, PREDICTED_SLOW, top1=proportion(0.9))
    assert found.status == "fail"
    assert found.sentence.endswith("misses latency and size: 2 of 3 limits.")


def test_without_limits_there_is_none_to_miss() -> None:
    found = judged({}, PREDICTED_SLOW)
    assert (found.status, found.rows) == ("pass", [])
    assert found.sentence.endswith("is built; no limit was given, so there is none to miss.")


seconds = st.floats(1e-5, 1.0)
rows_of_any_kind = st.lists(
    st.builds(
        lambda e, p50, slow, peak: latency(e, p50, p90_s=p50 * slow, peak_rss_bytes=peak),
        st.sampled_from(get_args(Evidence)), seconds, st.floats(1, 2),
        st.one_of(st.none(), st.integers(0, 10**9)),
    ),
    max_size=5,
)  # fmt: skip


@given(
    rows_of_any_kind, st.booleans(), seconds, st.integers(1, 10**7), st.integers(1, 10**9),
    st.floats(0, 1), st.floats(0, 1), st.one_of(st.none(), st.integers(0, 10**9)),
)  # fmt: skip
def test_the_status_is_that_of_the_worst_row_and_only_the_target_passes(
    rows: list[Latency],
    proxy: bool,
    limit: float,
    size: int,
    ram: int,
    top1: float,
    accuracy: float,
    predicted: int | None,
) -> None:
    limits = Limits(latency_s=limit, size_bytes=size, memory_bytes=ram, min_top1=top1)
    found = judge(
        limits, facts(*rows, proxy=proxy, memory=predicted, top1=proportion(accuracy)), []
    )
    statuses = [row.status for row in found.rows]
    assert len(statuses) == 4
    assert found.status == max(statuses, key=ORDER.__getitem__)
    for row in found.rows:
        if row.status == "pass":
            of_the_file = row.limit in ("size_bytes", "min_top1")
            assert row.evidence == (None if of_the_file else "measured_on_target")
            assert row.observed is not None and row.advice == ""
        else:
            assert row.advice
        if row.status == "fail":
            assert row.observed is not None
        if not proxy:
            assert row.evidence != "measured_on_proxy"
    chosen = judged_latency(rows, proxy)
    if any(r.evidence == "measured_on_target" for r in rows):
        assert chosen is not None and chosen.evidence == "measured_on_target"


def test_what_is_measured_again_takes_the_place_of_what_was_measured_before() -> None:
    slow, fast = 0.006, 0.004
    for first, second in ((fast, slow), (slow, fast)):
        rows = [latency("measured_on_target", t, p90_s=t) for t in (first, second)]
        assert lat(0.005, *rows).observed == second
    threads = [
        latency("measured_on_target", t, p90_s=t, threads=n) for n, t in ((1, fast), (4, slow))
    ]
    assert lat(0.005, *threads).status == "pass"


def test_a_median_of_few_runs_does_not_pass_for_a_p90_of_many() -> None:
    many = latency("measured_on_target", 0.004, p90_s=0.006)
    few = latency("measured_on_target", 0.003, threads=4, n=20)
    assert (lat(0.005, many, few).status, lat(0.005, few).status) == ("fail", "unconfirmed")
    assert "20 runs, batch 1, 4 threads; a p90 needs 64 runs" in lat(0.005, few).note
    assert lat(0.002, few).status == "fail"


def test_a_busy_machine_is_no_fault_of_the_model_but_a_slow_median_is() -> None:
    row = latency("measured_on_target", 0.0045, p90_s=0.006, stable=False, low={"p50": 0.004})
    assert lat(0.005, row).status == "unconfirmed"
    assert "unstable: measure again on a quiet machine" in lat(0.005, row).note
    assert lat(0.0039, row).status == "fail"
    assert lat(0.007, row).status == "pass"


def test_memory_is_that_of_one_image_and_the_model_alone() -> None:
    peaks = [
        latency("measured_on_target", 0.004, peak_rss_bytes=size, **more)
        for size, more in (
            (50, {}), (900, {"batch": 32}), (130, {"scope": "end_to_end"}), (60, {"threads": 4}),
        )
    ]  # fmt: skip
    row = memory(100, *peaks)
    assert (row.status, row.observed) == ("pass", 60)


def test_only_the_model_alone_back_to_back_counts_for_the_limit() -> None:
    for other in ({"scope": "end_to_end"}, {"arrival": "paced", "fps": 30.0}, {"batch": 8}):
        row = latency("measured_on_target", 0.001, p90_s=0.001, **other)
        assert lat(0.005, row).status == "unconfirmed"
        assert lat(0.005, TARGET_SLOW, row).status == "fail"


def test_a_sentence_names_three_things_with_commas() -> None:
    rows = [
        VerdictRow(limit=name, allowed=1.0, status="fail")
        for name in ("latency_s", "size_bytes", "max_top1_drop")
    ]
    text = sentence("fail", rows, facts())
    assert text.endswith("misses latency, size and accuracy drop: 3 of 3 limits.")
