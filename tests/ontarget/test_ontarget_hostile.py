"""A bundle that was packed broken, its hashes right: each command refuses with a paragraph and loses nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from ontarget import cli, machine, peer
from ontarget.apart import ApartSession, open_apart
from ontarget.contract import ContractError, load_bundle, require_packed
from ontarget.facts import Model
from ontarget.machine import require_room
from ontarget.preprocess import to_input
from ontarget.session import OrtSession, ProviderError, SessionError
from PIL import Image

from tests.ontarget.conftest import CLASSES, SIZE, MadeBundle, _graph
from tests.ontarget.test_ontarget_modelfile import outside

Capture = pytest.CaptureFixture[str]


def pack(made: MadeBundle, data: bytes, index: int = 0) -> Model:
    """Put a file in the place of a model, its hash and size as the manifest says."""
    entry = made.manifest()["models"][index]
    (made.folder / entry["file"]).write_bytes(data)
    about = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    made.rewrite(lambda document: document["models"][index].update(about))
    return load_bundle(made.folder).models[index]


def graph(*nodes: onnx.NodeProto, opset: int = 17, ir: int = 8, **stored: Any) -> bytes:
    """A file that takes the images of the bundle's first model, pools them to `flat` (N, 3), and runs `nodes`."""
    domains = {node.domain for node in nodes} - {""}
    first = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["flat"], axes=[1, 2], keepdims=0),
    ]
    made = helper.make_graph(
        [*first, *nodes],
        "hostile",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(value), name) for name, value in stored.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=ir)
    return bytes(model.SerializeToString())


def endless() -> bytes:
    """A loop whose condition stays true."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", [a], [b]) for a, b in (("go", "go2"), ("v", "v2"))],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("v", TensorProto.FLOAT, None)],
        [value("go2", TensorProto.BOOL, []), value("v2", TensorProto.FLOAT, None)],
    )  # fmt: skip
    return graph(helper.make_node("Loop", ["", "yes", "flat"], ["logits"], body=body), yes=True)


def paragraph(text: str) -> str:
    """One line of printable text, and no traceback."""
    assert text.isprintable() and 40 < len(text) < 700, text
    assert "Traceback" not in text
    return text


def refused(model: Model, images: np.ndarray) -> str:
    """Why a model does not open, or does not run."""
    with pytest.raises(SessionError) as caught, OrtSession(model) as session:
        session.run(images)
    return paragraph(str(caught.value))


# -- what the runtime lacks, and what the graph gives ----------------------------------------------

NODE = helper.make_node


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (graph(NODE("Foo", ["flat"], ["logits"], domain="com.acme")), "the operator Foo of the domain com.acme"),
        (graph(NODE("Foo", ["flat"], ["logits"])), "the operator Foo of opset 17"),
        (graph(NODE("Gelu", ["flat"], ["logits"])), "the operator Gelu of opset 17"),
        (graph(NODE("Relu", ["flat"], ["logits"]), opset=99), "opset 99 of ai.onnx: it knows up to"),
        (graph(NODE("Relu", ["flat"], ["logits"]), ir=99), "IR version 99: it knows up to"),
    ],
    ids=["domain", "operator", "later", "opset", "ir"],
)  # fmt: skip
def test_an_operator_that_the_runtime_lacks_is_named_with_what_to_do(
    made: Any, data: bytes, words: str
) -> None:
    import onnxruntime  # type: ignore[import-untyped]

    text = refused(pack(made, data), made.pixels[:1])
    assert words in text and onnxruntime.__version__ in text
    assert "Install a newer onnxruntime" in text and "export.opset=13" in text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (graph(NODE("Identity", ["flat"], ["logits"])), "output of shape (2, 3)"),
        (graph(NODE("ReduceMean", ["flat"], ["logits"], keepdims=0)), "output of shape ()"),
        (graph(NODE("ConstantOfShape", ["sizes"], ["logits"]), sizes=[1 << 40]), "failed to run"),
        (graph(NODE("Tile", ["flat", "n"], ["logits"]), n=[1 << 31, 1 << 31]), "failed to run"),
        (graph(NODE("Gather", ["flat", "n"], ["logits"], axis=1), n=[10**9]), "failed to run"),
        (graph(NODE("Identity", ["flat"], ["logits\xff"])), "cannot be opened"),
    ],
    ids=["classes", "rank", "memory", "tile", "gather", "output"],
)  # fmt: skip
def test_an_output_that_is_not_as_stated_or_cannot_be_had_is_a_paragraph(
    made: Any, data: bytes, words: str
) -> None:
    assert words in refused(pack(made, data), made.pixels[:2])


def test_outputs_that_are_no_floats_and_names_that_are_no_text_are_refused(made: Any) -> None:
    other = onnx.load_model_from_string(
        graph(NODE("Cast", ["flat"], ["logits"], to=TensorProto.STRING))
    )
    other.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    text = refused(pack(made, other.SerializeToString()), made.pixels[:1])
    assert "tensor(string)" in text and "do not belong together" in text
    spoilt = graph(NODE("Identity", ["flat"], ["logits"])).replace(b"images", b"imag\xff\xfe")
    assert "name is no text" in refused(pack(made, spoilt), made.pixels[:1])


# -- a process of its own --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bytes", "floats"])
def test_a_model_in_a_process_of_its_own_gives_the_same_bits(shared: Any, name: str) -> None:
    bundle = load_bundle(shared.folder)
    model = bundle.model(name)
    inputs = to_input(shared.pixels, model, bundle.preprocess)
    with open_apart(model) as there, OrtSession(model) as here:
        assert isinstance(there, ApartSession)
        assert np.array_equal(there.run(inputs), here.run(inputs))
        assert there.run(inputs[:0]).shape == (0, len(CLASSES))
        assert (there.provider, there.version, there.threads) == (
            here.provider,
            here.version,
            here.threads,
        )
    assert there._peer._process.returncode == 0


def test_a_model_in_a_process_of_its_own_is_refused_as_it_is_here(made: Any) -> None:
    with pytest.raises(ProviderError, match="--provider cpu"):
        open_apart(load_bundle(made.folder).model(), "cuda")
    with pytest.raises(SessionError, match="the operator Foo"):
        open_apart(pack(made, graph(NODE("Foo", ["flat"], ["logits"]))))
    with (
        open_apart(pack(made, graph(NODE("Identity", ["flat"], ["logits"])))) as session,
        pytest.raises(SessionError, match=r"shape \(1, 3\)"),
    ):
        session.run(made.pixels[:1])


def test_a_graph_that_runs_for_ever_is_stopped(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = pack(made, endless())
    with open_apart(model) as session:
        monkeypatch.setattr(peer, "PATIENCE_S", 0.5)
        with pytest.raises(SessionError, match=r"did not answer within 0\.5 s") as caught:
            session.run(made.pixels[:1])
    assert model.file in paragraph(str(caught.value))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import os; os.kill(os.getpid(), 11)", "ended by SIGSEGV (the file is damaged, or made"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL (out of memory?)"),
        ("import sys; sys.exit('terminate called')", "exit code 1 ('terminate called')"),
        ("print('no answer')", "was not run to its end"),
    ],
)
def test_a_runtime_that_dies_is_a_paragraph(
    shared: Any, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    command = [sys.executable, "-c", script]
    monkeypatch.setattr(peer, "worker_command", lambda what: (command, "."))
    with pytest.raises(SessionError) as caught:
        open_apart(load_bundle(shared.folder).model())
    text = paragraph(str(caught.value))
    assert words in text and "model.bytes.onnx" in text and "Use another model" in text


def test_no_process_may_have_more_memory_than_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    child = os.fork()
    if not child:
        monkeypatch.setattr(machine, "memory_bytes", lambda: 1 << 30)
        machine.limit_memory()
        right = resource.getrlimit(resource.RLIMIT_DATA)[0] == 1 << 30
        try:
            bytearray(1 << 31)
        except MemoryError:
            os._exit(7 if right else 1)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


# -- the commands ----------------------------------------------------------------------------------


def _linked() -> bytes:
    model = _graph("uint8_nhwc")
    model.graph.initializer[0].CopyFrom(outside(model.graph.initializer[0].name))
    return bytes(model.SerializeToString())


BROKEN = {
    "empty": b"",
    "text": b"nonsense",
    "pytorch": b"PK\x03\x04" + bytes(100),
    "tflite": b"\x1c\0\0\0TFL3" + bytes(100),
    "cut": _graph("uint8_nhwc").SerializeToString()[:-100],
    "outside": _linked(),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_file_that_was_packed_broken_is_opened_by_no_command(
    made: Any, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    pack(made, data)
    monkeypatch.setattr(peer, "worker_command", lambda what: pytest.fail("it was opened"))
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    where = str(made.folder)
    assert cli.main(["check", where]) == 1
    assert "FAIL  model.bytes.onnx cannot be opened: it " in capsys.readouterr().out
    for command in (["eval", where], ["predict", str(tmp_path / "x.png"), where]):
        assert cli.main([*command, *(["--model", "bytes"] if command[0] == "eval" else [])]) == 2
        text = paragraph(capsys.readouterr().err.strip())
        assert "model.bytes.onnx cannot be opened: it " in text
        assert text.endswith("one ONNX file with all its weights. Export the model again.")


def test_a_changed_file_is_not_opened_by_predict(
    made: Any, tmp_path: Path, capsys: Capture
) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    (made.folder / "model.bytes.onnx").write_bytes(_graph("uint8_nhwc").SerializeToString() + b"\0")
    assert cli.main(["predict", str(tmp_path / "x.png"), str(made.folder)]) == 2
    assert "its sha256 differs" in paragraph(capsys.readouterr().err.strip())


def test_check_and_eval_go_on_after_a_model_that_does_not_run(
    made: Any, tmp_path: Path, capsys: Capture
) -> None:
    pack(made, graph(NODE("Foo", ["flat"], ["logits"], domain="com.acme")))
    out = tmp_path / "out.json"
    assert cli.main(["check", str(made.folder), "--json", str(out)]) == 2
    said = capsys.readouterr()
    assert "bytes, threads 1: model.bytes.onnx needs what onnxruntime" in paragraph(
        said.err.strip()
    )
    assert "ok    floats on" in said.out and "ok    float16 on" in said.out
    written = json.loads(out.read_text())
    assert written["check"]["ok"] is False
    assert [row["model"] for row in written["check"]["golden"]] == ["floats", "float16"]
    assert [f["model"] for f in written["failures"]] == ["bytes"]
    logits = tmp_path / "l.npz"
    given = ["eval", str(made.folder), "--json", str(out), "--logits", str(logits)]
    assert cli.main(given) == 2
    written = json.loads(out.read_text())
    assert [row["top1"] for row in written["eval"]] == [0.9, 0.9]
    assert [f["model"] for f in written["failures"]] == ["bytes"]
    assert sorted(np.load(logits).files) == ["logits_float16", "logits_floats"]


def test_outputs_that_are_not_finite_fail_the_check_and_are_no_prediction(
    made: Any, tmp_path: Path, capsys: Capture
) -> None:
    weight = np.full((3, len(CLASSES)), np.inf, np.float32)
    pack(made, graph(NODE("MatMul", ["flat", "weight"], ["logits"]), weight=weight))
    assert cli.main(["check", str(made.folder), "--model", "bytes"]) == 1
    assert "outputs are not finite" in capsys.readouterr().out
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    assert cli.main(["predict", str(tmp_path / "x.png"), str(made.folder)]) == 2
    assert "not finite on cpu" in capsys.readouterr().err


def test_a_batch_that_memory_cannot_hold_is_refused_before_it_is_made(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    bench = ["bench", str(made.folder), "--model", "bytes", "--quick", "--threads", "1"]
    assert cli.main([*bench, "--batch", "999999999"]) == 2
    assert "takes 384.0 GB of inputs alone" in paragraph(capsys.readouterr().err.strip())
    monkeypatch.setattr(machine, "available_bytes", lambda: 1 << 29)
    made.rewrite(lambda d: d["models"][0]["input"].update(shape=[1_000_000, SIZE, SIZE, 3]))
    made.rewrite(lambda d: d["models"][1]["input"].update(shape=[1_000_000, 3, SIZE, SIZE]))
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    picture = str(tmp_path / "x.png")
    require_room(1_000_000, SIZE, 1)
    for command in (["eval"], ["check"], ["predict", picture]):
        assert cli.main([*command, str(made.folder), "--model", "floats"]) == 2
        text = paragraph(capsys.readouterr().err.strip())
        assert "a batch of 1000000 images of 8 px takes 1.0 GB" in text
    with pytest.raises(ContractError, match=r"0\.5 GB are free"):
        require_room(10, 8192, 4)


# -- anything at all -------------------------------------------------------------------------------


def test_a_file_cut_off_at_any_byte_is_refused(made: Any) -> None:
    whole = _graph("uint8_nhwc").SerializeToString()
    for end in range(len(whole)):
        try:
            model = pack(made, whole[:end])
            require_packed(model)
        except ContractError as error:
            paragraph(str(error))
            continue
        refused(model, made.pixels[:1])


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_mutated_file_runs_or_is_refused_with_a_paragraph(made: Any, seed: int) -> None:
    rng = random.Random(seed)
    model = _mutated(made, rng)
    try:
        require_packed(model)
        with open_apart(replace(model, flavour=None)) as session:
            logits = session.run(made.pixels[:2])
    except (ContractError, SessionError) as error:
        paragraph(str(error))
    else:
        assert logits.shape == (2, len(CLASSES)) and logits.dtype == np.float32


def _mutated(made: MadeBundle, rng: random.Random) -> Model:
    """A file with some bytes or fields changed; most of these get past the parser."""
    model = _graph("uint8_nhwc")
    edits: list[Callable[[Any], object]] = [
        lambda node: setattr(node, "op_type", rng.choice(["Conv", "Resize", "Tile", "Gather", "Loop", "Reshape"])),
        lambda node: node.input.append(rng.choice(["weight", "images", "mean", ""])),
        lambda node: node.attribute.append(helper.make_attribute("axis", rng.choice([-(2**63), 2**62, 7]))),
        lambda node: setattr(node, "domain", rng.choice(["com.microsoft", "ai.onnx.ml", "x"])),
        lambda node: model.graph.initializer[0].dims.append(rng.choice([-1, 0, 2**62])),
        lambda node: setattr(model.graph.initializer[0], "raw_data", rng.randbytes(47)),
    ]  # fmt: skip
    for _ in range(rng.randint(0, 2)):
        rng.choice(edits)(rng.choice(model.graph.node))
    raw = bytearray(model.SerializeToString())
    for _ in range(rng.randint(0, 3)):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return pack(made, bytes(raw))
