"""A file from a stranger: any graph ends in a cost or in one error of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from target_parts import make_onnx

from edgedistill.errors import DocumentError, EdgedistillError
from edgedistill.target.attribute import timed_kernels
from edgedistill.target.cost import cost_of_file, cost_of_graph
from edgedistill.target.measured import Place, recall

OPERATORS = (
    *("Conv", "Gemm", "MatMul", "Relu", "Mul", "Add", "Reshape", "Transpose", "Concat", "Slice"),
    *("GlobalAveragePool", "HardSwish", "Shape", "Gather", "Pad", "Resize", "Split", "Softmax"),
    *("Identity", "Cast", "QuantizeLinear", "DequantizeLinear", "Constant", "Flatten", "NoSuchOp"),
)
_NAMES = st.sampled_from(["x", "a", "b", "c", "w", "v", "y", "", "zz"])
_NODE = st.tuples(
    st.sampled_from(OPERATORS),
    st.lists(_NAMES, max_size=4),
    st.lists(_NAMES, min_size=0, max_size=2),
    st.dictionaries(
        st.sampled_from(["group", "strides", "axis", "perm", "transA", "pads", "to"]),
        st.integers(-3, 70) | st.lists(st.integers(-3, 70), max_size=4),
        max_size=2,
    ),
)
_SHAPE = st.lists(st.integers(0, 9) | st.just("N"), max_size=5)


def _graph(nodes: list[Any], image: list[Any], stored: list[list[int]]) -> onnx.ModelProto:
    made = []
    for op, inputs, outputs, attributes in nodes:
        node = helper.make_node(op, inputs, outputs)
        for name, value in attributes.items():
            if isinstance(value, int) or value:
                node.attribute.append(helper.make_attribute(name, value))
        made.append(node)
    tensors = [
        numpy_helper.from_array(np.zeros(shape, np.float32), name)
        for name, shape in zip("wv", stored, strict=False)
    ]
    return make_onnx(made, tensors, image)


def _in_order(nodes: list[Any]) -> list[Any]:
    """The same nodes, each reading what was made before it and writing tensors of its own."""
    known, ordered = ["x", "w", "v"], []
    for number, (op, inputs, outputs, attributes) in enumerate(nodes):
        reads = [known[sum(name.encode()) % len(known)] if name else "" for name in inputs]
        writes = [f"t{number}{letter}" for letter in "ab"[: len(outputs)]]
        ordered.append((op, reads, writes, attributes))
        known = [*writes, *known]
    return [*ordered, ("Identity", [known[0]], ["y"], {})]


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(
    nodes=st.lists(_NODE, max_size=6) | st.lists(_NODE, max_size=6).map(_in_order),
    image=_SHAPE,
    stored=st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=2, max_size=2),
)
def test_any_graph_has_a_cost_or_one_paragraph(
    nodes: list[Any], image: list[Any], stored: list[list[int]]
) -> None:
    model = _graph(nodes, image, stored)
    try:
        cost = cost_of_graph(model)
        timed_kernels(model, [{"name": "a", "operator": "Conv", "seconds": 1.0}])
    except DocumentError as error:
        assert "\n" not in str(error)
    else:
        assert cost.macs >= 0 and cost.peak_act_elements >= 0


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([("Identity", "a", "b"), ("Identity", "b", "a"), ("Relu", "a", "y")], "nothing before it"),
        ([("Relu", "x", "x")], "twice"),
        ([("Relu", "x", "y"), ("Relu", "x", "y")], "twice"),
    ],
)
def test_a_graph_that_goes_in_circles_is_refused(
    nodes: list[tuple[str, str, str]], words: str
) -> None:
    made = [helper.make_node(op, [source], [target]) for op, source, target in nodes]
    with pytest.raises(DocumentError, match=words):
        cost_of_graph(make_onnx(made, []))


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_bytes_are_a_cost_or_one_paragraph(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = _graph([("Relu", ["x"], ["y"], {})], [1, 3, 8, 8], []).SerializeToString()
    at = data.draw(st.integers(0, len(whole)))
    put = data.draw(st.binary(max_size=12))
    path = tmp_path_factory.getbasetemp() / "hostile.onnx"
    path.write_bytes(whole[:at] + put + whole[at + data.draw(st.integers(0, 12)) :])
    try:
        cost_of_file(path)
    except EdgedistillError as error:
        assert "\n" not in str(error)


def test_a_file_that_is_not_there_or_is_a_folder_is_one_paragraph(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.onnx"):
        with pytest.raises(DocumentError, match="cannot be read"):
            cost_of_file(path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["schema", "device", "models", "float32", "seconds", "band", "n"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=100)
@given(tree=_JSON)
def test_no_kept_measurement_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, tree: object
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "host.json").write_text(json.dumps(tree))
    with pytest.raises(DocumentError):
        recall("host", Place(folder))
