"""build_engine.sh against a stand-in for trtexec that refuses every option its version does not
know.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ontarget import cli

SCRIPT = Path(cli.__file__).resolve().parents[1] / "build_engine.sh"
COMMON = [
    "--onnx=",
    "--saveEngine=",
    "--minShapes=",
    "--optShapes=",
    "--maxShapes=",
    "--warmUp=",
    "--duration=",
]
KNOWN = {
    "8201": [*COMMON, "--fp16", "--int8", "--workspace="],
    "8502": [*COMMON, "--fp16", "--int8", "--memPoolSize=", "--workspace="],
    "100300": [*COMMON, "--fp16", "--int8", "--stronglyTyped", "--memPoolSize="],
    "11.1.0.106": [*COMMON, "--memPoolSize="],
}
STAND_IN = """#!/bin/sh
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] [b1] # trtexec $*"
if [ "$1" = --help ]; then printf '%s\\n' {known}; exit 0; fi
for option in "$@"; do
    ok=no
    for known in {known}; do
        case $option in "$known"*) ok=yes ;; esac
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
Build = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def build(made: Any, tmp_path: Path) -> Build:
    """Runs a copy of the script that lies in the bundle, with a stand-in of one version."""
    shutil.copy(SCRIPT, made.folder / "build_engine.sh")
    tools = tmp_path / "tools"
    tools.mkdir()

    def run(version: str | None, *arguments: str, end: str = WELL, flat: bool = False) -> Any:
        env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
        env.pop("TRTEXEC", None)
        if version is not None:
            known = " ".join(KNOWN.get(version, COMMON))
            text = STAND_IN.format(version=version, known=known, end=end)
            (tools / "trtexec").write_text(text)
            (tools / "trtexec").chmod(0o755)
        if flat:
            made.rewrite(lambda document: None)
        command = ["sh", str(made.folder / "build_engine.sh"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)

    return run


@pytest.mark.parametrize("version", ["8502", "100300", "11.1.0.106"])
@pytest.mark.parametrize("flat", [False, True], ids=["indented", "one-line"])
def test_the_float16_model_is_built_with_what_each_version_knows(
    build: Build, made: Any, tmp_path: Path, version: str, flat: bool
) -> None:
    done = build(version, flat=flat)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.float16.engine").read_text() == "engine\n"
    assert "Throughput: 1234.5 qps" in done.stdout
    log = (tmp_path / "model.float16.engine.log").read_text()
    assert "--minShapes=images:1x8x8x3 --optShapes=images:1x8x8x3" in log
    assert ("--fp16" in log) == (version == "8502")
    assert ("--stronglyTyped" in log) == (version == "100300")
    assert "--memPoolSize=workspace:1024" in log


def test_another_model_size_and_output_are_taken_from_the_options(
    build: Build, tmp_path: Path
) -> None:
    done = build("100300", "-m", "floats", "-o", "x.plan", "-w", "512")
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "x.plan.log").read_text()
    assert "images:1x3x8x8" in log and "workspace:512" in log and "model.floats.onnx" in log
    done = build("100300", "-n", "-f", "model.bytes.onnx", "-s", "pixels:1x9x9x3")
    assert "--optShapes=pixels:1x9x9x3" in done.stdout


def test_tensorrt_8_2_builds_a_float_file_with_its_old_option_and_refuses_bytes(
    build: Build, tmp_path: Path
) -> None:
    done = build("8201", "-m", "floats")
    assert done.returncode == 0, done.stderr
    assert "--workspace=1024" in (tmp_path / "model.floats.engine.log").read_text()
    done = build("8201")
    assert done.returncode == 2
    assert "takes no uint8 images" in done.stderr


def test_an_int8_file_gets_the_flag_where_there_is_one(build: Build, made: Any) -> None:
    made.rewrite(lambda d: d["models"][2].update(name="int8", precision="int8"))
    assert "--fp16 --int8" in build("8502", "-n", "-m", "int8").stdout
    assert "int8 " not in build("11.1.0.106", "-n", "-m", "int8").stdout.replace(", int8", "")


def test_a_fixed_batch_gets_no_shape_profile(build: Build, made: Any) -> None:
    made.rewrite(lambda d: d["models"][2]["input"].update(shape=[1, 8, 8, 3]))
    done = build("100300", "-n")
    assert "Shapes" not in done.stdout
    assert "images:1x8x8x3" in done.stdout


def test_class_names_do_not_confuse_the_manifest_reader(build: Build, made: Any) -> None:
    names = ['"models": [', "}{][", '"file": "model.float16.onnx"', "\\"]
    made.rewrite(lambda d: d.update(classes=names))
    done = build("100300", "-n")
    assert done.returncode == 0, done.stderr
    assert "images:1x8x8x3" in done.stdout


def test_a_build_that_fails_shows_the_errors_and_ends_with_1(build: Build, tmp_path: Path) -> None:
    done = build("100300", end='echo "[E] Error[4]: no kernel for this layer"; exit 1')
    assert done.returncode == 1
    assert "no kernel for this layer" in done.stderr
    assert "model.float16.engine.log" in done.stderr
    done = build("100300", end="exit 0")
    assert done.returncode == 1
    assert "wrote no engine" in done.stderr


@pytest.mark.parametrize(
    ("version", "arguments", "words"),
    [
        ("100300", ["-m", "none"], "no model named none"),
        ("100300", ["-w", "much"], "whole number"),
        ("100300", ["-z"], "unknown option"),
        ("100300", ["-m"], "needs a value"),
        ("100300", ["-f", "../x.onnx"], "must lie in the bundle"),
        ("100300", ["-f", "none.onnx"], "is not there"),
        ("100300", ["."], "no manifest.json"),
        ("7103", [], "too old"),
        ("what", [], "does not say which TensorRT"),
        (None, [], "no trtexec"),
    ],
    ids=str,
)
def test_a_fault_is_one_sentence_and_exit_code_2(
    build: Build, version: str | None, arguments: list[str], words: str
) -> None:
    done = build(version, *arguments)
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
