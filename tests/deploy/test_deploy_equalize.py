"""Equalisation leaves a network what it is; bias correction takes the mean error of rounding away."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch
from torch import nn

from edgedistill.deploy.equalize import corrected, equalized, pairs
from edgedistill.deploy.onnx import INPUT_NAME, OUTPUT_NAME, export_float32
from edgedistill.deploy.quantize import prepared, quantized
from edgedistill.deploy.ranges import Seen, observe, ranges
from edgedistill.nets import Look

LOOK = Look(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Net(nn.Module):
    """Dense, depthwise and dense convolutions with Relus, one after a Clip; channels of unlike sizes count alike."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
            nn.Conv2d(8, 16, 1), nn.ReLU6(),
            nn.Conv2d(16, 16, 3, groups=4), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(16, 5)
        spread = torch.logspace(-1.5, 0, 8)
        with torch.no_grad():
            for k, after in ((0, spread.view(-1, 1, 1, 1)), (2, spread.view(1, -1, 1, 1))):
                self.body[k].weight.mul_(spread.view(-1, 1, 1, 1))  # type: ignore[operator, union-attr]
                self.body[k].bias.mul_(spread)  # type: ignore[operator, union-attr]
                self.body[k + 2].weight.div_(after)  # type: ignore[operator, union-attr]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.head(self.body(x).mean((2, 3)))
        return made


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, 16, 16)).astype(np.float32)


@cache
def model() -> onnx.ModelProto:
    return prepared(export_float32(Net().eval(), LOOK, "float_nchw", 17, {}))


@cache
def seen() -> dict[str, Seen]:
    return observe(model(), images(32))


def run(graph: onnx.ModelProto | bytes, fed: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = graph if isinstance(graph, bytes) else graph.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: fed})[0])


def test_convolutions_with_a_relu_between_are_pairs_and_those_with_a_clip_are_not() -> None:
    found = [(p.first.op_type, p.second.op_type) for p in pairs(model().graph)]
    assert found == [("Conv", "Conv")] * 2


def test_equalisation_changes_no_answer() -> None:
    want, got = run(model(), images(8, 1)), run(equalized(model(), seen()), images(8, 1))
    assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()


def test_before_a_depthwise_convolution_all_channels_get_one_range() -> None:
    after = observe(equalized(model(), seen()), images(32))
    first, second = pairs(model().graph)
    before, now = seen()[first.tensor].peaks, after[first.tensor].peaks
    assert before is not None and now is not None
    alive = before > before.max() / 60
    assert alive.sum() > 4 and before.max() > 10 * before[alive].min()
    assert np.allclose(now[alive], before.max(), rtol=1e-3)
    dense, dense_now = seen()[second.tensor].peaks, after[second.tensor].peaks
    assert dense is not None and dense_now is not None
    assert dense_now.max() / dense_now[alive].min() < 0.5 * dense.max() / dense[alive].min()


def test_a_depthwise_convolution_of_equalised_channels_loses_less_in_int8() -> None:
    fed = images(64, 2)
    want = run(model(), fed)

    def loss(graph: onnx.ModelProto) -> float:
        limits = ranges(observe(graph, images(32)), "minmax")
        depthwise = pairs(graph.graph)[0].second.name
        data = quantized(graph, limits, "tensorrt", {}, only=[depthwise])
        return float(((run(data, fed) - want) ** 2).mean())

    assert loss(equalized(model(), seen())) < 0.5 * loss(model())


@pytest.mark.parametrize("flavour", ["arm", "tensorrt"])
def test_corrected_biases_take_the_mean_error_away(flavour: str) -> None:
    """Weights of 3 bits make it plain: the mean of each logit is moved by rounding, and comes back."""
    coarse = onnx.ModelProto()
    coarse.CopyFrom(model())
    limits = ranges(seen(), "minmax")
    rounded = onnx.load_model_from_string(quantized(model(), limits, flavour, {}))
    for tensor in rounded.graph.initializer:
        if tensor.name.endswith("weight_quantized") and len(tensor.dims) == 4:
            values = onnx.numpy_helper.to_array(tensor)
            few = (np.round(values / 32.0) * 32).clip(-128, 127).astype(np.int8)
            tensor.CopyFrom(onnx.numpy_helper.from_array(few, tensor.name))
    better = corrected(model(), rounded, seen())
    for a, b in zip(model().graph.initializer, better.graph.initializer, strict=True):
        one, other = onnx.numpy_helper.to_array(a), onnx.numpy_helper.to_array(b)
        assert np.array_equal(one, other) or one.ndim == 1
    fed = images(64, 2)
    want = run(model(), fed).mean(0)
    plain = _with_weights(model(), rounded)
    fixed = _with_weights(better, rounded)
    assert (
        np.abs(run(fixed, fed).mean(0) - want).mean()
        < np.abs(run(plain, fed).mean(0) - want).mean()
    )


def _with_weights(graph: onnx.ModelProto, rounded: onnx.ModelProto) -> onnx.ModelProto:
    """The float graph computing with the weights of an INT8 file."""
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in rounded.graph.initializer}
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    for node in rounded.graph.node:
        if node.op_type != "DequantizeLinear" or tensors.get(node.input[0], np.zeros(0)).ndim != 4:
            continue
        scale = tensors[node.input[1]].reshape(-1, 1, 1, 1)
        name = node.input[0].removesuffix("_quantized")
        target = next(t for t in made.graph.initializer if t.name == name)
        values = (tensors[node.input[0]] * scale).astype(np.float32)
        target.CopyFrom(onnx.numpy_helper.from_array(values, name))
    return made
