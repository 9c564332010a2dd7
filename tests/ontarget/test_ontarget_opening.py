"""Which session opens: exact arithmetic where outputs count and an INT8 file is for another kind of processor."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from ontarget import opening
from ontarget.contract import ContractError, load_bundle
from ontarget.facts import Model, TensorSpec
from ontarget.opening import open_session
from ontarget.session import OrtSession

SIDE = 8


def saturating(path: Path) -> Model:
    """One quantized convolution whose sums of two products pass 16 bits: 255 * 127 * 2."""
    source = helper.make_tensor_value_info("images", TensorProto.UINT8, [None, 64, 1, 1])
    sink = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, SIDE])
    weight = np.full((SIDE, 64, 1, 1), 127, np.int8)
    one, zero = np.float32(1), np.uint8(0)
    stored = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.array(one), "one"),
        numpy_helper.from_array(np.array(zero), "zero"),
        numpy_helper.from_array(np.zeros((), np.int8), "zero8"),
        numpy_helper.from_array(np.array(np.float32(1e5)), "wide"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["images", "one", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weight", "one", "zero8"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "wide", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "wide", "zero"], ["d"]),
        helper.make_node("Flatten", ["d"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "g", [source], [sink], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return Model(
        "int8", path.name, path, hashlib.sha256(path.read_bytes()).hexdigest(), 1, "int8",
        "onnxruntime", 17, TensorSpec("images", "uint8", (None, 64, 1, 1), "uint8_nhwc"),
        TensorSpec("logits", "float32", (None, SIDE)), "arm",
    )  # fmt: skip


def test_a_file_for_another_processor_is_computed_exactly_unless_it_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saturating(tmp_path / "m.onnx")
    with open_session(model) as session:
        got = session.run(np.full((1, 64, 1, 1), 255, np.uint8))
    assert (got == 21e5).all(), "64 * 255 * 127 = 20.7e5, in steps of 1e5"
    asked: list[bool] = []

    class Asked(OrtSession):
        def __init__(self, *given: Any, exact: bool = False) -> None:
            asked.append(exact)

    monkeypatch.setattr(opening, "OrtSession", Asked)
    monkeypatch.setattr(opening.platform, "machine", lambda: "x86_64")
    for flavour in ("arm", "tensorrt", "x86", None):
        open_session(replace(model, flavour=flavour))
    open_session(model, timed=True)
    open_session(model, "cuda")
    monkeypatch.setattr(opening.platform, "machine", lambda: "aarch64")
    open_session(model)
    assert asked == [True, True, False, False, False, False, False]


def test_the_manifest_says_what_an_int8_file_is_for(made: Any) -> None:
    assert load_bundle(made.folder).model("float16").flavour is None
    made.rewrite(lambda d: d["models"][0].update(flavour="tensorrt"))
    assert load_bundle(made.folder).models[0].flavour == "tensorrt"
    made.rewrite(lambda d: d["models"][0].update(flavour="z80"))
    with pytest.raises(ContractError, match="flavour"):
        load_bundle(made.folder)
