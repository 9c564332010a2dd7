"""Engines by the Python API: built, named, found, refused and run, on a stand-in for the driver (C, compiled here) and
one for TensorRT whose every name is held to NVIDIA's real module.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ontarget import bench, builder, building, cli, cuda, trt
from ontarget.builder import Wanted, build_engine
from ontarget.contract import Bundle, load_bundle
from ontarget.cuda import Cuda, CudaError
from ontarget.engine import Place, engine_name, find_engine, misfit, read_about
from ontarget.session import SessionError
from ontarget.trt import TrtSession

from tests.ontarget.conftest import SIZE, _graph, truth
from tests.ontarget.test_ontarget_hostile import pack, paragraph
from tests.ontarget.test_ontarget_modelfile import outside

HERE = Path(__file__).parent
PLACE = Place("10.3.0", "8.7", None, "Orin")
TIMING = "timing-trt10.3.0-sm87.cache"
GIB = 1 << 30


@pytest.fixture
def board(driver: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """An Orin with TensorRT 10.3; what was taken of its memory is given back."""
    monkeypatch.setattr(cuda, "LIBRARIES", (str(driver),))
    monkeypatch.setattr(trt, "l4t_release", lambda: None)
    monkeypatch.setattr(builder, "available_bytes", lambda: 2 * GIB)
    monkeypatch.setattr(trt, "board", lambda: None)
    monkeypatch.syspath_prepend(str(HERE / "stand_in"))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    library = ctypes.CDLL(str(driver))
    yield library
    assert library.fake_live() == 0, "memory of the device was not given back"


@pytest.fixture
def bundle(made: Any) -> Bundle:
    return load_bundle(made.folder)


# -- building --------------------------------------------------------------------------------------


def head(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes()[6:].partition(b"\n")[0])
    return found


def test_an_engine_is_built_strongly_typed_and_says_what_it_is(
    board: Any, bundle: Bundle, tmp_path: Path
) -> None:
    model = bundle.model("float16")
    path = build_engine(model, tmp_path)
    assert path.name == f"float16-{model.sha256[:8]}-trt10.3.0-sm87.engine"
    image = [1, SIZE, SIZE, 3]
    assert head(path) == {
        "kind": 1 << 1, "flags": [], "pools": {"WORKSPACE": GIB // 2}, "dla": ["GPU", -1],
        "profile": ["images", image, image, image],
    }  # fmt: skip
    about = read_about(path)
    assert about is not None and about["onnx_sha256"] == model.sha256 and about["sm"] == "8.7"
    assert (about["input"], about["workspace_mib"]) == (f"images:1x{SIZE}x{SIZE}x3", 512)
    assert (tmp_path / TIMING).read_bytes() == b"timed;"
    before = path.stat().st_mtime_ns
    assert build_engine(model, tmp_path) == path and path.stat().st_mtime_ns == before
    build_engine(model, tmp_path, again=True)
    assert path.stat().st_mtime_ns != before
    assert (tmp_path / TIMING).read_bytes() == b"timed;timed;"
    assert not list(tmp_path.glob("*.part"))


def test_tensorrt_8_is_told_the_precision_by_flags(
    board: Any, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TENSORRT", "8.5.2.2")
    made.rewrite(lambda d: d["models"][2].update(name="int8", precision="int8"))
    bundle = load_bundle(made.folder)
    found = {}
    for name in ("bytes", "int8"):
        path = build_engine(bundle.model(name), tmp_path)
        assert "trt8.5.2-" in path.name
        found[name] = head(path)
    assert found["bytes"]["flags"] == [] and found["int8"]["flags"] == ["FP16", "INT8"]
    assert {about["kind"] for about in found.values()} == {1 << 0}


def test_dla_batch_and_workspace_are_as_asked(board: Any, bundle: Bundle, tmp_path: Path) -> None:
    path = build_engine(bundle.model("float16"), tmp_path, Wanted(4, 1, 64 << 20))
    assert path.name.endswith("-sm87-dla1-batch4.engine")
    about = head(path)
    assert about["dla"] == ["DLA", 1] and about["flags"] == ["FP16", "GPU_FALLBACK"]
    assert about["kind"] == 0, "a DLA core takes no strong types"
    assert about["pools"] == {"WORKSPACE": 64 << 20} and about["profile"][3][0] == 4
    with pytest.raises(SessionError, match=r"no DLA core 2 here: this machine has 2"):
        build_engine(bundle.model("float16"), tmp_path, Wanted(1, 2))


def test_a_file_that_tensorrt_refuses_and_a_builder_that_gives_up_are_told_apart(
    board: Any, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(made.folder)
    model = bundle.model("float16")
    model.path.write_bytes(b"nonsense")
    with pytest.raises(SessionError, match=r"refuses model.float16.onnx: .*INVALID_GRAPH"):
        build_engine(model, tmp_path)
    monkeypatch.setenv("FAKE_TENSORRT_NO_ENGINE", "1")
    with pytest.raises(SessionError, match=r"made no engine of model.bytes.onnx"):
        build_engine(bundle.model("bytes"), tmp_path)
    assert list(tmp_path.glob("*.engine*")) == []


# -- which engine ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"l4t": "36.4.3"}, None),  # not known here
        ({"onnx_sha256": "0" * 64}, "it is of another model ('00000000'"),
        ({"onnx_sha256": None}, "it does not say of which model it is"),
        ({"tensorrt": "8.6.1"}, "it is of another TensorRT ('8.6.1', here 10.3.0)"),
        ({"sm": "7.2"}, "it is of another GPU ('7.2', here 8.7)"),
        ({"gpu": "AGX"}, "it is of another board ('AGX', here Orin)"),
    ],
)
def test_an_engine_of_another_model_tensorrt_or_gpu_does_not_fit(
    bundle: Bundle, change: dict[str, Any], why: str | None
) -> None:
    model = bundle.model("float16")
    about = {"onnx_sha256": model.sha256, "tensorrt": "10.3.0", "sm": "8.7", "l4t": None}
    found = misfit({**about, **change}, model, PLACE)
    assert found == why or (why is not None and str(found).startswith(why))


def test_the_newest_engine_that_fits_is_taken_and_the_others_are_named(
    board: Any, bundle: Bundle, tmp_path: Path
) -> None:
    model = bundle.model("float16")
    old, new = build_engine(model, tmp_path), build_engine(model, tmp_path, Wanted(2))
    os.utime(old, (1, 1))
    (tmp_path / "alone.engine").write_bytes(b"x")
    found, reasons = find_engine(model, PLACE, [tmp_path])
    assert found == new and reasons == [
        "alone.engine: nothing beside it says what it is (alone.engine.json)"
    ]
    assert find_engine(model, PLACE, [tmp_path], 1)[0] == old
    none, reasons = find_engine(model, PLACE, [tmp_path], 8)
    assert none is None and "takes 2 images at once, not 8" in " ".join(reasons)
    none, reasons = find_engine(model, Place("10.7.0", "8.7", None), [tmp_path])
    assert none is None and sum("another TensorRT" in reason for reason in reasons) == 2
    assert engine_name(model, Place("8.6.1", None, "36.4.3")).endswith("-trt8.6.1-l4t36.4.3.engine")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": "other/1"}', "[" * 9000])
def test_a_document_that_is_none_is_no_document(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.engine.json").write_text(text)
    assert read_about(tmp_path / "x.engine") is None


# -- running ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bytes", "floats", "float16"])
def test_an_engine_gives_the_logits_of_its_model(board: Any, made: Any, name: str) -> None:
    from ontarget.preprocess import to_input

    bundle = load_bundle(made.folder)
    model = bundle.model(name)
    build_engine(model, bundle.folder, Wanted(4))
    with TrtSession(model) as session:
        assert (session.runtime, session.version, session.most_images) == ("tensorrt", "10.3.0", 4)
        for count in (4, 1, 3):  # less than a batch is filled up
            pixels = made.pixels[:count]
            got = session.run(to_input(pixels, model, bundle.preprocess))
            assert got.shape == (count, 4) and got.dtype == np.float32
            assert np.abs(got - truth(pixels)).max() < 5e-3
        with pytest.raises(SessionError, match=r"takes 4 images at once, not 5.*--batch 5"):
            session.run(to_input(made.pixels[:5], model, bundle.preprocess))


def test_an_engine_whose_bytes_changed_or_that_fits_something_else_is_not_loaded(
    board: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bundle.model("float16")
    path = build_engine(model, bundle.folder)
    with pytest.raises(SessionError, match=r"no engine of bytes is here for TensorRT 10.3.0"):
        TrtSession(bundle.model("bytes"))
    with pytest.raises(SessionError, match=r"it is of another model"):
        TrtSession(bundle.model("bytes"), path)
    monkeypatch.setenv("FAKE_CUDA_SM", "7.2")
    with pytest.raises(SessionError, match=r"SM 7.2 \(.*another GPU"):
        TrtSession(model)
    monkeypatch.delenv("FAKE_CUDA_SM")
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(SessionError, match=r"its bytes are not those that were built"):
        TrtSession(model)
    about = path.with_name(path.name + ".json")
    about.write_text(about.read_text().replace('"engine_sha256"', '"other"'))
    path.write_bytes(b"nonsense")
    with pytest.raises(SessionError, match=r"cannot read .*: build it again"):
        TrtSession(model)


def test_a_damaged_engine_is_built_again_and_one_of_another_batch_is_not_taken_for_it(
    board: Any, bundle: Bundle, tmp_path: Path
) -> None:
    model = bundle.model("float16")
    path = build_engine(model, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert build_engine(model, tmp_path) == path and path.read_bytes() == data
    about = path.with_name(path.name + ".json")
    about.write_text(about.read_text().replace("images:1x", "images:4x"))
    build_engine(model, tmp_path)
    assert "images:1x" in about.read_text()


@pytest.mark.parametrize(
    "call", ["cuMemAlloc_v2", "cuMemAllocHost_v2", "cuStreamCreate", "context", "address"]
)
def test_a_session_that_does_not_come_about_gives_everything_back(
    board: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """At the second buffer as at the first; the fixture counts what is left."""
    model = bundle.model("bytes")
    build_engine(model, bundle.folder)
    for nth in ("1", "2"):
        monkeypatch.setenv("FAKE_CUDA_FAIL", call)
        monkeypatch.setenv("FAKE_CUDA_FAIL_AT", nth)
        board.fake_count()
        if nth == "2" and call in ("cuStreamCreate", "context"):
            continue
        with pytest.raises(SessionError, match=r"out of memory|fit into memory|no tensor"):
            TrtSession(model)
        assert board.fake_live() == 0


@pytest.mark.parametrize("call", ["cuMemcpyHtoDAsync_v2", "cuStreamSynchronize"])
def test_a_call_that_the_driver_refuses_is_one_paragraph(
    board: Any, made: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    model = bundle.model("bytes")
    build_engine(model, bundle.folder)
    with TrtSession(model) as session:
        monkeypatch.setenv("FAKE_CUDA_FAIL", call)
        with pytest.raises(SessionError, match=rf"{call}: error 2 .*out of memory"):
            session.run(made.pixels[:1])


def test_without_a_driver_a_gpu_or_a_package_one_sentence_says_so(
    board: Any, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Cuda().name == "Orin"
    monkeypatch.setenv("FAKE_CUDA_FAIL", "cuInit")
    with pytest.raises(CudaError, match=r"cuInit: error 2"):
        Cuda()
    monkeypatch.setattr(cuda, "LIBRARIES", ("libnone.so",))
    with pytest.raises(SessionError, match=r"needs an NVIDIA GPU with its driver"):
        build_engine(bundle.model(), tmp_path)
    monkeypatch.setattr(trt, "MODULE", "tensorrt_that_is_not_there")
    with pytest.raises(SessionError, match=r"python3-libnvinfer"):
        TrtSession(bundle.model())
    monkeypatch.setattr(trt, "MODULE", "json")
    with pytest.raises(SessionError, match=r"too old for the kit, which needs 8.5"):
        TrtSession(bundle.model())


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benches run in this process, where the stand-ins are."""

    def run(request: dict[str, Any], threads: int, timeout_s: float) -> dict[str, Any]:
        from ontarget.worker import bench_one

        assert threads == 1
        return {"ok": True, "row": bench_one({**request, "min_seconds": 0.0, "min_runs": 11})}

    monkeypatch.setattr(bench, "run_worker", run)


def test_build_engine_builds_checks_times_and_names_the_one_to_keep(
    board: Any, here: None, made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.rewrite(lambda d: d["models"][1].update(precision="int8", flavour="tensorrt"))
    code = cli.main(["build-engine", str(made.folder), "--json", str(tmp_path / "out.json")])
    shown = capsys.readouterr().out
    assert code == 0, shown
    document = json.loads((tmp_path / "out.json").read_text())
    rows = {row["model"]: row for row in document["rows"]}
    assert set(rows) == {"float16", "floats"}
    assert {row["runtime"] for row in rows.values()} == {"tensorrt"}
    assert {row["runtime_version"] for row in rows.values()} == {"10.3.0"}
    fastest = min(rows.values(), key=lambda row: row["p50_s"])["model"]
    assert [e["model"] for e in document["engines"] if e["kept"]] == [fastest]
    assert all(e["golden"] and e["top1"] is not None for e in document["engines"])
    assert shown.count("keep") == 1 and "top-1 %" in shown
    for command in ("bench", "check", "eval"):  # as the README has them: the models with an engine
        assert cli.main([command, str(made.folder), "--provider", "engine"]) == 0
        shown = capsys.readouterr().out
        assert "float16" in shown and "bytes" not in shown
    assert cli.main(["bench", str(made.folder), "--provider", "engine", "--batch", "2"]) == 2
    assert "takes 1 images at once, not 2" in capsys.readouterr().err
    assert cli.main(["bench", str(made.folder), "--provider", "engine", "--operators"]) == 2


def test_an_engine_that_fails_does_not_cost_the_others(
    board: Any,
    here: None,
    made: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made.rewrite(lambda d: d["models"][1].update(precision="int8", flavour="tensorrt"))
    real = building.build_engine

    def refusing(model: Any, *given: Any) -> Path:
        if model.precision == "int8":
            raise SessionError("TensorRT refuses it")
        return real(model, *given)

    monkeypatch.setattr(building, "build_engine", refusing)
    assert cli.main(["build-engine", str(made.folder)]) == 0
    shown = capsys.readouterr()
    assert "keep" in shown.out and "TensorRT refuses it" in shown.err


def test_a_file_that_was_packed_broken_does_not_reach_tensorrt(
    board: Any, here: None, made: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model = _graph("uint8_nhwc", "float16")
    model.graph.initializer.append(outside())
    pack(made, model.SerializeToString(), 2)
    assert cli.main(["build-engine", str(made.folder)]) == 2
    assert "keeps weights in another file" in paragraph(capsys.readouterr().err.strip())
    assert not list(made.folder.glob("*.engine*"))


def test_the_faster_engine_is_kept_only_where_it_is_accurate() -> None:
    def engine(name: str, p50: float, top1: float | None, golden: bool = True) -> building.Engine:
        return building.Engine(name, name, p50, top1, golden, "off by 1")

    half, int8 = engine("float16", 2.0, 0.90), engine("int8", 1.0, 0.89)
    assert building.kept([half, int8], 0.01) is int8
    assert building.kept([half, int8], 0.005) is half
    assert building.kept([half, engine("int8", 1.0, None, False)], 0.01) is half
    assert building.kept([engine("int8", 1.0, None, False)], 0.01) is None
    assert building.kept([engine("float16", 1.0, 0.1, False)], 0.01) is None, "its own best"
    assert building.kept([half, engine("int8", 1.0, 0.895, False)], 0.01) is not half
    assert "off by 1" in building.report([engine("a", 1, None, False)], None)[1][0]


def test_without_the_package_trtexec_builds(
    made: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trt, "MODULE", "tensorrt_that_is_not_there")
    (made.folder / "build_engine.sh").write_text('echo "script: $*"; exit 1\n')
    assert cli.main(["build-engine", str(made.folder), "--dla", "0", "--again"]) == 1
    out = capfd.readouterr().out
    assert "script: -m float16 -d 0 -r ." in out and "python3-libnvinfer" in out
    (made.folder / "build_engine.sh").unlink()
    assert cli.main(["build-engine", str(made.folder)]) == 2


# -- the real module -------------------------------------------------------------------------------


def real() -> ModuleType:
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is for Linux on x86-64")


GONE = {"EXPLICIT_BATCH", "FP16", "INT8"}
"""Of TensorRT 8 alone: in 10 and 11 the types stand in the file."""


def test_every_name_of_the_stand_in_is_one_of_the_real_module() -> None:
    rtx = real()
    tree = ast.parse((HERE / "stand_in" / "tensorrt.py").read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert len(classes) > 12
    for node in classes:
        theirs = getattr(rtx, node.name)
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and not part.name.startswith("__"):
                words = getattr(theirs, part.name).__doc__
                for argument in part.args.args[1:]:
                    assert f"{argument.arg}:" in words, (node.name, part.name, argument.arg)
            elif isinstance(part, ast.Assign) and isinstance(part.targets[0], ast.Name):
                name = part.targets[0].id
                if name not in GONE and name not in ("data", "shapes"):
                    assert hasattr(theirs, name), (node.name, name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_real_parser_and_builder_take_what_the_kit_asks_of_them(
    board: Any, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is here, so the builder is told one; everything else is as on a board."""
    rtx = real()

    class ForOrin:
        def __init__(self, logger: Any) -> None:
            self.real = rtx.Builder(logger)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def create_builder_config(self) -> Any:
            config = self.real.create_builder_config()
            config.num_compute_capabilities = 1
            config.set_compute_capability(rtx.ComputeCapability.SM86, 0)
            return config

    module = ModuleType("board_tensorrt")
    module.__dict__.update(rtx.__dict__)
    module.__dict__.update(Builder=ForOrin, __version__="10.3.0")
    monkeypatch.setitem(sys.modules, "board_tensorrt", module)
    monkeypatch.setattr(trt, "MODULE", "board_tensorrt")
    path = build_engine(bundle.model("float16"), tmp_path, Wanted(2))
    assert path.stat().st_size > 1000 and (tmp_path / TIMING).exists()
    model = bundle.model("bytes")
    model.path.write_bytes(b"nonsense")
    with pytest.raises(SessionError, match=r"refuses model.bytes.onnx"):
        build_engine(model, tmp_path)
    assert importlib.import_module("board_tensorrt") is module
