"""Teachers that are ONNX files: what they say is what onnxruntime says, and hostile ones are one paragraph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from teacher_parts import CPU, Tuner, arrays, done_of, taught

from edgedistill.deploy.onnx import export_float32
from edgedistill.errors import TeacherError
from edgedistill.folding import quick
from edgedistill.metrics import top1
from edgedistill.nets import Look, forward, outputs
from edgedistill.recipe import TeacherSection
from edgedistill.teacher.hub import load_pretrained
from edgedistill.teacher.onnxfile import SMALLEST
from edgedistill.teacher.shape import shape_of
from edgedistill.teacher.stage import look_of, restore

LOOK = Look(40, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
ABOUT = {
    "edgedistill.classes": json.dumps(["blue", "red", "green"]),
    "edgedistill.preprocess": json.dumps(
        {"crop": 40, "resize": 40, "mean": LOOK.mean, "std": LOOK.std}
    ),
    "edgedistill.licences": json.dumps({"teacher": "mit", "student": "apache-2.0", "data": None}),
}


def shipped(path: Path, layout: str = "uint8_nhwc") -> str:
    """A file as edgedistill exports it."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3).eval()
    path.write_bytes(export_float32(model, LOOK, layout, 17, ABOUT))
    return f"onnx:{path}"


def colours(
    path: Path, dims: list[Any], dtype: int = TensorProto.FLOAT, last: str = "", outputs: int = 2
) -> str:
    """A graph that gives the mean of the first colours, behind an operator `last`."""
    axes = [1, 2] if dims[-1] == 3 else [2, 3]
    weight = np.eye(3, outputs, dtype=np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["m"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["z" if last else "y"]),
    ]
    if last:
        nodes.append(helper.make_node(last, ["z"], ["y"], axis=-1))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", dtype, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, outputs])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return f"onnx:{path}"


def refused(name: str) -> str:
    with pytest.raises(TeacherError) as caught:
        load_pretrained(TeacherSection(model=name))
    text = str(caught.value)
    assert "\n" not in text and len(text) < 900 and "onnx:" in text
    return text


@pytest.mark.parametrize("layout", ["uint8_nhwc", "float_nchw"])
def test_a_file_that_we_shipped_says_itself_what_it_takes(layout: str, tmp_path: Path) -> None:
    name = shipped(tmp_path / "m.onnx", layout)
    found = load_pretrained(TeacherSection(model=name))
    assert (found.kind, found.classes, found.features) == ("onnx", 3, 3)
    assert found.labels == ("blue", "red", "green") and found.note == ""
    assert found.origin.licence == "apache-2.0"
    assert shape_of(TeacherSection(model=name)) == (40, True)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), dtype=np.uint8)
    look = Look(found.size, found.mean, found.std)
    features, logits = outputs(found.model, pixels, look, CPU, batch=2)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    fed = pixels if layout == "uint8_nhwc" else LOOK.tensor(pixels, CPU).numpy()
    want = session.run(None, {session.get_inputs()[0].name: fed})[0]
    np.testing.assert_allclose(logits, want, atol=1e-5)
    assert (features == logits).all()
    torch.manual_seed(0)
    own = timm.create_model("test_resnet", num_classes=3).eval()
    np.testing.assert_allclose(logits, outputs(own, pixels, LOOK, CPU)[1], atol=1e-4)


def test_a_file_of_the_datas_classes_teaches_as_it_is_in_their_order(tmp_path: Path) -> None:
    name = shipped(tmp_path / "m.onnx")
    facts, work = taught(tmp_path, TeacherSection(model=name, adapt="none"), Tuner())
    assert facts["adaptation"] == "none" and facts["flops"] is None
    (tmp_path / "m.onnx").unlink()
    model, data = restore(done_of(work, json.loads(json.dumps(facts)))), arrays(tmp_path)
    logits = outputs(model, data.teacher_val, look_of(facts), CPU)[1]
    torch.manual_seed(0)
    own = timm.create_model("test_resnet", num_classes=3).eval()
    want = outputs(own, data.teacher_val, LOOK, CPU)[1]
    np.testing.assert_allclose(logits, want[:, [1, 2, 0]], atol=1e-4)
    assert facts["val_top1"] == top1(logits, data.val_labels)


@pytest.mark.parametrize("adapt_as", ["auto", "finetune"])
def test_a_file_is_probed_on_its_outputs_and_never_fine_tuned(
    adapt_as: Any, tmp_path: Path
) -> None:
    name, tuner = colours(tmp_path / "m.onnx", ["N", 3, "S", "S"], outputs=3), Tuner(2.0)
    facts, work = taught(tmp_path, TeacherSection(model=name, adapt=adapt_as, epochs=3), tuner)
    assert tuner.calls == 0 and facts["adaptation"] == "linear probe"
    assert "outputs only" in facts["reason"] and "ImageNet's mean and std" in facts["reason"]
    assert facts["val_top1"] == pytest.approx(11 / 12)
    data, model = arrays(tmp_path), restore(done_of(work, facts))
    logits = outputs(model, data.teacher_val, look_of(facts), CPU)[1]
    assert top1(logits, data.val_labels) == facts["val_top1"]


def test_layouts_types_and_batches_are_found_in_the_graph(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    for dims, dtype in (
        (["N", 3, 32, 32], TensorProto.FLOAT), ([1, 32, 32, 3], TensorProto.FLOAT),
        (["N", 32, 32, 3], TensorProto.UINT8), ([2, 3, 32, 32], TensorProto.FLOAT16),
    ):  # fmt: skip
        name = colours(tmp_path / "m.onnx", dims, dtype)
        found = load_pretrained(TeacherSection(model=name))
        assert (found.size, found.fixed_size, found.classes) == (32, True, 2)
        look = Look(32, found.mean, found.std)
        x = look.tensor(pixels, CPU)
        with torch.inference_mode():
            features, logits = forward(found.model, x)
            assert torch.equal(quick(found.model, 32)(x), logits)
        np.testing.assert_allclose(features, x.mean((2, 3))[:, :2], atol=2e-3)
        assert logits.shape == (5, 2)
    free = load_pretrained(TeacherSection(model=colours(tmp_path / "f.onnx", ["N", 3, "H", "W"])))
    assert (free.size, free.fixed_size) == (224, False)


def test_probabilities_become_logits_by_their_logarithm(tmp_path: Path) -> None:
    name = colours(tmp_path / "m.onnx", ["N", 3, 32, 32], last="Softmax")
    found = load_pretrained(TeacherSection(model=name))
    assert "probabilities" in found.note
    x = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        want = torch.log_softmax(x.mean((2, 3))[:, :2], dim=1)
        torch.testing.assert_close(forward(found.model, x)[1], want)
        certain = found.model(
            1000
            * torch.stack([x[0] * 0 + 1, x[0] * 0 - 1])
            * torch.tensor([1, 0, 0])[:, None, None]
        )
    assert float(certain.min()) == pytest.approx(np.log(SMALLEST)), "never an infinity"


def test_what_no_teacher_takes_or_gives_is_told(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    for dims in (["N", 1, 32, 32], ["N", 3, 32, 48], ["N", 3], [1, 3, 99999, 99999]):
        assert "square RGB images" in refused(
            colours(file, dims) if len(dims) == 4 else _flat(file)
        )
    assert "no file" in refused("onnx:nowhere.onnx")
    assert "row of logits" in refused(colours(file, ["N", 3, 32, 32], outputs=1))
    colours(file, ["N", 3, 32, 32])
    model = onnx.load(file)
    model.graph.node[0].op_type = "NoSuchOperator"
    file.write_bytes(model.SerializeToString())
    assert "no ONNX model that holds" in refused(f"onnx:{file}")


def _flat(path: Path) -> str:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g", [info("x", TensorProto.FLOAT, ["N", 3])],
        [info("y", TensorProto.FLOAT, ["N", 3])],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path
    )
    return f"onnx:{path}"


def test_weights_outside_the_file_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    colours(file, ["N", 3, 32, 32])
    model = onnx.load(file)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/hostname"
    file.write_bytes(model.SerializeToString())
    assert "keeps weights in another file" in refused(f"onnx:{file}")
    inner = onnx.TensorProto.FromString(tensor.SerializeToString())
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    model.graph.node.append(helper.make_node("Constant", [], ["unread"], value=inner))
    file.write_bytes(model.SerializeToString())
    assert "keeps weights in another file" in refused(f"onnx:{file}")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), at=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_file_is_one_paragraph_or_a_sound_teacher(
    cut: int, at: int, byte: int, tmp_path: Path
) -> None:
    whole = Path(colours(tmp_path / "m.onnx", ["N", 3, 32, 32]).removeprefix("onnx:")).read_bytes()
    data = bytearray(whole)
    data[at % len(data)] = byte
    (tmp_path / "d.onnx").write_bytes(
        bytes(data[: len(data) - cut % len(data)] if cut % 3 == 0 else data)
    )
    try:
        found = load_pretrained(TeacherSection(model=f"onnx:{tmp_path / 'd.onnx'}"))
    except TeacherError as error:
        assert "\n" not in str(error) and len(str(error)) < 900
        return
    with torch.inference_mode():
        assert forward(found.model, torch.zeros(1, 3, found.size, found.size))[1].shape == (
            1,
            found.classes,
        )
