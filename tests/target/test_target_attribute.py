"""Operator times of a runtime's trace find the kernel that they belong to."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from target_parts import make_onnx

from edgedistill.target.attribute import timed_kernels


def _model() -> onnx.ModelProto:
    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.ones(shape, np.float32), name)

    nodes = [
        helper.make_node("Cast", ["x"], ["f"], name="/Cast", to=TensorProto.FLOAT),
        helper.make_node("Conv", ["f", "n"], ["p"], name="/Normalise", group=3),
        helper.make_node("Conv", ["p", "w"], ["c"], name="/stem/Conv"),
        helper.make_node("Relu", ["c"], ["r"], name="/stem/Relu"),
        helper.make_node("Conv", ["r", "v"], ["y"], name="/block/Conv"),
    ]
    stored = [weight("n", 3, 1, 1, 1), weight("w", 8, 3, 1, 1), weight("v", 4, 8, 1, 1)]
    return make_onnx(nodes, stored, kind=TensorProto.UINT8)


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("/stem/Conv", 0),
        ("r_nchwc", 0),
        ("/stem/Conv_token_12", 0),
        ("r_QuantizeLinear", 0),
        ("/stem/Relu", 0),
        ("/block/Conv", 1),
        ("y_nchwc", 1),
        ("/block/Conv_quantized_3", 1),
    ],
)
def test_a_name_with_the_runtimes_suffixes_is_traced_back(name: str, kernel: int) -> None:
    found = timed_kernels(_model(), [_operator(name, 2e-3)])
    assert found.seconds.tolist() == [2e-3 if place == kernel else 0 for place in range(2)]
    assert found.operators.sum() == 1 and found.total_s == 2e-3


def _operator(name: str, seconds: float, operator: str = "Conv") -> dict[str, Any]:
    return {"name": name, "operator": operator, "seconds": seconds}


@pytest.mark.parametrize(
    ("operator", "kind"),
    [("QuickGelu", "smooth"), ("HardSigmoid", "hard"), ("ReorderOutput", "other")],
)
def test_what_no_kernel_made_is_kept_by_what_it_does(operator: str, kind: str) -> None:
    found = timed_kernels(_model(), [_operator("Inserted_token_5", 1e-3, operator)])
    assert found.seconds.sum() == 0 and found.inserted_operators == 1
    assert {k: v for k, v in found.inserted.items() if v} == {kind: 1e-3}


def test_the_normalisation_of_the_pixels_is_input_and_no_kernel_of_the_network() -> None:
    found = timed_kernels(_model(), [_operator("/Normalise", 1e-3)])
    assert len(found.table) == 2 and found.seconds.sum() == 0 and found.input_s == 1e-3
