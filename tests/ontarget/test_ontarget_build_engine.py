"""build_engine.sh against a stand-in for trtexec that refuses every option which the parser of its release does not
ask for (trtexec_options.json, taken from each release's own source).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ontarget import cli

from tests.ontarget.conftest import _graph

SCRIPT = Path(cli.__file__).resolve().parents[1] / "build_engine.sh"
RELEASES = json.loads(Path(__file__).with_name("trtexec_options.json").read_text())["releases"]
BANNERS = {
    "8.2.1": "8201", "8.5.2": "8502", "8.6.1": "8601", "10.3.0": "100300", "11.1.0": "110100",
}  # fmt: skip
STAND_IN = """#!/bin/sh
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v{banner}] [b1] # trtexec $*"
if [ "$1" = --help ]; then printf -- '--%s\\n' {known}; exit 0; fi
for option in "$@"; do
    ok=no
    for known in {known}; do
        case $option in --"$known" | --"$known"=*) ok=yes ;; esac
    done
    [ $ok = yes ] || {{ echo "[E] Unknown option: $option"; exit 1; }}
    case $option in --saveEngine=*) out=${{option#--saveEngine=}} ;; esac
done
{end}
"""
WELL = """echo engine > "$out"
echo "[11/01/2026-10:00:00] [I] Throughput: 1234.5 qps"
echo "[11/01/2026-10:00:00] [I] Latency: min = 0.7 ms, max = 1 ms, percentile(99%) = 0.9 ms"
"""
ORIN = {
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
    "proc/meminfo": "MemTotal: 7990096 kB\nMemFree: 100 kB\nMemAvailable: 3145728 kB\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "624750000\n",
}
Build = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def build(made: Any, tmp_path: Path) -> Build:
    """Runs a copy of the script that lies in the bundle, with a stand-in of one release, on a board of given files."""
    shutil.copy(SCRIPT, made.folder / "build_engine.sh")
    tools, root = tmp_path / "tools", tmp_path / "root"
    tools.mkdir()
    root.mkdir()

    def tool(name: str, text: str) -> None:
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)

    def run(
        release: str | None,
        *arguments: str,
        end: str = WELL,
        banner: str | None = None,
        flat: bool = False,
        board: dict[str, str] | None = None,
        tools_too: dict[str, str] | None = None,
    ) -> Any:
        env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "BOARD_ROOT": str(root)}
        env.pop("TRTEXEC", None)
        if release is not None:
            known = " ".join(RELEASES[release]["options"])
            tool(
                "trtexec", STAND_IN.format(banner=banner or BANNERS[release], known=known, end=end)
            )
        for name, text in (tools_too or {}).items():
            tool(name, text)
        for name, text in (board or {}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        if flat:
            made.rewrite(lambda document: None)
        command = ["sh", str(made.folder / "build_engine.sh"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)

    return run


def sha(made: Any, model: str = "float16") -> str:
    entry = next(m for m in made.manifest()["models"] if m["name"] == model)
    return hashlib.sha256((made.folder / entry["file"]).read_bytes()).hexdigest()


@pytest.mark.parametrize("release", [name for name in RELEASES if name != "8.2.1"])
@pytest.mark.parametrize("flat", [False, True], ids=["indented", "one-line"])
def test_the_float16_model_is_built_with_what_each_release_knows(
    build: Build, made: Any, tmp_path: Path, release: str, flat: bool
) -> None:
    done = build(release, flat=flat)
    assert done.returncode == 0, done.stderr
    engine = f"float16-{sha(made)[:8]}-trt{release}.engine"
    assert (tmp_path / engine).read_text() == "engine\n"
    assert "Throughput: 1234.5 qps" in done.stdout
    log = (tmp_path / f"{engine}.log").read_text()
    assert "--minShapes=images:1x8x8x3 --optShapes=images:1x8x8x3" in log
    assert ("--fp16" in log) == release.startswith("8")
    assert ("--stronglyTyped" in log) == (release == "10.3.0")
    assert (
        "--memPoolSize=workspace:1024" in log
        and f"--timingCacheFile=timing-trt{release}-sm.cache" in log
    )


def test_an_engine_says_what_it_is_of_and_how_the_board_was_set(
    build: Build, made: Any, tmp_path: Path
) -> None:
    nvpmodel = "#!/bin/sh\necho 'NV Power Mode: MAXN_SUPER'\necho 2\n"
    done = build("10.3.0", "-m", "float16", board=ORIN, tools_too={"nvpmodel": nvpmodel})
    assert done.returncode == 0, done.stderr
    engine = tmp_path / f"float16-{sha(made)[:8]}-trt10.3.0-sm87-l4t36.4.3.engine"
    found = json.loads(engine.with_name(engine.name + ".json").read_text())
    assert found.pop("seconds") >= 0
    assert found == {
        "schema": "ontarget.engine/1", "model": "float16", "onnx_sha256": sha(made),
        "engine_sha256": hashlib.sha256(b"engine\n").hexdigest(), "precision": "float16",
        "input": "images:1x8x8x3", "tensorrt": "10.3.0", "sm": "8.7", "l4t": "36.4.3",
        "gpu": "NVIDIA Jetson Orin Nano", "dla_core": None, "power_mode": "MAXN_SUPER", "gpu_clock_hz": 624750000,
        "workspace_mib": 768,
    }  # fmt: skip


def test_an_engine_that_is_there_is_not_built_again_unless_that_is_asked_for(
    build: Build, tmp_path: Path
) -> None:
    assert build("10.3.0").returncode == 0
    (engine,) = tmp_path.glob("*.engine")
    engine.write_text("mine")
    done = build("10.3.0", end="exit 9")
    assert done.returncode == 0 and "is there already" in done.stdout
    assert engine.read_text() == "mine"
    assert build("10.3.0", "-r").returncode == 0 and engine.read_text() == "engine\n"
    assert build("8.6.1").returncode == 0 and len(list(tmp_path.glob("*.engine"))) == 2
    assert "batch4.engine" in build("10.3.0", "-s", "images:4x8x8x3").stdout


def test_an_engine_of_a_given_name_is_not_taken_for_another_model(build: Build) -> None:
    assert build("10.3.0", "-o", "e.engine").returncode == 0
    assert "is there already" in build("10.3.0", "-o", "e.engine").stdout
    assert "built e.engine" in build("10.3.0", "-o", "e.engine", "-m", "floats").stdout
    assert "built e.engine" in build("8.6.1", "-o", "e.engine", "-m", "floats").stdout
    again = build("8.6.1", "-o", "e.engine", "-m", "floats", board=ORIN)
    assert "built e.engine" in again.stdout, "another board"


def test_nothing_is_complained_of_where_a_board_has_no_such_files(
    build: Build, tmp_path: Path
) -> None:
    done = build("10.3.0", "-w", "0512")
    assert done.returncode == 0 and done.stderr == ""
    (about,) = tmp_path.glob("*.engine.json")
    assert json.loads(about.read_text())["workspace_mib"] == 512


def test_a_dla_core_is_asked_for_with_the_gpu_behind_it(build: Build, tmp_path: Path) -> None:
    for release in ("8.2.1", "10.3.0", "11.1.0"):
        done = build(release, "-d", "1", "-m", "floats", board=ORIN)
        assert done.returncode == 0, done.stderr
        assert f"trt{release}-sm87-l4t36.4.3-dla1.engine" in done.stdout
        (log,) = tmp_path.glob(f"*trt{release}*.log")
        words = log.read_text()
        assert "--useDLACore=1 --allowGPUFallback" in words and "--stronglyTyped" not in words


@pytest.mark.parametrize(
    ("chip", "sm"),
    [("tegra210", "53"), ("tegra186", "62"), ("tegra194", "72"), ("tegra264", "110")],
)
def test_each_jetson_is_known_by_its_chip(build: Build, chip: str, sm: str) -> None:
    done = build("10.3.0", "-n", board={"proc/device-tree/compatible": f"x\0nvidia,{chip}\0"})
    assert f"-trt10.3.0-sm{sm}.engine" in done.stdout


def test_a_pc_is_known_by_its_driver_and_one_without_by_nothing(build: Build) -> None:
    smi = "#!/bin/sh\necho 8.9\necho 8.6\n"
    assert "-sm89.engine" in build("10.3.0", "-n", tools_too={"nvidia-smi": smi}).stdout
    broken = "#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n"
    assert "-trt10.3.0.engine" in build("10.3.0", "-n", tools_too={"nvidia-smi": broken}).stdout


@pytest.mark.parametrize(
    ("available", "mib"), [(100, 64), (4_194_304, 1024), (64_000_000, 2048)]
)  # fmt: skip
def test_the_workspace_is_a_quarter_of_the_free_memory_in_bounds(
    build: Build, available: int, mib: int
) -> None:
    board = {"proc/meminfo": f"MemTotal: 9 kB\nMemAvailable: {available} kB\n"}
    assert f"workspace:{mib} " in build("10.3.0", "-n", board=board).stdout


def test_another_model_size_and_output_are_taken_from_the_options(
    build: Build, tmp_path: Path
) -> None:
    done = build("10.3.0", "-m", "floats", "-o", "x.plan", "-w", "512")
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "x.plan.log").read_text()
    assert "images:1x3x8x8" in log and "workspace:512" in log and "model.floats.onnx" in log
    done = build("10.3.0", "-n", "-f", "model.bytes.onnx", "-s", "pixels:1x9x9x3")
    assert "--optShapes=pixels:1x9x9x3" in done.stdout


def test_tensorrt_8_2_builds_a_float_file_with_its_old_option_and_refuses_bytes(
    build: Build, tmp_path: Path
) -> None:
    done = build("8.2.1", "-m", "floats")
    assert done.returncode == 0, done.stderr
    (log,) = tmp_path.glob("*.log")
    assert "--workspace=1024" in log.read_text()
    done = build("8.2.1")
    assert done.returncode == 2
    assert "takes no uint8 images" in done.stderr


def test_an_int8_file_gets_the_flag_where_there_is_one(build: Build, made: Any) -> None:
    made.rewrite(lambda d: d["models"][2].update(name="int8", precision="int8"))
    for release in RELEASES:
        if release != "8.2.1":
            flags = "--fp16 --int8 " in build(release, "-n", "-m", "int8").stdout
            assert flags == release.startswith("8"), release


def test_a_release_that_writes_its_version_with_dots_is_read_too(build: Build) -> None:
    done = build("11.1.0", "-n", banner="11.1.0.106")
    assert done.returncode == 0 and "-trt11.1.0.engine" in done.stdout


def test_a_fixed_batch_gets_no_shape_profile(build: Build, made: Any) -> None:
    made.rewrite(lambda d: d["models"][2]["input"].update(shape=[1, 8, 8, 3]))
    done = build("10.3.0", "-n")
    assert "Shapes" not in done.stdout
    assert "images:1x8x8x3" in done.stdout


def test_class_names_do_not_confuse_the_manifest_reader(build: Build, made: Any) -> None:
    names = ['"models": [', "}{][", '"file": "model.float16.onnx"', "\\"]
    made.rewrite(lambda d: d.update(classes=names))
    done = build("10.3.0", "-n")
    assert done.returncode == 0, done.stderr
    assert "images:1x8x8x3" in done.stdout


def test_a_build_that_fails_shows_the_errors_leaves_no_engine_and_ends_with_1(
    build: Build, tmp_path: Path
) -> None:
    half = 'echo half > "$out"; echo "[E] Error[4]: no kernel for this layer"; exit 1'
    done = build("10.3.0", end=half)
    assert done.returncode == 1
    assert "no kernel for this layer" in done.stderr
    assert "float16-" in done.stderr and ".engine.log" in done.stderr
    assert not list(tmp_path.glob("*.engine")) and not list(tmp_path.glob("*.json"))
    done = build("10.3.0", end="exit 0")
    assert done.returncode == 1
    assert "wrote no engine" in done.stderr


def test_a_file_that_is_not_the_one_that_was_packed_is_not_built(build: Build, made: Any) -> None:
    path = made.folder / "model.float16.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    done = build("10.3.0")
    assert done.returncode == 2 and "is not the file that was packed" in done.stderr


@pytest.mark.parametrize(
    ("release", "banner", "arguments", "words"),
    [
        ("10.3.0", None, ["-m", "none"], "no model named none"),
        ("10.3.0", None, ["-w", "much"], "whole number"),
        ("10.3.0", None, ["-d", "gpu"], "the number of a DLA core"),
        ("10.3.0", None, ["-z"], "unknown option"),
        ("10.3.0", None, ["-m"], "needs a value"),
        ("10.3.0", None, ["-f", "../x.onnx"], "must lie in the bundle"),
        ("10.3.0", None, ["-f", "none.onnx"], "is not there"),
        ("10.3.0", None, ["."], "no manifest.json"),
        ("10.3.0", "7103", [], "too old"),
        ("10.3.0", "what", [], "does not say which TensorRT"),
        (None, None, [], "no trtexec"),
    ],
    ids=str,
)
def test_a_fault_is_one_sentence_and_exit_code_2(
    build: Build, release: str | None, banner: str | None, arguments: list[str], words: str
) -> None:
    done = build(release, *arguments, banner=banner)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_is_printed_without_a_bundle(tmp_path: Path) -> None:
    done = subprocess.run(["sh", str(SCRIPT), "-h"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0
    assert "examples:" in done.stdout


def test_shellcheck_has_nothing_to_say() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        ["shellcheck", "-s", "sh", "-f", "json", str(SCRIPT)], capture_output=True, text=True
    )
    assert json.loads(done.stdout) == []


# -- what is broken or hostile ---------------------------------------------------------------------


def _link(folder: Path, entry: dict[str, Any]) -> None:
    path = folder / entry["file"]
    path.rename(folder.parent / "elsewhere.onnx")
    path.symlink_to(folder.parent / "elsewhere.onnx")


def _repack(data: bytes) -> Callable[[Path, dict[str, Any]], None]:
    def apply(folder: Path, entry: dict[str, Any]) -> None:
        (folder / entry["file"]).write_bytes(data)
        entry["sha256"] = hashlib.sha256(data).hexdigest()

    return apply


def _outside(key: bytes) -> bytes:
    """A file whose tensor lies in another one; the entry's key is written as given."""
    whole = _graph("uint8_nhwc", "float16").SerializeToString()
    for number in (b"\x6a", b"\x2a", b"\x3a"):  # an entry of a tensor of a graph of a model
        key = number + bytes([len(key)]) + key
    return whole + key


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_repack(b""), "is empty"),
        (_repack(_outside(b"\x0a\x08location\x12\x0b/etc/passwd")), "keeps weights in another file"),
        (_repack(_outside(b"\x12\x0b/etc/passwd\x0a\x88\x80\x00location")), "keeps weights in another file"),
        (_link, "is a link that leaves the bundle"),
        (lambda folder, entry: entry.update(sha256=""), "states no sha256"),
        (lambda folder, entry: entry.update(sha256="0" * 64), "is not the file that was packed"),
        (lambda folder, entry: entry.update(file="../x.onnx"), "must lie in the bundle"),
        (lambda folder, entry: entry.update(name="../../x"), "a name that is none"),
    ],
    ids=["empty", "outside", "drawn-out", "link", "unhashed", "changed", "path", "name"],
)  # fmt: skip
def test_a_broken_or_hostile_file_does_not_reach_trtexec(
    build: Build, made: Any, tmp_path: Path, edit: Any, words: str
) -> None:
    made.rewrite(lambda document: edit(made.folder, document["models"][2]))
    done = build(
        "10.3.0", *(["-f", "model.float16.onnx"] if words == "a name that is none" else [])
    )
    assert done.returncode == 2, done.stdout
    assert words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("*.engine*"))


def test_a_file_may_say_location_where_no_tensor_does(build: Build, made: Any) -> None:
    model = _graph("uint8_nhwc", "float16")
    model.doc_string = "location\nlocation"
    model.graph.name = "allocation/location/Conv"
    made.rewrite(
        lambda document: _repack(model.SerializeToString())(made.folder, document["models"][2])
    )
    assert build("10.3.0").returncode == 0
