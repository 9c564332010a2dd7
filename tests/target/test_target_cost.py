"""Costs of tiny graphs against counts by hand, and of real networks against published ones."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from target_parts import make_onnx

from edgedistill.errors import DocumentError
from edgedistill.target.cost import KernelCost, cost_of_graph
from edgedistill.target.students import find_student, load_students


def _tensor(name: str, *shape: int) -> onnx.TensorProto:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def _conv(source: str, weight: str, out: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, weight], [out], **attributes)


def test_a_dense_convolution_with_its_activation_is_one_kernel() -> None:
    nodes = [_conv("x", "w", "c", pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["y"])]
    cost = cost_of_graph(make_onnx(nodes, [_tensor("w", 4, 3, 3, 3)]))
    assert cost.kernels == (
        KernelCost(
            kind="dense",
            macs=4 * 8 * 8 * 3 * 9,
            read=3 * 64,
            written=4 * 64,
            weights=4 * 3 * 9,
            channels_in=3,
            channels_out=4,
            groups=1,
            pixels=64,
            window=3,
            stride=1,
            hard=0,
            smooth=0,
            arithmetic=0,
        ),
    )
    assert (cost.params, cost.peak_act_elements) == (4 * 3 * 9, 3 * 64 + 4 * 64)
    assert cost.operators == {"Conv", "Relu"}
    assert (cost.layers, cost.macs, cost.weight_elements) == (1, 4 * 8 * 8 * 3 * 9, 4 * 3 * 9)
    assert (cost.read_elements, cost.written_elements, cost.act_elements) == (192, 256, 448)


def test_each_kind_of_product_is_counted_under_its_name() -> None:
    nodes = [
        _conv("x", "pw", "a"),
        _conv("a", "dw", "b", group=4, pads=[1, 1, 1, 1]),
        _conv("b", "gr", "c", group=2, pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        _conv("p", "se", "s"),
        helper.make_node("Flatten", ["s"], ["f"]),
        helper.make_node("Gemm", ["f", "fc", "bias"], ["y"], transB=1),
    ]
    stored = [
        *(_tensor("pw", 4, 3, 1, 1), _tensor("dw", 4, 1, 3, 3), _tensor("gr", 4, 2, 3, 3)),
        *(_tensor("se", 6, 4, 1, 1), _tensor("fc", 5, 6), _tensor("bias", 5)),
    ]
    cost = cost_of_graph(make_onnx(nodes, stored))
    assert cost.macs_by_kind == {
        "pointwise": 4 * 64 * 3,
        "depthwise": 4 * 64 * 9,
        "grouped": 4 * 64 * 2 * 9,
        "fully_connected": 6 * 4 + 5 * 6,
    }
    assert cost.layers == 6
    assert cost.params == 12 + 36 + 72 + 24 + 30 + 5


def test_a_residual_addition_joins_its_convolution_and_reads_the_other_side() -> None:
    nodes = [
        _conv("x", "w1", "a"),
        _conv("a", "w2", "b"),
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    cost = cost_of_graph(make_onnx(nodes, [_tensor("w1", 3, 3, 1, 1), _tensor("w2", 3, 3, 1, 1)]))
    assert cost.layers == 2
    # First: reads x, writes a. Second: reads a once, adds it, writes y.
    assert cost.act_elements == 4 * 3 * 64


def test_an_addition_of_tensors_that_others_read_too_is_a_kernel_of_its_own() -> None:
    nodes = [
        _conv("x", "w", "a"),
        _conv("x", "w", "b"),
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Concat", ["a", "b", "s"], ["y"], axis=1),
    ]
    assert cost_of_graph(make_onnx(nodes, [_tensor("w", 3, 3, 1, 1)])).layers == 4


def test_swish_is_fused_and_a_gate_from_another_branch_is_not() -> None:
    nodes = [
        _conv("x", "w", "c"),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("Mul", ["c", "s"], ["h"]),
        helper.make_node("GlobalAveragePool", ["h"], ["p"]),
        _conv("p", "v", "g"),
        helper.make_node("Sigmoid", ["g"], ["gs"]),
        helper.make_node("Mul", ["h", "gs"], ["y"]),
    ]
    cost = cost_of_graph(make_onnx(nodes, [_tensor("w", 4, 3, 1, 1), _tensor("v", 4, 4, 1, 1)]))
    assert cost.layers == 4  # convolution with swish, pooling, gate, multiplication


def test_padding_before_a_convolution_costs_nothing_and_moves_nothing() -> None:
    pads = numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64), "pads")
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        _conv("p", "w", "y", strides=[2, 2]),
    ]
    cost = cost_of_graph(make_onnx(nodes, [pads, _tensor("w", 4, 3, 3, 3)]))
    assert (cost.layers, cost.macs) == (1, 4 * 16 * 27)
    assert cost.act_elements == 3 * 64 + 4 * 16


def test_pads_made_of_constants_are_evaluated() -> None:
    half = numpy_helper.from_array(np.zeros(6, np.int64), "a")
    rest = numpy_helper.from_array(np.ones(2, np.int64), "b")
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["pads"], axis=0),
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        _conv("p", "w", "y"),
    ]
    assert cost_of_graph(make_onnx(nodes, [half, rest, _tensor("w", 1, 3, 1, 1)])).macs == 81 * 3


def test_a_symbolic_batch_counts_as_one_image() -> None:
    nodes, stored = [_conv("x", "w", "y")], [_tensor("w", 4, 3, 1, 1)]
    fixed = cost_of_graph(make_onnx(nodes, stored))
    assert cost_of_graph(make_onnx(nodes, stored, ("N", 3, 8, 8))) == fixed


def test_quantized_weights_behind_a_dequantize_are_weights_and_not_kernels() -> None:
    quantized = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.int8), "q")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "scale"], ["xd"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
        _conv("xd", "w", "y"),
    ]
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "scale")
    cost = cost_of_graph(make_onnx(nodes, [quantized, scale]))
    assert (cost.layers, cost.params, cost.weight_elements) == (1, 12, 12)
    assert cost.macs_by_kind == {"pointwise": 4 * 64 * 3}


def test_a_product_of_two_activations_is_attention() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    cost = cost_of_graph(make_onnx(nodes, [], (1, 2, 4, 8)))
    assert cost.macs_by_kind == {"attention": 2 * 4 * 4 * 8}


def test_the_peak_counts_tensors_that_wait_for_a_later_reader() -> None:
    nodes = [
        _conv("x", "w", "a"),
        helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Resize", ["b", "", "scales"], ["c"]),
        helper.make_node("Concat", ["a", "c"], ["y"], axis=1),
    ]
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    cost = cost_of_graph(make_onnx(nodes, [_tensor("w", 2, 3, 1, 1), scales]))
    a, y = 2 * 64, 4 * 64
    assert cost.peak_act_elements == a + a + y


def test_a_shape_that_cannot_be_derived_is_a_document_error_that_names_the_tensor() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["n"]),
        helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    with pytest.raises(DocumentError, match="cannot be derived"):
        cost_of_graph(make_onnx(nodes, [_tensor("w", 7, 2)]))


def test_a_graph_that_does_not_hold_is_a_document_error() -> None:
    nodes = [helper.make_node("Conv", ["x"], ["y"])]
    with pytest.raises(DocumentError):
        cost_of_graph(make_onnx(nodes, []))


# MACs in millions at 224 px with 1000 classes, as torch's own hooks count the same networks.
PUBLISHED_MMACS = {
    "mobilenetv1_100": 568.7,
    "mobilenetv2_100": 300.8,
    "mobilenetv2_140": 582.2,
    "mobilenetv3_small_100": 56.5,
    "mobilenetv3_large_100": 216.6,
    "mobilenetv4_conv_small": 186.0,
    "tf_efficientnet_lite0": 385.2,
    "lcnet_100": 155.7,
}


@pytest.mark.parametrize(("name", "mmacs"), PUBLISHED_MMACS.items())
def test_the_table_holds_the_published_macs(name: str, mmacs: float) -> None:
    assert find_student(name).cost(224, 1000).macs / 1e6 == pytest.approx(mmacs, rel=2e-3)


@pytest.mark.parametrize(("name", "size"), [("mobilenetv2_050", 96), ("tf_efficientnet_lite0", 64)])
def test_an_exported_student_costs_what_the_table_says(name: str, size: int) -> None:
    timm = pytest.importorskip("timm")
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model(name.removeprefix("tf_"), num_classes=10, exportable=True).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = torch.zeros(1, 3, size, size)
        torch.onnx.export(model, (image,), file, dynamo=False, opset_version=17)
    cost = cost_of_graph(onnx.load_model_from_string(file.getvalue()))
    student = find_student(name)
    expected = student.cost(size, 10)
    assert cost.macs == expected.macs
    assert cost.params == pytest.approx(expected.params, abs=64)  # equal tensors are stored once
    assert cost.weight_elements == expected.weight_elements
    assert (cost.layers, cost.act_elements) == (expected.layers, expected.act_elements)
    assert len(file.getvalue()) == pytest.approx(student.size_bytes("float32", 10), rel=0.01)


def test_macs_by_kind_add_up_for_every_student() -> None:
    for student in load_students():
        for size in (64, 224):
            cost = student.cost(size, 10)
            assert cost.macs == sum(cost.macs_by_kind.values()) > 0, (student.name, size)
            assert cost.macs == student.macs(size, 10), (student.name, size)
            assert min(cost.macs_by_kind.values()) >= 0, (student.name, size)


def _gated(map_side: int) -> list[onnx.NodeProto]:
    return [
        _conv("x", "pw", "a"),
        helper.make_node("GlobalAveragePool", ["a"], ["p"]),
        _conv("p", "down", "d"),
        helper.make_node("Relu", ["d"], ["r"]),
        _conv("r", "up", "u"),
        helper.make_node("HardSigmoid", ["u"], ["g"]),
        helper.make_node("Mul", ["a" if map_side > 1 else "p", "g"], ["y"]),
    ]


def test_products_whose_result_scales_a_map_are_squeeze_and_excitation() -> None:
    stored = [_tensor("pw", 4, 3, 1, 1), _tensor("down", 2, 4, 1, 1), _tensor("up", 4, 2, 1, 1)]
    cost = cost_of_graph(make_onnx(_gated(8), stored))
    assert cost.macs_by_kind == {"pointwise": 4 * 64 * 3, "squeeze_excite": 8 + 8}
    kinds = [kernel.kind for kernel in cost.kernels]
    assert kinds == ["pointwise", "pooling", "squeeze_excite", "squeeze_excite", "elementwise"]
    assert [kernel.hard for kernel in cost.kernels] == [0, 0, 0, 1, 0]
    alone = cost_of_graph(make_onnx(_gated(1), stored))
    assert alone.macs_by_kind == {"pointwise": 4 * 64 * 3, "fully_connected": 8 + 8}


def test_a_shape_that_is_computed_in_the_graph_is_found() -> None:
    halves = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "one"], ["c"], axis=0),
        helper.make_node("Sub", ["c", "one_"], ["n"]),
        helper.make_node("Slice", ["x", "zero", "n", "one"], ["h"]),
        _conv("h", "w", "y"),
    ]
    ints = [("one", [1]), ("one_", [1]), ("zero", [0])]
    stored = [numpy_helper.from_array(np.array(v, np.int64), n) for n, v in ints]
    cost = cost_of_graph(make_onnx(halves, [*stored, _tensor("w", 4, 2, 1, 1)]))
    assert cost.macs == 4 * 64 * 2
    assert [kernel.kind for kernel in cost.kernels] == ["movement", "pointwise"]
