"""What an ONNX file holds: bytes by layer, operators, external data; and damage is never a smaller model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from check_parts import classifier, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgedistill.deploy.graphs import external_files, graph_facts
from edgedistill.errors import DocumentError

WIDTHS = (8, 16)
PARAMS = 8 * 3 * 9 + 16 * 8 * 9 + 16 * 3


def test_every_weight_belongs_to_the_layer_that_computes_with_it(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", classifier(WIDTHS))
    facts = graph_facts(path)
    assert facts.size_bytes == path.stat().st_size
    assert (facts.opset, facts.params) == (17, PARAMS)
    assert facts.operators == {
        "Conv": 2, "Flatten": 1, "GlobalAveragePool": 1, "MatMul": 1, "Relu": 2
    }  # fmt: skip
    assert [(layer.operator, layer.size_bytes, layer.params) for layer in facts.layers] == [
        ("Conv", 4 * 1152, 1152), ("Conv", 4 * 216, 216), ("MatMul", 4 * 48, 48)
    ]  # fmt: skip
    assert facts.layers[0].name == "/model/blocks/blocks.1/conv/Conv"


def test_a_quantized_kernel_has_its_scales_with_it_and_they_are_no_parameters(
    tmp_path: Path,
) -> None:
    model = classifier((8,))
    scale = np.ones(8, np.float32)
    kernel = np.zeros((8, 3, 3, 3), np.int8)
    del model.graph.initializer[0]
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(kernel, "q"), numpy_helper.from_array(scale, "s"),
            numpy_helper.from_array(np.zeros(8, np.int8), "z"),
        ]
    )  # fmt: skip
    model.graph.node.insert(
        0, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w0"], axis=0)
    )
    facts = graph_facts(write(tmp_path / "m.onnx", model))
    conv = next(layer for layer in facts.layers if layer.operator == "Conv")
    assert (conv.size_bytes, conv.params) == (216 + 32 + 8, 216)


def test_weights_beside_the_file_count_and_the_layers_are_the_same(tmp_path: Path) -> None:
    alone = graph_facts(write(tmp_path / "a.onnx"))
    path = write(tmp_path / "b.onnx", beside=True)
    facts = graph_facts(path)
    data = tmp_path / "b.onnx.data"
    assert facts.size_bytes == path.stat().st_size + data.stat().st_size
    assert data.stat().st_size >= 4 * PARAMS > path.stat().st_size
    assert (facts.layers, facts.params) == (alone.layers, alone.params)
    assert external_files(path, onnx.load(str(path), load_external_data=False)) == [data]


def test_what_stands_in_branches_and_functions_counts(tmp_path: Path) -> None:
    def branch(name: str, value: float) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        weight = numpy_helper.from_array(np.full((3, 3), value, np.float32), f"{name}_w")
        node = helper.make_node("MatMul", ["logits", f"{name}_w"], [name], f"{name}_product")
        return helper.make_graph([node], name, [], [out], [weight])

    model = classifier((8,))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(
        helper.make_node("If", ["yes"], ["o"], "choose", then_branch=branch("t", 1), else_branch=branch("e", 2))
    )  # fmt: skip
    domain = helper.make_opsetid("own", 1)
    inner = [helper.make_node("Erf", ["x"], ["y"])]
    model.functions.append(
        helper.make_function("own", "gelu", ["x"], ["y"], inner, [helper.make_opsetid("", 17)])
    )
    model.opset_import.append(domain)
    model.graph.node.append(helper.make_node("gelu", ["o"], ["p"], domain="own"))
    facts = graph_facts(write(tmp_path / "m.onnx", model))
    assert facts.operators["MatMul"] == 3 and facts.operators["Erf"] == 1
    assert facts.operators["own.gelu"] == 1 and "gelu" not in facts.operators
    assert {layer.name: layer.size_bytes for layer in facts.layers}["t_product"] == 36


@pytest.mark.parametrize("place", ["../w.data", "/etc/hostname", "gone.data", "a\0b", "x" * 5000])
def test_data_that_is_not_beside_the_file_is_refused(place: str, tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "m.onnx", beside=True)
    (tmp_path / "w.data").write_bytes(bytes(100_000))
    model = onnx.load(str(path), load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = place
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DocumentError, match="is not beside it"):
        graph_facts(path)


@pytest.mark.parametrize("left", [0, 1, 4 * PARAMS - 1])
def test_a_data_file_that_is_cut_off_is_no_smaller_model(left: int, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", beside=True)
    data = tmp_path / "m.onnx.data"
    data.write_bytes(data.read_bytes()[:left])
    with pytest.raises(DocumentError, match="cut off or damaged"):
        graph_facts(path)


@pytest.mark.parametrize(
    ("dims", "words"),
    [([-8, 3, 3, 3], "size of -8"), ([8, 3, 3, 4], "are there"), ([1 << 40, 1 << 40], "are there")],
)
def test_a_shape_that_lies_is_told(dims: list[int], words: str, tmp_path: Path) -> None:
    model = classifier()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DocumentError, match=words):
        graph_facts(path)


def test_an_unknown_type_or_a_missing_opset_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = classifier()
    model.graph.initializer[0].data_type = 77
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DocumentError, match="77"):
        graph_facts(path)
    model = classifier()
    del model.opset_import[:]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DocumentError, match="no opset"):
        graph_facts(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid x\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(40), "zip archive"),
        (b"{}", "no ONNX model"),
    ],
)
def test_what_is_no_onnx_file_is_named(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(DocumentError, match=words):
        graph_facts(path)
    with pytest.raises(DocumentError, match="does not exist"):
        graph_facts(tmp_path / "none.onnx")


WHOLE = classifier().SerializeToString(deterministic=True)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, len(WHOLE) - 1))
def test_a_file_that_is_cut_off_anywhere_is_an_error(length: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(WHOLE[:length])
    with pytest.raises(DocumentError):
        graph_facts(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255), more=st.binary(max_size=8))
def test_a_file_with_a_wrong_byte_is_an_error_or_has_its_true_size(
    at: int, value: int, more: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    data = WHOLE[:at] + bytes([value]) + WHOLE[at + 1 :] + more
    path.write_bytes(data)
    try:
        facts = graph_facts(path)
    except DocumentError as error:
        assert str(path) in str(error)
    else:
        assert facts.size_bytes == len(data)
