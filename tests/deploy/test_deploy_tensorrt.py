"""Whether NVIDIA's parser and builder take a file: asked of the real TensorRT-RTX, which needs no GPU."""

from __future__ import annotations

import subprocess
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper

from edgedistill.deploy import tensorrt
from edgedistill.deploy.onnx import export_float32, to_float16
from edgedistill.deploy.quantize import quantize
from edgedistill.deploy.tensorrt import KNOWN, Answer, ask_builder, installed, nearest_sm
from edgedistill.evidence.view.figures import builder_words
from edgedistill.nets import Look
from edgedistill.result import BuilderAnswer

SIZE = 32
there = pytest.mark.skipif(installed() is None, reason="TensorRT-RTX is for Linux on x86-64")


@cache
def files() -> dict[str, bytes]:
    torch.manual_seed(0)
    net = timm.create_model("mobilenetv3_small_050", num_classes=3).eval()
    data = export_float32(net, Look(SIZE, (0.5,) * 3, (0.5,) * 3), "uint8_nhwc", 17, {})
    pixels = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), dtype=np.uint8)
    return {
        "float16": to_float16(data, {}),
        "int8": quantize(data, pixels, "tensorrt", "minmax", {}),
        "x86": quantize(data, pixels, "x86", "minmax", {}),
    }


def transposed_bytes() -> bytes:
    """A graph that turns uint8 pixels before it casts them, which TensorRT does not take."""
    source = helper.make_tensor_value_info("images", TensorProto.UINT8, [1, 4, 4, 3])
    sink = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, 4, 4])
    nodes = [
        helper.make_node("Transpose", ["images"], ["turned"], name="turn", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["turned"], ["logits"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(nodes, "g", [source], [sink])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


@there
def test_what_ships_for_tensorrt_is_taken_and_the_rest_is_refused_with_the_node() -> None:
    asked = {**files(), "turned": transposed_bytes(), "broken": files()["float16"][:900]}
    found = ask_builder(asked, "8.7")
    assert list(found) == list(asked)
    assert {name for name, answer in found.items() if answer.accepted} == {"float16", "int8"}
    for name in ("float16", "int8"):
        assert found[name].engine_bytes and found[name].seconds
        assert found[name].builder.startswith("TensorRT-RTX 1") and found[name].sm == "8.6"
    assert "turn" in found["turned"].reasons[0]
    assert found["broken"].reasons and found["x86"].reasons


@there
def test_a_file_of_one_batch_is_built_for_that_batch() -> None:
    model = onnx.load_model_from_string(files()["float16"])
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    del model.graph.value_info[:]
    assert ask_builder({"fixed": model.SerializeToString()}, "7.5")["fixed"].accepted


@pytest.mark.parametrize(
    ("sm", "near"),
    [("8.7", "8.6"), ("7.2", "7.5"), ("5.3", "7.5"), ("9.0", "8.9"), ("11.0", "8.9"),
     ("8.9", "8.9"), ("12.0", "12.0"), ("13.0", "12.1"), (None, "8.6")],
)  # fmt: skip
def test_the_nearest_sm_is_the_largest_that_is_not_newer(sm: str | None, near: str) -> None:
    assert nearest_sm(sm) == near and near in KNOWN


LINE = '{"builder": "B 1", "sm": "8.6", "reasons": [], "engine_bytes": 9, "seconds": 1.5}\n'


def test_a_file_at_which_the_builder_dies_is_refused_and_the_others_are_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = [(LINE, "gone\n", -11), (LINE, "", 0)]
    seen: list[int] = []

    def run(command: list[str], **_: Any) -> Any:
        seen.append(len(command) - 5)
        out, err, code = ends.pop(0)
        return subprocess.CompletedProcess(command, code, out, err)

    monkeypatch.setattr(tensorrt.subprocess, "run", run)
    found = ask_builder({"a": b"", "b": b"", "c": b""}, "8.6")
    assert seen == [3, 1] and found["a"] == found["c"] == Answer("B 1", "8.6", (), 9, 1.5)
    assert found["b"].refused and found["b"].reasons == ("its process ended with -11: gone",)


def test_a_builder_that_cannot_be_asked_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(command: list[str], **given: Any) -> Any:
        raise subprocess.TimeoutExpired(command, given["timeout"], output=LINE.encode())

    def broken(command: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(command, 1, "", "ImportError: libnvinfer\n")

    def silent(command: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(tensorrt.subprocess, "run", slow)
    found = ask_builder({"a": b"", "b": b"", "c": b""}, "8.6")
    assert found["a"].accepted and found["b"].reasons == ("no answer in 900 s",)
    every = [found["b"], found["c"]]
    for run, words in ((broken, "ended with 1: ImportError: libnvinfer"), (silent, "said nothing")):
        monkeypatch.setattr(tensorrt.subprocess, "run", run)
        answers = ask_builder({"a": b"", "b": b""}, None)
        assert all(words in answer.reasons[0] for answer in answers.values())
        every += answers.values()
    assert not any(answer.accepted or answer.refused or answer.answered for answer in every)


def test_the_words_say_who_took_it_and_that_nothing_ran() -> None:
    taken = BuilderAnswer.model_validate(Answer("TensorRT-RTX 1.7", "8.6", (), 9, 1.5).document())
    words = "accepted by TensorRT-RTX 1.7 for SM 8.6 (parsed and built, not run)"
    assert builder_words(taken) == words
    refused = BuilderAnswer(builder="B", sm="8.6", reasons=["Pad p: no", "x"])
    assert builder_words(refused) == "refused by B for SM 8.6: Pad p: no; x"
