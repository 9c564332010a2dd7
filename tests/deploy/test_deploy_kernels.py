"""Means over maps and hard gates as what onnxruntime has INT8 kernels for: the same values, and no float between."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgedistill.deploy.kernels import add_gates, pool_maps
from edgedistill.deploy.onnx import export_float32
from edgedistill.deploy.quantize import quantize
from edgedistill.nets import bn_layers
from tests.deploy_parts import CPU, LOOK, pictures

LEVELS = np.arange(256, dtype=np.uint8)


def gated(
    scale: float,
    zero: int,
    alpha: float,
    beta: float,
    kind: int = TensorProto.UINT8,
    most: float = 1.0,
) -> onnx.ModelProto:
    """A quantized tensor, a hard gate, and the gate quantized from 0 to `most`."""
    numpy_type = helper.tensor_dtype_to_np_dtype(kind)
    numbers = {
        "s": np.float32(scale), "z": np.array(zero, numpy_type),
        "t": np.float32(most / 255), "u": np.array(0, numpy_type),
    }  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x"]),
        helper.make_node("HardSigmoid", ["x"], ["g"], name="gate", alpha=alpha, beta=beta),
        helper.make_node("QuantizeLinear", ["g", "t", "u"], ["h"]),
        helper.make_node("DequantizeLinear", ["h", "t", "u"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "gate",
        [helper.make_tensor_value_info("q", kind, [256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [256])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in numbers.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, inputs: np.ndarray, fast: bool = True) -> np.ndarray:
    """The first output, with the runtime's own rewriting or as written."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    if not fast:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: np.ndarray = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    return found


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@settings(max_examples=40)
@given(
    scale=st.floats(1e-4, 1.0), zero=st.integers(0, 255), most=st.sampled_from([0.3, 1.0]),
    alpha=st.sampled_from([1 / 6, 0.2, 1.0]), beta=st.floats(0.1, 1.0), fast=st.booleans(),
)  # fmt: skip
def test_a_gate_as_a_sum_has_the_same_value_within_half_a_step(
    scale: float, zero: int, alpha: float, beta: float, most: float, fast: bool
) -> None:
    model = gated(scale, zero, alpha, beta, most=most)
    add_gates(model)
    assert kinds(model) == {"DequantizeLinear": 3, "Add": 1, "QuantizeLinear": 1}
    want = np.clip(alpha * scale * (LEVELS.astype(np.float64) - zero) + beta, 0, most)
    assert np.abs(run(model, LEVELS, fast) - want).max() <= 0.5 / 255 + 1.1e-4


def test_a_gate_in_the_middle_is_rounded_alike_everywhere() -> None:
    for scale, zero in ((0.0314, 117), (0.1, 3), (0.02, 128)):
        model = gated(scale, zero, 1 / 6, 0.5)
        add_gates(model)
        middle = [run(model, LEVELS, fast)[zero] for fast in (True, False)]
        assert middle == [pytest.approx(128 / 255)] * 2


@pytest.mark.parametrize(
    "odd",
    [
        gated(0.1, 3, -0.2, 0.5),
        gated(0.1, 3, 0.2, 0.0),
        gated(0.1, 3, 0.2, 0.5, TensorProto.INT8),
        gated(0.1, 3, 0.2, 0.5, most=1.2),
    ],
    ids=["falls", "starts at 0", "is signed", "is quantized beyond 1"],
)
def test_a_gate_that_no_sum_of_uint8_is_stays(odd: onnx.ModelProto) -> None:
    before = odd.SerializeToString()
    add_gates(odd)
    assert odd.SerializeToString() == before


def test_a_gate_that_is_read_in_float_too_stays() -> None:
    model = gated(0.1, 3, 0.2, 0.5)
    model.graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [256]))
    model.graph.node.append(helper.make_node("Relu", ["g"], ["r"]))
    add_gates(model)
    assert kinds(model)["HardSigmoid"] == 1


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize(
    ("axes", "keep", "shape", "pooled"),
    [
        ([2, 3], 1, (2, 4, 5, 6), True),
        ([-2, -1], 1, (2, 4, 5, 6), True),
        ([2, 3], 0, (2, 4, 5, 6), False),
        ([1, 2], 1, (2, 4, 5, 6), False),
        ([2, 3], 1, (2, 4, 5, 6, 7), False),
    ],
)
def test_only_a_mean_over_a_map_is_a_pool(
    axes: list[int], keep: int, shape: tuple[int, ...], pooled: bool, opset: int
) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    want = x.mean(tuple(axes), keepdims=bool(keep))
    inputs, about = (["x", "axes"], {}) if opset >= 18 else (["x"], {"axes": axes})
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", inputs, ["y"], name="mean", keepdims=keep, **about)], "mean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, want.shape)],
        [numpy_helper.from_array(np.array(axes, np.int64), "axes")] if opset >= 18 else [],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    pool_maps(model)
    assert kinds(model) == {"GlobalAveragePool" if pooled else "ReduceMean": 1}
    np.testing.assert_allclose(run(model, x), want, rtol=1e-5, atol=1e-6)


def _gates_and_means() -> bytes:
    torch.manual_seed(0)
    net = timm.create_model("mobilenetv3_small_050", num_classes=4, exportable=True).train()
    for layer in bn_layers(net):
        layer.momentum = None
    with torch.no_grad():
        net(LOOK.tensor(pictures(16), CPU))
    return export_float32(net.eval(), LOOK, "uint8_nhwc", 17, {})


def test_no_float_is_left_between_the_products_of_a_network_with_gates_and_means(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    float32, flavours = _gates_and_means(), ("x86", "arm")
    made = {f: _int8(float32, f) for f in flavours}
    assert {"HardSigmoid", "ReduceMean"} <= set(kinds(_int8(float32, "tensorrt")))
    want = run(onnx.load_model_from_string(float32), pictures(64, 1))
    for step in ("pool_maps", "add_gates"):
        monkeypatch.setattr(f"edgedistill.deploy.quantize.{step}", lambda model: None)
    for flavour in flavours:
        run_as = kinds(_rewritten(made[flavour], tmp_path / "rewritten.onnx"))
        assert not {"HardSigmoid", "HardSwish", "ReduceMean", "Add", "Mul"} & set(run_as)
        assert run_as["Conv"] == 1, "the normalisation of the pixels alone"
        names = [node.name for node in made[flavour].graph.node if node.op_type == "Add"]
        assert len(names) == len(set(names)) and all(names)
        read = {name for node in made[flavour].graph.node for name in node.input}
        assert {tensor.name for tensor in made[flavour].graph.initializer} <= read
        before = np.abs(run(_int8(float32, flavour), pictures(64, 1), False) - want).mean()
        assert np.abs(run(made[flavour], pictures(64, 1), False) - want).mean() < 1.1 * before


def _int8(float32: bytes, flavour: str) -> onnx.ModelProto:
    return onnx.load_model_from_string(quantize(float32, pictures(16), flavour, "minmax", {}))


def _rewritten(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """What onnxruntime makes of a model before it runs it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path), 3
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return onnx.load(str(path))


class Read(nn.Module):
    """A gate that a convolution with a bias reads beside the product."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        gate = nn.functional.hardsigmoid(0.1 * x - 2)
        out: Tensor = (x * gate + self.second(gate)).mean((2, 3))
        return out


def test_the_bias_of_a_convolution_that_reads_a_gate_has_the_scale_of_its_products(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    float32 = export_float32(Read().eval(), LOOK, "uint8_nhwc", 17, {})
    int8 = _int8(float32, "arm")
    values = {t.name: numpy_helper.to_array(t) for t in int8.graph.initializer}
    makers = {name: node for node in int8.graph.node for name in node.output}
    checked = 0
    for node in int8.graph.node:
        sources = [makers.get(name) for name in node.input]
        if node.op_type == "Conv" and all(s and s.op_type == "DequantizeLinear" for s in sources):
            x, w, b = (values[s.input[1]] for s in sources if s)
            np.testing.assert_allclose(b, x * w, rtol=1e-6)
            checked += 1
    assert checked == 2
    assert kinds(_rewritten(int8, tmp_path / "rewritten.onnx"))["QLinearConv"] == 2
