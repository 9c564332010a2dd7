"""The C++ programs for people who embed a model: compiled here, they give the kit's answers and refuse what it refuses.

ONNX Runtime's is built on its real headers and the library of the installed wheel. TensorRT's runs on a stand-in, and
is compiled against NVIDIA's headers where this machine has them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from ontarget import builder, cli, cuda, trt
from ontarget.builder import Wanted, build_engine
from ontarget.contract import load_bundle
from ontarget.measure import upper_percentile
from ontarget.preprocess import resize_crop
from PIL import Image
from skimage import data

from tests.ontarget.conftest import MadeBundle, build, sha256

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "export" / "examples"
PHOTOGRAPHS = ("chelsea", "coffee", "astronaut")
COMPILE = ["c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]


# -- what they are built with ----------------------------------------------------------------------


def folder_with(header: str, *folders: str | Path) -> Path:
    """The first of the folders that holds a header; the test is skipped where none does."""
    for folder in folders:
        if (Path(folder) / header).is_file():
            return Path(folder)
    pytest.skip(f"{header} is not in {', '.join(map(str, folders))}")


def json_header() -> Path:
    if shutil.which("c++") is None or shutil.which("cmake") is None:
        pytest.skip("a C++ compiler or cmake is not installed")
    return folder_with("nlohmann/json.hpp", "/usr/include", "/usr/local/include")


def onnxruntime_headers() -> Path:
    return folder_with(
        "onnxruntime_cxx_api.h",
        *filter(None, [os.environ.get("ONNXRUNTIME_INCLUDE")]),
        "/usr/include/onnxruntime",
        "/usr/local/include/onnxruntime",
    )


def cuda_headers() -> Path:
    """Those that come with torch's compiler for GPUs, or a toolkit's."""
    import importlib.util

    found = importlib.util.find_spec("triton")
    folders = [Path("/usr/local/cuda/include")]
    if found is not None and found.origin is not None:
        folders.append(Path(found.origin).parent / "backends" / "nvidia" / "include")
    return folder_with("cuda_runtime_api.h", *folders)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of the installed wheel, by the names that a linker and a loader look for."""
    found = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not found:
        pytest.skip("the installed onnxruntime has no libonnxruntime.so")
    folder = tmp_path_factory.mktemp("onnxruntime")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(found[0])
    return folder / "libonnxruntime.so"


def by_cmake(source: Path, target: Path, flags: str = "", **found: Path) -> Path:
    """The program of a folder, built by its own CMakeLists.txt without a warning."""
    named = [f"-D{name}={path}" for name, path in found.items()]
    strict = "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"
    quick = ["-DCMAKE_BUILD_TYPE=None", strict, f"-DCMAKE_CXX_FLAGS={flags}"]
    for command in (["-S", source, "-B", target, *quick, *named], ["--build", target]):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return target / "classify"


@pytest.fixture(scope="module")
def ort(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program on ONNX Runtime."""
    json_header()
    target = tmp_path_factory.mktemp("ort") / "build"
    headers = onnxruntime_headers()
    return by_cmake(
        EXAMPLES / "onnxruntime", target, ONNXRUNTIME_INCLUDE=headers, ONNXRUNTIME_LIBRARY=library
    )


@pytest.fixture(scope="module")
def tensorrt(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program on TensorRT, with the stand-ins for it and for the CUDA runtime."""
    json_header()
    folder, headers, gpu = tmp_path_factory.mktemp("trt"), onnxruntime_headers(), cuda_headers()
    runtime = folder / "libcudart.so"
    command = [*COMPILE, "-shared", "-fPIC", "-isystem", gpu, HERE / "fake_cudart.cpp"]
    subprocess.run([*command, "-o", runtime], check=True)
    return by_cmake(
        EXAMPLES / "tensorrt",
        folder / "build",
        f"-isystem {headers}",
        TENSORRT_INCLUDE=HERE / "stand_in",
        TENSORRT_LIBRARY=library,
        CUDA_INCLUDE=gpu,
        CUDA_LIBRARY=runtime,
    )


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What must be exact in the header that both share."""
    json_header()
    program = tmp_path_factory.mktemp("exact") / "exact"
    subprocess.run([*COMPILE, HERE / "exact.cpp", "-o", program], check=True)
    return program


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Real ones, of three sizes."""
    folder = tmp_path_factory.mktemp("photographs")
    paths = [folder / f"{name}.ppm" for name in PHOTOGRAPHS]
    for name, path in zip(PHOTOGRAPHS, paths, strict=True):
        Image.fromarray(getattr(data, name)()).save(path)
    return paths


def run(
    program: Path, *arguments: object, stdin: bytes = b"", **environment: str
) -> tuple[int, str, str]:
    """Exit code and what was printed to either stream."""
    command = [str(program), *map(str, arguments)]
    env = {**os.environ, **environment}
    done = subprocess.run(command, input=stdin, capture_output=True, env=env, timeout=60)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def refused(program: Path, *arguments: object, **environment: str) -> str:
    """The one paragraph of an error."""
    code, out, err = run(program, *arguments, **environment)
    assert (code, out) == (2, "") and err.startswith("classify: ") and err.count("\n") == 1, err
    return err


@pytest.fixture
def predicted(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the kit prints of a picture."""

    def ask(bundle: Path, image: Path, *options: str) -> str:
        assert cli.main(["predict", str(image), str(bundle), *options]) == 0
        return capsys.readouterr().out

    return ask


# -- the shared header -----------------------------------------------------------------------------


@pytest.mark.parametrize(("resize", "crop"), [(8, 8), (37, 32), (96, 96), (256, 224)])
def test_pictures_are_resized_to_the_very_bytes_of_the_kit(
    exact: Path, resize: int, crop: int
) -> None:
    rng = np.random.default_rng(resize)
    sizes = [(crop, crop), (resize, resize), (1, 1), (1, 9), (3 * resize, resize), (resize + 1, 5)]
    sizes += [tuple(int(side) for side in rng.integers(1, 400, 2)) for _ in range(12)]
    images = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    images += [Image.fromarray(rng.choice([0, 255], (61, 83, 3)).astype(np.uint8))]
    images += [Image.fromarray(getattr(data, name)()) for name in PHOTOGRAPHS]
    sent = b"".join(
        b"P6\n# a comment\n%d %d\n255\n" % image.size + image.tobytes() for image in images
    )
    command = [exact, "pixels", str(resize), str(crop)]
    found = subprocess.run(command, input=sent, capture_output=True, check=True).stdout
    wanted = [resize_crop(image, resize, crop) for image in images]
    assert np.array_equal(
        np.frombuffer(found, np.uint8).reshape(-1, crop, crop, 3), np.stack(wanted)
    )


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_percentiles_are_the_kits_bounds(exact: Path, p: float) -> None:
    counts = [1, 10, 11, 12, 63, 64, 65, 100, 662, 1000, 5000]
    sent = " ".join(map(str, counts)).encode()
    found = subprocess.run(
        [exact, "percentile", str(p)], input=sent, capture_output=True, check=True
    )
    bounds = [upper_percentile(np.arange(1, n + 1), p) for n in counts]
    wanted = [-1 if bound is None else bound for bound in bounds]
    assert [float(line) for line in found.stdout.split()] == wanted
    assert wanted[0] == -1 and wanted[-1] > 0


# -- on ONNX Runtime -------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["bytes", "floats", "float16"])
def test_the_program_gives_the_kits_answers_on_photographs(
    ort: Path,
    shared: MadeBundle,
    photographs: list[Path],
    predicted: Callable[..., str],
    model: str,
) -> None:
    for path in photographs:
        code, out, err = run(ort, shared.folder, path, "--model", model)
        assert (code, out, err) == (0, predicted(shared.folder, path, "--model", model), "")


def test_without_a_name_the_chosen_model_answers(
    ort: Path, shared: MadeBundle, photographs: list[Path], predicted: Callable[..., str]
) -> None:
    wanted = predicted(shared.folder, photographs[0])
    assert run(ort, shared.folder, photographs[0])[1] == wanted
    assert run(ort, shared.folder, photographs[0], "--top", 1)[1] == wanted.splitlines(True)[0]


def test_a_graph_of_a_fixed_batch_answers_for_one_picture(
    ort: Path, tmp_path: Path, photographs: list[Path], predicted: Callable[..., str]
) -> None:
    folder = build(tmp_path, batch=3).folder
    for model in ("bytes", "floats"):
        wanted = predicted(folder, photographs[1], "--model", model)
        assert run(ort, folder, photographs[1], "--model", model)[1] == wanted


def signed(made: MadeBundle) -> None:
    """Add the model "bytes" once more, on `pixel - 128` in int8."""
    graph = onnx.load(made.folder / "model.bytes.onnx")
    offset = onnx.numpy_helper.from_array(np.array(128, dtype=np.float32), "offset")
    graph.graph.initializer.append(offset)
    graph.graph.input[0].type.tensor_type.elem_type = TensorProto.INT8
    cast = next(node for node in graph.graph.node if node.output[0] == "float")
    cast.output[0] = "signed"
    graph.graph.node.insert(1, helper.make_node("Add", ["signed", "offset"], ["float"]))
    onnx.save(graph, made.folder / "model.signed.onnx")

    def edit(document: dict[str, Any]) -> None:
        entry = json.loads(json.dumps(document["models"][0]))
        entry.update(name="signed", file="model.signed.onnx")
        entry["sha256"] = sha256(made.folder / entry["file"])
        entry["input"].update(layout="int8_nhwc", dtype="int8")
        document["models"].append(entry)

    made.rewrite(edit)


def test_signed_pixels_give_the_answers_of_bytes(
    ort: Path, made: MadeBundle, photographs: list[Path], predicted: Callable[..., str]
) -> None:
    wanted = predicted(made.folder, photographs[2])
    signed(made)
    assert run(ort, made.folder, photographs[2], "--model", "signed") == (0, wanted, "")


def test_pictures_come_one_after_the_other_from_files_and_from_the_standard_input(
    ort: Path, shared: MadeBundle, photographs: list[Path], predicted: Callable[..., str]
) -> None:
    answers = [predicted(shared.folder, path) for path in photographs]
    code, out, err = run(ort, shared.folder, *photographs)
    assert (code, err) == (0, "")
    heads = [f"{path}, picture 1\n" for path in photographs]
    assert out == "\n".join(head + text for head, text in zip(heads, answers, strict=True))
    sent = b"".join(path.read_bytes() for path in photographs)
    heads = [f"-, picture {i}\n" for i in (1, 2, 3)]
    assert run(ort, shared.folder, "-", stdin=sent)[1] == "\n".join(
        head + text for head, text in zip(heads, answers, strict=True)
    )


def test_pixels_of_the_right_size_are_taken_as_they_are(
    ort: Path, shared: MadeBundle, tmp_path: Path
) -> None:
    logits = onnxruntime.InferenceSession(
        shared.folder / "model.bytes.onnx", providers=["CPUExecutionProvider"]
    ).run(None, {"images": shared.pixels[:1]})[0][0]
    path = tmp_path / "cropped.ppm"
    Image.fromarray(shared.pixels[0]).save(path)
    _, out, _ = run(ort, shared.folder, path, "--cropped")
    shares = np.exp(logits) / np.exp(logits).sum()
    assert [float(line.split()[0]) for line in out.splitlines()] == [
        round(float(share) * 100, 1) for share in np.sort(shares)[::-1]
    ]


def test_a_bench_prints_only_what_its_runs_carry(
    ort: Path, shared: MadeBundle, photographs: list[Path]
) -> None:
    code, out, _ = run(ort, shared.folder, photographs[0], "--bench", 64)
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["p50", "p90"]
    p50, p90 = (float(line.split()[1]) for line in out.splitlines())
    assert 0 < p50 <= p90
    _, out, _ = run(ort, shared.folder, photographs[0], "--bench", 63, "--threads", 2)
    assert out.splitlines()[1] == "p90  needs 64 runs, got 63"


def test_what_a_user_gives_wrongly_is_one_paragraph(
    ort: Path, shared: MadeBundle, photographs: list[Path], tmp_path: Path
) -> None:
    picture, folder = photographs[0], shared.folder
    assert "it has no manifest.json" in refused(ort, tmp_path, picture)
    assert "no model nine. It has: bytes, floats, float16." in refused(
        ort, folder, picture, "--model", "nine"
    )
    assert "has 451 x 300 pixels; with --cropped it must have the 8 x 8" in refused(
        ort, folder, picture, "--cropped"
    )
    assert "cannot be opened" in refused(ort, folder, tmp_path / "none.ppm")
    assert "give the bundle folder and one or more pictures" in refused(ort, folder)
    assert "unknown option --fast" in refused(ort, folder, picture, "--fast")
    assert "--top needs a value" in refused(ort, folder, picture, "--top")
    assert "--bench needs a number from 1" in refused(ort, folder, picture, "--bench", "0")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no binary PPM"),
        (b"P5\n8 8\n255\n" + bytes(64), "no binary PPM"),
        (b"P6\n8\n", "header is damaged"),
        (b"P6\n8 -8\n255\n" + bytes(192), "header is damaged"),
        (b"P6\n8 8\n65535\n" + bytes(384), "only 8 bits (255) are read"),
        (b"P6\n99999 99999\n255\n", "more than 89478485 pixels"),
        (b"P6\n8 8\n255\n" + bytes(191), "ends before its last pixel"),
        (b"P6\n1 999999\n255\n" + bytes(2999997), "too long to be resized"),
    ],
)
def test_a_picture_that_is_none_is_refused(
    ort: Path, shared: MadeBundle, tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "bad.ppm").write_bytes(content)
    assert words in refused(ort, shared.folder, tmp_path / "bad.ppm")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: d.update(schema="edgedistill.bundle/2"), "the schema is edgedistill.bundle/2"),
        (lambda d: d.pop("models"), "key 'models' not found"),
        (lambda d: d.update(chosen="nine"), "no model nine"),
        (lambda d: d["models"][0].update(file="../evalset/evalset.json"), "is not inside"),
        (lambda d: d["models"][0].update(file="/etc/passwd"), "is not inside"),
        (lambda d: d["models"][0].update(file="none.onnx"), "is not there"),
        (lambda d: d["models"][0].update(file=""), "is not there"),
        (lambda d: d["models"][0]["input"].update(shape=[None, 9, 9, 3]), "do not fit its 8 px"),
        (lambda d: d["classes"].append("fifth"), "do not fit its 8 px and 5 classes"),
        (lambda d: d["preprocess"].update(std=[0, 1, 1]), "not what this program knows"),
        (lambda d: d["preprocess"].update(crop="8"), "is damaged"),
        (lambda d: d["models"][0]["input"].update(name="pixels"), "is not what the manifest says"),
        (
            lambda d: d["models"][0].update(
                input={**d["models"][1]["input"], "dtype": "float16"}, file="model.floats.onnx"
            ),
            "takes float_nchw in float16 and gives float32. This program feeds",
        ),
    ],
)
def test_a_manifest_that_is_not_sound_is_refused(
    ort: Path, made: MadeBundle, photographs: list[Path], edit: Any, words: str
) -> None:
    made.rewrite(edit)
    assert words in refused(ort, made.folder, photographs[0])


def test_a_manifest_that_is_cut_off_is_refused(
    ort: Path, made: MadeBundle, photographs: list[Path]
) -> None:
    path = made.folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:200])
    assert "is damaged" in refused(ort, made.folder, photographs[0])


# -- on TensorRT -----------------------------------------------------------------------------------


@pytest.fixture
def board(driver: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An Orin with TensorRT 10.3, for the kit that builds the engines."""
    monkeypatch.setattr(cuda, "LIBRARIES", (str(driver),))
    monkeypatch.setattr(trt, "l4t_release", lambda: None)
    monkeypatch.setattr(trt, "board", lambda: None)
    monkeypatch.setattr(builder, "available_bytes", lambda: 1 << 30)
    monkeypatch.syspath_prepend(str(HERE / "stand_in"))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    return trt


def built(made: MadeBundle, model: str = "bytes", wanted: Wanted = Wanted()) -> Path:
    return build_engine(load_bundle(made.folder).model(model), made.folder, wanted)


def edited(engine: Path, **facts: Any) -> None:
    """Change what the document beside an engine says."""
    path = engine.with_name(engine.name + ".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


@pytest.mark.parametrize("model", ["bytes", "floats"])
@pytest.mark.parametrize("batch", [1, 4])
def test_an_engine_gives_the_kits_answers(
    tensorrt: Path,
    board: Any,
    made: MadeBundle,
    photographs: list[Path],
    predicted: Callable[..., str],
    model: str,
    batch: int,
) -> None:
    built(made, model, Wanted(batch))
    for path in photographs:
        wanted = predicted(made.folder, path, "--model", model)
        assert run(tensorrt, made.folder, path) == (0, wanted, "")


def test_an_engine_of_signed_pixels_and_of_a_fixed_batch_answers(
    tensorrt: Path,
    board: Any,
    tmp_path: Path,
    photographs: list[Path],
    predicted: Callable[..., str],
) -> None:
    made = build(tmp_path, batch=2)
    wanted = predicted(made.folder, photographs[0])
    engine = built(made)
    assert run(tensorrt, made.folder, photographs[0])[1] == wanted
    signed(made)
    onnx_file = made.folder / "model.signed.onnx"
    data = b'ENGINE{"profile": null}\n' + onnx_file.read_bytes()
    engine.write_bytes(data)
    edited(engine, onnx_sha256=sha256(onnx_file), engine_sha256=sha256(engine))
    assert run(tensorrt, made.folder, photographs[0]) == (0, wanted, "")


def test_an_engine_is_timed(
    tensorrt: Path, board: Any, made: MadeBundle, photographs: list[Path]
) -> None:
    built(made)
    code, out, _ = run(tensorrt, made.folder, photographs[0], "--bench", 64)
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["p50", "p90"]


def test_an_engine_for_a_dla_core_is_opened_on_it(
    tensorrt: Path, board: Any, made: MadeBundle, photographs: list[Path]
) -> None:
    built(made, wanted=Wanted(dla=1))
    code, _, err = run(tensorrt, made.folder, photographs[0], FAKE_TENSORRT_TELL="1")
    assert (code, err) == (0, "DLA core 1\n")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"onnx_sha256": "0" * 64}, "of another model (00000000)"),
        ({"onnx_sha256": None}, "of another model"),
        ({"tensorrt": "10.3.1"}, "of another TensorRT (10.3.1, here 10.3.0)"),
        ({"sm": "7.2"}, "of another GPU (7.2, here 8.7)"),
        ({"gpu": "Xavier"}, "of another board (Xavier, here Orin)"),
        ({"schema": "ontarget.engine/2"}, "nothing beside it says what it is"),
        ({"engine_sha256": "0" * 64}, "its bytes are not those that were built"),
    ],
)
def test_an_engine_that_does_not_belong_is_refused(
    tensorrt: Path,
    board: Any,
    made: MadeBundle,
    photographs: list[Path],
    facts: dict[str, Any],
    words: str,
) -> None:
    engine = built(made)
    edited(engine, **facts)
    assert words in refused(tensorrt, made.folder, photographs[0])
    assert words in refused(tensorrt, made.folder, photographs[0], "--engine", engine)


def test_an_engine_of_another_release_or_gpu_is_refused_by_what_this_machine_is(
    tensorrt: Path, board: Any, made: MadeBundle, photographs: list[Path]
) -> None:
    built(made)
    for version, words in (("8503", "here 8.5.3"), ("110100", "here 11.1.0")):
        text = refused(tensorrt, made.folder, photographs[0], FAKE_TENSORRT=version)
        assert words in text and "build-engine" in text
    assert "here 7.2" in refused(tensorrt, made.folder, photographs[0], FAKE_CUDA_SM="7.2")


def test_an_engine_that_nothing_describes_or_that_is_not_there_is_refused(
    tensorrt: Path, board: Any, made: MadeBundle, photographs: list[Path]
) -> None:
    picture = photographs[0]
    assert "no engine is here for TensorRT 10.3.0 and SM 8.7" in refused(
        tensorrt, made.folder, picture
    )
    engine = built(made)
    assert "it is not there" in refused(
        tensorrt, made.folder, picture, "--engine", made.folder / "x"
    )
    assert "of another model" in refused(tensorrt, made.folder, picture, "--model", "floats")
    assert "no model nine" in refused(tensorrt, made.folder, picture, "--model", "nine")
    for content in ("[]", "{", '{"schema": 1}'):
        engine.with_name(engine.name + ".json").write_text(content)
        assert "nothing beside it says" in refused(tensorrt, made.folder, picture)
    engine.with_name(engine.name + ".json").unlink()
    assert "nothing beside it says" in refused(tensorrt, made.folder, picture)


def test_where_two_models_have_engines_one_must_be_named(
    tensorrt: Path,
    board: Any,
    made: MadeBundle,
    photographs: list[Path],
    predicted: Callable[..., str],
) -> None:
    built(made)
    built(made, "floats")
    assert "name one with --model" in refused(tensorrt, made.folder, photographs[0])
    for model in ("bytes", "floats"):
        wanted = predicted(made.folder, photographs[0], "--model", model)
        assert run(tensorrt, made.folder, photographs[0], "--model", model)[1] == wanted


def test_a_damaged_engine_and_a_full_gpu_are_one_paragraph_and_give_all_back(
    tensorrt: Path, board: Any, made: MadeBundle, photographs: list[Path]
) -> None:
    engine = built(made)
    for name in ("cudaGetDeviceProperties", "cudaMalloc", "cudaStreamSynchronize"):
        assert "out of memory" in refused(
            tensorrt, made.folder, photographs[0], FAKE_CUDA_FAIL=name
        )
    assert "failed to run" in refused(tensorrt, made.folder, photographs[0], FAKE_TENSORRT_FAIL="1")
    engine.write_bytes(b"damaged")
    edited(engine, engine_sha256=None)
    code, out, err = run(tensorrt, made.folder, photographs[0])
    assert (code, out) == (2, "") and "TensorRT: the engine is damaged\n" in err
    assert "TensorRT cannot read" in err


def test_the_program_compiles_against_nvidias_own_headers() -> None:
    json_header()
    gpu, folders = cuda_headers(), [Path(p) for p in os.environ.get("TENSORRT_INCLUDE", "").split()]
    folders += [p.parent for p in Path("/usr/include").glob("*-linux-gnu/NvInfer.h")]
    if not folders:
        pytest.skip("this machine has no TensorRT, or its headers are not in TENSORRT_INCLUDE")
    for folder in folders:
        system = ["-isystem", folder, "-isystem", gpu]
        source = EXAMPLES / "tensorrt" / "classify.cpp"
        subprocess.run([*COMPILE, "-fsyntax-only", *system, source], check=True)
