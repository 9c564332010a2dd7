"""Planning: the choice by the rules, its reasons, and what happens when nothing fits."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.errors import BudgetError, EdgedistillError, UsageError
from edgedistill.result import Limits, Plan
from edgedistill.target.device import Device, device_names, load_device
from edgedistill.target.latency import Component, LatencyModel, Prediction, predict
from edgedistill.target.plan import MAX_LISTED, input_sizes, plan
from edgedistill.target.students import find_student, load_students, table_sizes

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = {"tf_efficientnet_lite0", "tf_efficientnet_lite2"}


def _plan(device: Device | str = "jetson", limits: Limits | None = None, **options: Any) -> Plan:
    board = load_device(device) if isinstance(device, str) else device
    asked: dict[str, Any] = {"classes": 10, "image_side": 28, "at_hand": BUNDLED.__contains__}
    return plan(board, limits or board.limits, **(asked | options))


def test_the_built_in_data_on_a_jetson_gets_lite0_at_64_px_in_float16() -> None:
    found = _plan()
    chosen = found.chosen
    assert (chosen.model, chosen.input_size, chosen.precision) == (
        *("tf_efficientnet_lite0", 64),
        "float16",
    )
    assert chosen.pretrained and chosen.fits == "safe"
    assert chosen.latency_band_s is not None and chosen.latency_band_s[1] <= 0.005
    assert chosen.size_bytes <= 8_000_000
    assert "pretrained weights are at hand" in chosen.reason
    assert "tier E" in chosen.reason and "5.0 ms" in chosen.reason
    assert "28 px" in found.input_size_reason and "64 px" in found.input_size_reason


def test_lite2_stays_behind_because_its_float16_file_is_too_large() -> None:
    found = _plan()
    lite2 = next(c for c in found.runners_up if c.model == "tf_efficientnet_lite2")
    assert lite2.precision == "int8"
    assert "9.7 MB file, 8.0 MB allowed" in lite2.reason
    larger = _plan(limits=Limits(latency_s=0.005, size_bytes=12_000_000))
    assert (larger.chosen.model, larger.chosen.precision) == ("tf_efficientnet_lite2", "float16")


def test_a_candidate_above_the_limit_is_rejected_with_the_reason() -> None:
    found = _plan()
    medium = next(c for c in found.rejected if c.model == "mobilenetv4_conv_medium")
    assert medium.fits == "no"
    assert "9.2 MB file, 8.0 MB allowed" in medium.reason


def test_over_two_thousand_candidates_are_weighed_and_each_student_is_listed_once() -> None:
    found = _plan()
    assert found.considered == len(load_students()) * len(table_sizes()[1:]) * 3 > 2000
    names = [c.model for c in [found.chosen, *found.runners_up, *found.rejected]]
    assert len(names) == len(set(names))
    assert min(len(found.runners_up), len(found.rejected)) == MAX_LISTED
    assert all(c.reason for c in [*found.runners_up, *found.rejected])


def test_safe_ranks_before_possible_whatever_the_accuracy() -> None:
    board = load_device("jetson")
    lite0 = predict(board, "float16", find_student("tf_efficientnet_lite0").network(64, 10))
    assert isinstance(lite0, Prediction)
    between = (lite0.latency_s + lite0.band_s[1]) / 2
    found = _plan(limits=Limits(latency_s=between, size_bytes=8_000_000))
    assert found.chosen.fits == "safe" and found.chosen.model != "tf_efficientnet_lite0"
    behind = next(c for c in found.runners_up if c.model == "tf_efficientnet_lite0")
    assert behind.fits == "possible" and "ranks after safe" in behind.reason
    assert "ms predicted (up to" in behind.reason


def test_when_only_points_fit_the_choice_is_possible() -> None:
    asked = {"student": "tf_efficientnet_lite0"}
    found = _plan(limits=Limits(latency_s=0.002), **asked)
    assert found.chosen.fits == "possible" and "possibly" in found.chosen.reason


def test_pretrained_weights_at_hand_outweigh_a_slightly_better_prior() -> None:
    nothing = _plan(at_hand=lambda name: False)
    assert nothing.chosen.model != "tf_efficientnet_lite0" and not nothing.chosen.pretrained
    assert "random weights" in nothing.chosen.reason
    assert _plan(weights="random").chosen == nothing.chosen


def test_pretrained_asked_for_and_not_at_hand_names_what_is() -> None:
    with pytest.raises(UsageError, match="tf_efficientnet_lite0, tf_efficientnet_lite2"):
        _plan(student="mobilenetv2_100", weights="pretrained")
    with pytest.raises(UsageError, match="none are at hand"):
        _plan(weights="pretrained", at_hand=lambda name: False)


def test_pretrained_considers_only_what_is_at_hand() -> None:
    found = _plan(weights="pretrained")
    names = {c.model for c in [found.chosen, *found.runners_up, *found.rejected]}
    assert names == BUNDLED


def test_a_small_file_limit_falls_back_to_int8() -> None:
    limits = Limits(latency_s=0.1, size_bytes=5_000_000)
    found = _plan("raspberry-pi-4", limits, student="tf_efficientnet_lite0")
    assert found.chosen.precision == "int8"
    assert found.chosen.size_bytes <= 5_000_000


def test_a_budget_that_nothing_fits_names_the_closest_and_what_it_misses() -> None:
    with pytest.raises(BudgetError) as caught:
        _plan(limits=Limits(latency_s=0.0001))
    text = str(caught.value)
    assert caught.value.exit_code == 1
    assert "no student fits NVIDIA Jetson Orin Nano 8 GB" in text
    assert "0.1 ms allowed" in text and "times the limit" in text
    assert "--latency-ms" in text and "--size-mb" not in text


def test_a_network_too_large_to_be_predicted_is_no_way_out_of_a_small_limit() -> None:
    largest = LatencyModel(
        (Component({"macs": 1e-9}),), {"B": (0.8, 1.25)}, "B", "B", macs=(1e6, 1e8)
    )
    board = dataclasses.replace(load_device("host"), latency={"float32": largest, "int8": largest})
    asked: dict[str, Any] = {"classes": 10, "image_side": 224, "at_hand": lambda _: False}
    with pytest.raises(BudgetError, match="the closest is"):
        plan(board, Limits(latency_s=1e-6), **asked)
    asked |= {"student": "repvit_m3", "input_size": 224}
    wide = plan(board, Limits(latency_s=10.0), **asked).chosen
    assert wide.latency_s is None and wide.fits == "possible", "a limit that it may well keep"


def test_the_advised_limits_are_enough() -> None:
    with pytest.raises(BudgetError) as caught:
        _plan(limits=Limits(latency_s=0.0005, size_bytes=1_000_000))
    words = str(caught.value).split()
    latency = float(words[words.index("--latency-ms") + 1]) / 1e3
    size = float(words[words.index("--size-mb") + 1]) * 1e6
    assert _plan(limits=Limits(latency_s=latency, size_bytes=round(size))).chosen.fits != "no"


def test_a_student_that_was_asked_for_and_does_not_fit_is_a_budget_error() -> None:
    with pytest.raises(BudgetError, match="mobilenetv4_conv_medium does not fit"):
        _plan(student="mobilenetv4_conv_medium")


def test_an_accuracy_limit_rejects_nobody_before_training() -> None:
    limits = Limits(latency_s=0.005, size_bytes=8_000_000, min_top1=0.999)
    found = _plan(limits=limits)
    assert found.chosen.model == "tf_efficientnet_lite0"
    assert "judged after training" in found.chosen.reason


def test_without_limits_the_best_prior_wins() -> None:
    found = _plan(limits=Limits(), at_hand=lambda name: True)
    expected = [one.expected_top1 or 0 for one in found.runners_up]
    assert (found.chosen.expected_top1 or 0) >= max(expected) and expected == sorted(expected)[::-1]
    assert found.rejected == [] and "no limit was set" in found.chosen.reason


def test_a_precision_without_terms_is_never_safe_under_a_latency_limit() -> None:
    board = load_device("jetson")
    blind = dataclasses.replace(board, latency={})
    found = _plan(blind, Limits(latency_s=0.005))
    assert found.chosen.latency_s is None and found.chosen.fits == "possible"
    assert _plan(blind, Limits(size_bytes=8_000_000)).chosen.fits == "safe"


def test_a_memory_limit_counts_where_it_can_be_predicted() -> None:
    tight = Limits(memory_bytes=70_000_000)
    assert (_plan("raspberry-pi-4", tight).chosen.memory_bytes or 0) <= 70_000_000
    with pytest.raises(BudgetError, match="--memory-mb"):
        _plan("raspberry-pi-4", Limits(memory_bytes=10_000_000))
    jetson = _plan("jetson", tight).chosen
    assert jetson.memory_bytes is None and jetson.fits == "possible"


@pytest.mark.parametrize(
    ("side", "detail"), [(28, 64), (32, 64), (40, 96), (64, 128), (100, 224), (4000, 288)]
)
def test_more_than_twice_what_the_images_hold_adds_no_detail(side: int, detail: int) -> None:
    sizes, found, reason = input_sizes(side, "auto")
    assert found == detail and sizes == table_sizes()[1:]
    assert f"{side} px" in reason and (f"more than {detail} px" in reason) == (detail < 288)
    large = _plan(limits=Limits(), image_side=side, student="tf_efficientnet_lite0")
    assert large.chosen.input_size <= detail


def test_an_asked_input_size_is_taken_and_a_wild_one_refused() -> None:
    assert _plan(input_size=48).chosen.input_size == 48
    assert _plan(input_size=112).chosen.input_size == 112
    assert _plan(input_size=48).input_size_reason == "48 px as asked"
    for wild in (0, -64, 31, 513):
        with pytest.raises(UsageError, match="input size"):
            _plan(input_size=wild)


def test_an_unknown_student_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="unknown student"):
        _plan(student="tf_efficientnet_lite9")


_LIMIT = st.none() | st.floats(1e-6, 10)
_BYTES = st.none() | st.integers(1, 10**9)


@settings(max_examples=60)
@given(
    name=st.sampled_from(device_names()),
    latency_s=_LIMIT,
    size_bytes=_BYTES,
    memory_bytes=_BYTES,
    classes=st.integers(2, 2000),
    image_side=st.integers(1, 5000),
)
def test_any_budget_ends_in_a_candidate_that_keeps_it_or_in_one_paragraph(
    name: str,
    latency_s: float | None,
    size_bytes: int | None,
    memory_bytes: int | None,
    classes: int,
    image_side: int,
) -> None:
    limits = Limits(latency_s=latency_s, size_bytes=size_bytes, memory_bytes=memory_bytes)
    try:
        found = _plan(name, limits, classes=classes, image_side=image_side)
    except EdgedistillError as error:
        assert isinstance(error, BudgetError) and "\n" not in str(error)
        return
    for one in [found.chosen, *found.runners_up]:
        assert size_bytes is None or one.size_bytes <= size_bytes
        assert latency_s is None or one.latency_s is None or one.latency_s <= latency_s
        assert memory_bytes is None or one.memory_bytes is None or one.memory_bytes <= memory_bytes
    if found.chosen.fits == "safe" and latency_s is not None:
        assert found.chosen.latency_band_s is not None
        assert found.chosen.latency_band_s[1] <= latency_s


def test_planning_takes_little_time_and_loads_no_torch() -> None:
    code = """
import sys, time
from edgedistill.target.device import load_device
from edgedistill.target.plan import plan
start = time.process_time()
board = load_device("jetson")
plan(board, board.limits, classes=10, image_side=500, at_hand=lambda name: False)
print(time.process_time() - start)
print(sorted({"torch", "timm", "onnx", "onnxruntime"} & set(sys.modules)))
"""
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "export")])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | paths,
        timeout=60,
    )
    seconds, loaded = done.stdout.splitlines()
    assert float(seconds) < 1.5
    assert loaded == "[]"
