"""The three-term latency model, by hand."""

from __future__ import annotations

import dataclasses

import pytest

from edgedistill.target.cost import Cost
from edgedistill.target.device import device_names, load_device
from edgedistill.target.latency import Terms, predict
from edgedistill.target.students import find_student

COST = Cost(
    macs=2_000_000,
    macs_by_kind={"dense": 2_000_000},
    params=300,
    weight_elements=300,
    act_elements=700,
    layers=10,
    peak_act_elements=400,
)


def test_latency_is_overhead_plus_macs_plus_bytes() -> None:
    terms = Terms(1e-5, 1e9, 1e6, band=(0.5, 2.0), tier="D")
    board = dataclasses.replace(load_device("jetson"), latency={"float16": terms})
    found = predict(board, "float16", COST)
    assert found is not None
    assert found.latency_s == pytest.approx(10 * 1e-5 + 2e6 / 1e9 + 2 * 1000 / 1e6)
    assert found.band_s == pytest.approx((found.latency_s / 2, found.latency_s * 2))
    assert found.tier == "D" and found.words.startswith("tier D, estimate")


def test_a_profile_without_a_bandwidth_term_predicts_without_it() -> None:
    terms = Terms(1e-5, 1e9, None, band=(0.5, 2.0), tier="C")
    board = dataclasses.replace(load_device("jetson"), latency={"float16": terms})
    found = predict(board, "float16", COST)
    assert found is not None and found.latency_s == pytest.approx(1e-4 + 2e-3)


def test_a_precision_without_terms_is_not_predicted() -> None:
    assert predict(load_device("jetson-nano"), "int8", COST) is None


# Published latencies that the terms were not set by hand to match; seconds.
PUBLISHED = (
    ("raspberry-pi-4", "float32", "mobilenetv2_100", 224, 0.0624),
    ("raspberry-pi-4", "float32", "tf_efficientnet_lite0", 224, 0.0747),
    ("raspberry-pi-4", "int8", "mobilenetv2_100", 224, 0.0230),
    ("jetson-xavier-nx", "float16", "mobilenetv2_100", 224, 0.00165),
    ("jetson-xavier-nx", "float16", "mobilenetv3_large_100", 224, 0.00242),
    ("x86-cpu", "float32", "tf_efficientnet_lite0", 224, 0.00725),
    ("x86-cpu", "int8", "tf_efficientnet_lite0", 224, 0.00415),
)


@pytest.mark.parametrize(("name", "precision", "student", "size", "latency_s"), PUBLISHED)
def test_published_latencies_lie_in_the_printed_band(
    name: str, precision: str, student: str, size: int, latency_s: float
) -> None:
    cost = find_student(student).cost(size, 1000)
    found = predict(load_device(name), precision, cost)  # type: ignore[arg-type]
    assert found is not None
    low, high = found.band_s
    assert low <= latency_s <= high


@pytest.mark.parametrize("name", device_names())
def test_a_larger_input_is_never_predicted_faster(name: str) -> None:
    board = load_device(name)
    for precision in board.latency:
        times = [
            predict(board, precision, find_student("mobilenetv2_100").cost(size, 10))
            for size in (48, 64, 128, 224, 300)
        ]
        points = [t.latency_s for t in times if t is not None]
        assert points == sorted(points) and len(points) == 5
