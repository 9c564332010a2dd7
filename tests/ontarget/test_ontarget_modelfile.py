"""What is wrong with a model file is found in its bytes, as the onnx package finds it, before a runtime opens it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from ontarget import modelfile
from ontarget.modelfile import fault_of, lacking, said

from tests.ontarget.conftest import _graph

WHOLE = _graph("uint8_nhwc").SerializeToString()
FLOAT = TensorProto.FLOAT


def fault(path: Path, data: bytes) -> str | None:
    path.write_bytes(data)
    return fault_of(path)


def outside(name: str = "outside", location: str = "../../etc/passwd") -> TensorProto:
    """A tensor whose numbers lie in another file."""
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def tensors(message: Any) -> Iterator[TensorProto]:
    """Every tensor in a message, at any depth, by the onnx package's own description."""
    if isinstance(message, TensorProto):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                yield from tensors(inner)


def test_every_field_of_onnx_that_leads_to_a_tensor_is_followed() -> None:
    leads: dict[str, dict[int, str]] = {}

    def visit(kind: Any) -> str:
        name = str(kind.full_name.removeprefix("onnx.").replace("Proto", ""))
        if name not in leads:
            leads[name] = {}
            for field in kind.fields:
                if field.message_type is not None:
                    leads[name][field.number] = visit(field.message_type)
        return name

    visit(onnx.ModelProto.DESCRIPTOR)
    reach = {"Tensor"}
    while True:
        more = {name for name, fields in leads.items() if reach & set(fields.values())} | reach
        if more == reach:
            break
        reach = more
    wanted = {
        name: {number: to for number, to in leads[name].items() if to in reach} for name in reach
    }
    assert wanted == modelfile._INSIDE
    by_name = TensorProto.DESCRIPTOR.fields_by_name
    assert by_name["external_data"].number == modelfile._EXTERNAL_DATA
    assert by_name["data_location"].number == modelfile._DATA_LOCATION


def _initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(outside())


def _absolute(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(outside(location="/etc/passwd"))


def _beside(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(outside(location="model.onnx.data"))


def _only_marked(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def _only_named(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].external_data.add().key = "location"


def _constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=outside()))


def _constants(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Any", [], ["c"], values=[outside()]))


def _sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().indices.CopyFrom(outside())


def _sparse_constant(model: onnx.ModelProto) -> None:
    attribute = onnx.AttributeProto(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.values.CopyFrom(outside())
    model.graph.node.add(op_type="Constant", attribute=[attribute])


def _branch(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [outside()])
    for _ in range(5):
        inner = helper.make_graph([helper.make_node("If", ["t"], ["y"], then_branch=inner)], "g", [], [])  # fmt: skip
    model.graph.node.append(helper.make_node("If", ["t"], ["y"], else_branch=inner))


def _function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["y"], value=outside())
    model.functions.append(helper.make_function("d", "F", [], ["y"], [node], []))


def _default(model: onnx.ModelProto) -> None:
    attribute = helper.make_attribute("a", outside())
    model.functions.add(name="F").attribute_proto.append(attribute)


def _training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.initializer.append(outside())


@pytest.mark.parametrize(
    "put",
    [_initializer, _absolute, _beside, _only_marked, _only_named, _constant, _constants, _sparse, _sparse_constant,
     _branch, _function, _default, _training],
    ids=lambda put: put.__name__.strip("_"),
)  # fmt: skip
def test_a_tensor_in_another_file_is_found_wherever_it_stands(
    put: Callable[[onnx.ModelProto], None], tmp_path: Path
) -> None:
    model = _graph("uint8_nhwc")
    put(model)
    assert "keeps weights in another file" in str(
        fault(tmp_path / "m.onnx", model.SerializeToString())
    )


def test_a_number_that_is_drawn_out_or_too_wide_hides_nothing(tmp_path: Path) -> None:
    for location in (b"\x01", b"\x81\x00", b"\x81\x80\x80\x80\x10", b"\x81\x80\x80\x80\x80\x01"):
        tensor = b"\x70" + location
        graph = b"\x2a" + bytes([len(tensor)]) + tensor
        data = WHOLE + b"\x3a" + bytes([len(graph)]) + graph
        (found,) = [
            t for t in onnx.load_model_from_string(data).graph.initializer if t.HasField("data_location")
        ]  # fmt: skip
        assert found.data_location == TensorProto.EXTERNAL
        assert "another file" in str(fault(tmp_path / "m.onnx", data))


def test_whole_files_have_no_fault(tmp_path: Path) -> None:
    for layout, dtype in (("uint8_nhwc", "float32"), ("float_nchw", "float16")):
        model = _graph(layout, dtype)
        assert fault(tmp_path / "m.onnx", model.SerializeToString()) is None
    model.graph.doc_string = "external_data location" * 10_000
    assert fault(tmp_path / "m.onnx", model.SerializeToString()) is None


def test_a_file_that_is_something_else_is_told_by_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    assert fault(path, b"") == "it is empty"
    assert fault(path, b"\x08\x08") == "it holds no graph"
    assert fault(path, b"PK\x03\x04" + WHOLE) == "it is a zip archive, as PyTorch saves"
    assert fault(path, b"\x80\x02\x8a\nl\xfc\x9c") == "it is a pickle, as PyTorch saves"
    assert fault(path, b"\x1c\0\0\0TFL3" + WHOLE) == "it is a TensorFlow Lite model"
    assert "onnxruntime's own format" in str(fault(path, b"\x20\0\0\0ORTM" + WHOLE))
    assert "no ONNX model at all (byte 0)" in str(fault(path, b"<html>"))
    assert "cannot be read" in str(fault_of(tmp_path))
    assert "cannot be read" in str(fault_of(tmp_path / "none"))


def test_size_depth_and_number_of_fields_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 41)  # a hole: it takes no room on the disk
    assert "an ONNX file at most" in str(fault_of(path))
    deep = b""
    for number in (*(6, 5, 1) * 40, 7):  # a graph in an attribute of a node of a graph
        size, length = len(deep), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        deep = bytes([number << 3 | 2]) + length + bytes([size]) + deep
    with pytest.raises(Exception, match="pars"):
        onnx.load_model_from_string(deep)
    assert "damaged" in str(fault(path, deep))
    monkeypatch.setattr(modelfile, "MOST_FIELDS", 20)
    assert "over 20 fields" in str(fault(path, WHOLE))


def test_weights_are_stepped_over_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _graph("uint8_nhwc")
    model.graph.initializer.add(name="big", data_type=FLOAT, raw_data=bytes(1 << 24))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    read: list[int] = []
    plain = modelfile._Bytes.byte

    def counted(self: Any, at: int) -> int:
        value = plain(self, at)
        read.append(len(self._block))
        return value

    monkeypatch.setattr(modelfile._Bytes, "byte", counted)
    assert fault_of(path) is None
    assert 0 < max(read) <= modelfile._BLOCK
    assert len(read) < 5000


@settings(max_examples=150)
@given(data=st.data())
def test_a_mutated_file_is_judged_as_the_onnx_package_judges_it(shared: Any, data: Any) -> None:
    model = _graph("uint8_nhwc")
    for put in data.draw(st.lists(st.sampled_from([_initializer, _branch, _sparse]), max_size=1)):
        put(model)
    raw = bytearray(model.SerializeToString())
    places = st.integers(0, len(raw) - 1)
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=3)):
        raw[at] = value
    raw = raw[: data.draw(st.just(len(raw)) | places)]
    found = fault(shared.folder.parent / f"mutated{os.getpid()}.onnx", bytes(raw))
    try:
        parsed = onnx.load_model_from_string(bytes(raw))
    except Exception:
        return
    if any(t.external_data or t.data_location == TensorProto.EXTERNAL for t in tensors(parsed)):
        assert found is not None
    elif found is not None:
        groups = "damaged" in found and any(byte & 7 in (3, 4) for byte in raw)
        assert groups or found in ("it is empty", "it holds no graph")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Fatal error: com.acme:Foo(-1) is not a registered function/op", "the operator Foo of the domain com.acme"),
        ("Error No Op registered for Gelu with domain_version of 17", "the operator Gelu of opset 17"),
        ("Could not find an implementation for the node a:Sin(7)", "the operator Sin of opset 7 for these types"),
        ("Protobuf parsing failed.", None),
    ],
)  # fmt: skip
def test_what_a_runtime_lacks_is_read_from_its_words(said: str, words: str | None) -> None:
    assert lacking(said) == words


def test_the_words_of_a_runtime_are_shown_without_its_marks_and_paths() -> None:
    signature = (
        "/onnxruntime_src/core/model.cc:340 onnxruntime::Model::Model(onnx::ModelProto&&, int)"
    )
    mark = "[ONNXRuntimeError] : 1 : FAIL : "
    text = f"{mark}Load model from /a b/m.onnx failed:{signature} {mark}"
    assert said(text + "Not (a) graph.\n") == "'Not (a) graph'"
    assert said("a\x1b[2Jb" + "c" * 1000).startswith(r"'a\x1b[2Jbccc")
