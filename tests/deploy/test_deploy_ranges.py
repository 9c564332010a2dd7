"""What calibration images show, and the ranges that are taken from it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper as nh
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgedistill.deploy.ranges import METHODS, Seen, fill, observe, ranges, widen


def graph() -> onnx.ModelProto:
    """images (N, 2, 3, 3) -> Conv -> Relu -> Conv; the first one is read by the Relu alone."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(4, 2, 1, 1)), rng.normal(size=(3, 4, 1, 1))]
    nodes = [
        oh.make_node("Conv", ["images", "w0"], ["a"], name="first"),
        oh.make_node("Relu", ["a"], ["b"], name="relu"),
        oh.make_node("Conv", ["b", "w1"], ["logits"], name="second"),
    ]
    value = oh.make_tensor_value_info
    made = oh.make_graph(
        nodes, "g",
        [value("images", onnx.TensorProto.FLOAT, ["N", 2, 3, 3])],
        [value("logits", onnx.TensorProto.FLOAT, ["N", 3, 3, 3])],
        [nh.from_array(w.astype(np.float32), f"w{k}") for k, w in enumerate(weights)],
    )  # fmt: skip
    model = oh.make_model(made, opset_imports=[oh.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def seen_of(values: np.ndarray) -> Seen:
    seen: dict[str, Seen] = {}
    widen(seen, "x", values, 1.0)
    fill(seen, "x", values)
    return seen["x"]


def test_every_image_counts_and_channels_have_means_and_peaks() -> None:
    images = np.random.default_rng(1).normal(size=(7, 2, 3, 3)).astype(np.float32)
    images[-1] *= 10
    seen = observe(graph(), images)
    assert seen["images"].low == images.min() and seen["images"].high == images.max()
    means, peaks = seen["images"].means, seen["images"].peaks
    assert means is not None and peaks is not None
    assert np.allclose(means, images.mean((0, 2, 3)), atol=1e-6)
    assert np.allclose(peaks, np.abs(images).max((0, 2, 3)))


def test_what_only_a_relu_reads_is_not_a_tensor_of_its_own() -> None:
    images = np.ones((2, 2, 3, 3), np.float32)
    assert set(observe(graph(), images)) == {"images", "b", "logits"}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_tensor_that_is_always_the_same_has_its_value_and_0_for_a_range(method: str) -> None:
    one = seen_of(np.full((2, 3), 2.5, np.float32))
    assert ranges({"x": one}, method) == {"x": (0.0, 2.5)}


def test_one_value_far_out_is_cut_by_all_methods_but_minmax() -> None:
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    values[0] = 400.0
    one = seen_of(values)
    found = {method: ranges({"x": one}, method)["x"] for method in METHODS}
    assert found["minmax"] == (values.min(), 400.0)
    assert found["percentile"][1] < 10 and found["entropy"][1] < 200 and found["mse"][1] < 400


def test_the_mean_squared_error_is_least_at_the_range_of_mse() -> None:
    values = np.random.default_rng(0).laplace(size=100_000).astype(np.float32)

    def error(low: float, high: float) -> float:
        scale = (high - low) / 255
        kept = np.clip(np.round((values - low) / scale), 0, 255) * scale + low
        return float(((kept - values) ** 2).mean())

    one = seen_of(values)
    low, high = ranges({"x": one}, "mse")["x"]
    assert error(low, high) < 0.9 * error(one.low, one.high)
    for share in (0.85, 1.15):
        assert error(low, high) < error(share * low, share * high)


def test_zeros_that_a_relu_makes_do_not_pull_the_range_of_entropy_in() -> None:
    rng = np.random.default_rng(0)
    values = np.minimum(np.maximum(rng.normal(0, 3, 100_000), 0), 6).astype(np.float32)
    assert ranges({"x": seen_of(values)}, "entropy")["x"][1] > 4


def test_percentile_leaves_one_in_ten_thousand_values_out_at_either_end() -> None:
    values = np.linspace(-1, 1, 100_001, dtype=np.float32)
    low, high = ranges({"x": seen_of(values)}, "percentile")["x"]
    assert low == pytest.approx(-0.9998, abs=2e-3) and high == pytest.approx(0.9998, abs=2e-3)


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=64),
    st.sampled_from(sorted(METHODS)),
)
@example([0.0, 1.401298464324817e-45], "entropy")
@example([999999.9375, 1e6], "mse")
def test_a_range_holds_0_and_never_passes_what_was_seen(values: list[float], method: str) -> None:
    one = seen_of(np.array(values, np.float32))
    low, high = ranges({"x": one}, method)["x"]
    assert min(one.low, 0) <= low <= 0 <= high <= max(one.high, 0)


def test_batches_add_up_to_the_whole() -> None:
    values = np.random.default_rng(2).normal(size=(12, 3, 2, 2)).astype(np.float32)
    seen: dict[str, Seen] = {}
    for start, end in pairwise((0, 5, 12)):
        widen(seen, "x", values[start:end], (end - start) / 12)
    whole = seen_of(values)
    assert (seen["x"].low, seen["x"].high) == (whole.low, whole.high)
    assert np.allclose(seen["x"].means, whole.means, atol=1e-6)  # type: ignore[arg-type]
    assert np.array_equal(seen["x"].peaks, whole.peaks)  # type: ignore[arg-type]
