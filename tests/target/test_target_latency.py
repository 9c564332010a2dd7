"""Latency models: sums of features, bands and tiers, and when nothing is said."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from edgedistill.target.device import Device, device_names, load_device
from edgedistill.target.features import NAMES
from edgedistill.target.latency import (
    Abstention,
    Component,
    LatencyModel,
    Network,
    Prediction,
    evaluate,
    predict,
    three_terms,
)
from edgedistill.target.profile import Weakness
from edgedistill.target.students import find_student, load_students


def _network(
    kernels: float = 10, macs: float = 2e6, elements: float = 1000, **facts: object
) -> Network:
    features = np.zeros(len(NAMES))
    for name, value in (("kernels", kernels), ("macs", macs), ("elements", elements)):
        features[NAMES.index(name)] = value
    asked = {"name": "net", "family": "kin", "operators": frozenset({"Conv"})} | facts
    return Network(**asked, features=features)  # type: ignore[arg-type]


def _board(model: LatencyModel | None, **facts: object) -> Device:
    latency = {} if model is None else {"float16": model}
    return dataclasses.replace(load_device("jetson"), latency=latency, **facts)  # type: ignore[arg-type]


def _model(**facts: object) -> LatencyModel:
    asked = {
        "components": (Component({"kernels": 1e-5}),),
        "bands": {"B": (0.8, 1.25), "C": (0.5, 2.0)},
        "tier": "B",
        "unseen_tier": "C",
    }
    return LatencyModel(**(asked | facts))  # type: ignore[arg-type]


def _predicted(model: LatencyModel, network: Network) -> Prediction:
    found = predict(_board(model), "float16", network)
    assert isinstance(found, Prediction)
    return found


def test_latency_is_overhead_plus_macs_plus_bytes() -> None:
    model = three_terms("float16", 1e-5, 1e9, 1e6, band=(0.5, 2.0), tier="D")
    found = _predicted(model, _network())
    assert found.latency_s == pytest.approx(10 * 1e-5 + 2e6 / 1e9 + 2 * 1000 / 1e6)
    assert found.band_s == pytest.approx((found.latency_s / 2, found.latency_s * 2))
    assert found.tier == "D" and found.words.startswith("tier D, estimate")


def test_a_profile_without_a_bandwidth_term_predicts_without_it() -> None:
    model = three_terms("float16", 1e-5, 1e9, None, band=(0.5, 2.0), tier="C")
    assert _predicted(model, _network()).latency_s == pytest.approx(1e-4 + 2e-3)


def test_several_sums_are_blended_geometrically_by_their_weights() -> None:
    parts = (Component({"kernels": 1e-5}, 0.75), Component({"kernels": 16e-5}, 0.25))
    assert evaluate(_model(components=parts), _network()) == pytest.approx(2e-4)


@pytest.mark.parametrize(("ratio", "power"), [(1.0, 1.0), (math.exp(0.5), 2.0), (1e6, 3.0)])
def test_a_band_is_wider_where_the_sums_disagree_and_not_without_end(
    ratio: float, power: float
) -> None:
    parts = (Component({"kernels": 1e-5}, 0.5), Component({"kernels": 1e-5 * ratio}, 0.5))
    network = _network(family="new")
    plain = _predicted(_model(components=parts, families=frozenset({"kin"})), network)
    wide = _predicted(_model(components=parts, families=frozenset({"kin"}), widening=2.0), network)
    assert wide.latency_s == plain.latency_s and plain.tier == "C"
    assert plain.band_s == pytest.approx((plain.latency_s / 2, plain.latency_s * 2))
    low, high = wide.band_s
    assert (low / wide.latency_s, high / wide.latency_s) == pytest.approx((0.5**power, 2.0**power))


def test_a_student_offset_goes_before_that_of_its_family() -> None:
    model = _model(components=(Component({"kernels": 1e-5}, offsets={"net": 1.5, "kin": 0.5}),))
    assert evaluate(model, _network()) == pytest.approx(1.5e-4)
    assert evaluate(model, _network(name="sister")) == pytest.approx(0.5e-4)
    assert evaluate(model, _network(name="x", family="y")) == pytest.approx(1e-4)


def test_a_family_that_was_not_measured_has_the_wider_band() -> None:
    model = _model(families=frozenset({"kin"}))
    seen, unseen = _predicted(model, _network()), _predicted(model, _network(family="stranger"))
    assert (seen.tier, unseen.tier) == ("B", "C")
    assert seen.latency_s == unseen.latency_s
    assert seen.band_s[1] < unseen.band_s[1]


def test_networks_far_beyond_what_was_measured_are_not_predicted() -> None:
    model = _model(macs=(1e5, 1e6))
    assert isinstance(predict(_board(model), "float16", _network(macs=1.9e6)), Prediction)
    found = predict(_board(model), "float16", _network(macs=2.1e6))
    assert isinstance(found, Abstention) and "measure it on the device" in found.words
    assert not found.impossible
    assert found.floor_s == pytest.approx(0.8 * 1e-4)


def test_a_precision_of_which_nothing_is_known_is_not_predicted() -> None:
    found = predict(_board(None), "float16", _network())
    assert isinstance(found, Abstention) and "nothing is known of float16" in found.words


def test_an_npu_compiler_is_not_guessed_at() -> None:
    found = predict(load_device("coral"), "int8", find_student("mobilenetv2_100").network(224, 10))
    assert isinstance(found, Abstention) and "edgetpu_compiler" in found.words


def test_an_operator_that_a_device_lacks_rules_a_network_out() -> None:
    weak = (Weakness(operators=("HardSwish",), effect="unsupported", why="no such unit"),)
    swish = _network(operators=frozenset({"Conv", "HardSwish"}))
    found = predict(_board(_model(), weak=weak), "float16", swish)
    assert isinstance(found, Abstention) and found.impossible and "HardSwish" in found.words
    assert isinstance(predict(_board(_model(), weak=weak), "float16", _network()), Prediction)


def test_a_family_that_runs_badly_keeps_its_point_and_gets_a_wide_band() -> None:
    weak = (Weakness(families=("kin",), effect="slow", why="seen slow"),)
    found = predict(_board(_model(), weak=weak), "float16", _network())
    assert isinstance(found, Prediction)
    assert found.latency_s == pytest.approx(1e-4) and found.band_s[1] == pytest.approx(3e-4)
    assert "slow here: seen slow" in found.words


# Published latencies of networks that the shipped models know; seconds.
PUBLISHED = (
    ("raspberry-pi-4", "float32", "mobilenetv2_100", 224, 0.0624),
    ("raspberry-pi-4", "float32", "tf_efficientnet_lite0", 224, 0.0747),
    ("raspberry-pi-4", "int8", "mobilenetv2_100", 224, 0.0230),
    ("jetson-xavier-nx", "float16", "mobilenetv2_100", 224, 0.00165),
    ("jetson-xavier-nx", "float16", "mobilenetv3_large_100", 224, 0.00242),
    ("t4", "float16", "efficientnet_b0", 224, 0.00093),
)


@pytest.mark.parametrize(("name", "precision", "student", "size", "latency_s"), PUBLISHED)
def test_published_latencies_lie_in_the_printed_band(
    name: str, precision: str, student: str, size: int, latency_s: float
) -> None:
    network = find_student(student).network(size, 1000)
    found = predict(load_device(name), precision, network)  # type: ignore[arg-type]
    assert isinstance(found, Prediction)
    low, high = found.band_s
    assert low <= latency_s <= high


@pytest.mark.parametrize("name", device_names())
def test_a_larger_input_is_never_predicted_faster(name: str) -> None:
    board = load_device(name)
    for precision in board.latency:
        for student in load_students()[::12]:
            sizes = sorted(student.sizes)
            found = [predict(board, precision, student.network(size, 10)) for size in sizes]
            points = [one.latency_s for one in found if isinstance(one, Prediction)]
            assert points == sorted(points)


@pytest.mark.parametrize("name", device_names())
def test_every_model_says_where_it_comes_from(name: str) -> None:
    for model in load_device(name).latency.values():
        assert model.sources or model.words
        assert model.tier in model.bands and model.unseen_tier in model.bands
        assert all(low < 1 < high for low, high in model.bands.values())
