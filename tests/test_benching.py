"""`edgedistill bench`: what is measured, for which device, with which kit, and what a person sees of it."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from board import Board, write_program
from filelock import FileLock
from ontarget.contract import load_bundle
from rich.console import Console
from small_bundle import small_bundle, small_model, two_models

from edgedistill import benching
from edgedistill.benching import BenchRequest, bench
from edgedistill.deploy.bundle import kit_bytes
from edgedistill.errors import BusyError, UsageError
from edgedistill.evidence.bench import FakeTarget, read_kit
from edgedistill.evidence.board.travel import travelling
from edgedistill.latencyresult import Comparison
from edgedistill.progress import Face, silent
from edgedistill.result import load
from tests.build_parts import tool
from tests.ontarget.conftest import build
from tests.test_recording import make_run

FAST = ("--quick", "--threads", "1")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bench"), device="raspberry-pi-5")


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    found = Board(tmp_path / "board")
    found.start()
    monkeypatch.setenv("PATH", found.client_path)
    yield found
    found.stop()


def test_a_bundle_is_timed_here_for_its_own_device_and_says_what_that_is_worth(
    bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "kit.json"
    ran = tool("bench", bundle, *FAST, "--json", out)
    assert ran.code == 0, ran.err
    assert "small for raspberry-pi-5, measured on" in ran.text
    assert "Evidence: on a proxy, as this machine gives no board name" in ran.text
    assert "measure on it, with --target ssh://user@board" in ran.text
    (row,) = json.loads(out.read_text())["rows"]
    assert row["threads"] == 1 and str(f"{row['n']:,}") in ran.out and row["tier"] == "quick"


def test_an_older_kit_in_a_bundle_is_not_the_one_that_measures_and_stays_as_it_is(
    bundle: Path, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(bundle, tmp_path / "old"))
    (old / "ontarget.pyz").write_bytes(b"an older kit")
    found = bench(BenchRequest(old, threads="1", tier="quick"), silent())
    assert found.rows["float32"][0].p50_s is not None
    assert (old / "ontarget.pyz").read_bytes() == b"an older kit"
    assert sorted(p.name for p in old.iterdir()) == sorted(p.name for p in bundle.iterdir())
    assert kit_bytes() == (bundle / "ontarget.pyz").read_bytes()


def test_a_bare_file_is_timed_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(small_model())
    found = bench(BenchRequest(path, threads="1", tier="quick"), silent())
    ((name, (row,)),) = found.rows.items()
    assert (found.name, found.device, name) == ("net", "host", "float32")
    assert row.evidence == "measured_on_target" and row.p50_s is not None


def test_two_files_travel_in_one_folder_and_their_ratio_is_told_with_its_interval(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pairs themselves take a minute, and are the kit's: here stands what is asked of it and what is shown."""
    path = tmp_path / "net.onnx"
    path.write_bytes(small_model(2.0))
    travelled: list[str] = []

    def answer(folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
        travelled.extend(sent.name for sent in travelling(folder))
        sides = [load_bundle(folder / "other"), load_bundle(folder)]
        old, new = (
            {
                "name": s.name,
                "file": s.models[0].file,
                "sha256": s.models[0].sha256,
                "p50_s": p,
                "n": 640,
            }
            for s, p in zip(sides, (0.001, 0.0011), strict=True)
        )
        return {
            "machine": {"cpu": "Cortex-A76"},
            "compare": {
                "old": old, "new": new, "ratio": 1.1, "low": 1.08, "high": 1.12, "confidence": 0.99,
                "ratios": [1.1] * 10, "runtime": "onnxruntime", "provider": "CPUExecutionProvider",
                "threads": 2, "batch": 1, "warnings": [],
            },
        }  # fmt: skip

    target = FakeTarget(answer)
    monkeypatch.setattr(benching, "Here", lambda: target)
    out = tmp_path / "c.json"
    ran = tool("bench", path, "--compare", bundle, "--quick", "--threads", "2", "--json", out)
    assert ran.code == 0, ran.err
    ((_, arguments),) = target.calls
    assert arguments[:3] == ("compare", "--other", "other") and "--quick" in arguments
    assert "model.float32.onnx" in travelled and "other/model.float32.onnx" in travelled
    assert "10.0 % slower: ratio 1.100, 99 % interval 1.080 to 1.120, 10 pairs" in ran.text
    assert "on a proxy" in ran.text, "no board gave its name"
    found = Comparison.model_validate_json(out.read_text())
    assert found.new.sha256 != found.old.sha256 and found.outcome(0.05) == "regress"


def test_what_cannot_be_asked_for_is_told_before_anything_runs(
    bundle: Path, tmp_path: Path
) -> None:
    for words, arguments in {
        "does not exist": [tmp_path / "none"],
        "--model int9: the bundle has float32": [bundle, "--model", "int9"],
        "exclude each other": [bundle, "--quick", "--thorough"],
        "only boards over ssh": [bundle, "--target", "board"],
        "leave --fps": [bundle, "--compare", bundle, "--fps", "30"],
        "one count of threads": [bundle, "--compare", bundle, "--threads", "1,2"],
        'unknown device "pie"': [bundle, "--device", "pie"],
    }.items():
        ran = tool("bench", *arguments)
        assert ran.code == 2 and words in ran.text, ran.text
        assert "Traceback" not in ran.err


def test_a_run_is_measured_and_its_verdict_judged_anew(bundle: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", bundle, "x86-cpu")
    before = load(run)
    ran = tool("bench", run, *FAST)
    assert ran.code == 0 and "Recorded in" in ran.text and "UNCONFIRMED" in ran.text
    after = load(run)
    assert len(after.artifacts[0].latency) == len(before.artifacts[0].latency) + 1
    assert "record_0001" in after.tables


def test_a_run_where_another_is_at_work_is_told_before_anything_is_measured(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", bundle, "x86-cpu")
    target = FakeTarget(lambda _, __: {})
    monkeypatch.setattr(benching, "Here", lambda: target)
    with FileLock(run / ".lock"):
        ran = tool("bench", run, *FAST)
    assert ran.code == BusyError.exit_code and "another edgedistill is at work" in ran.text
    assert target.calls == []


def test_what_was_measured_is_written_even_where_it_cannot_be_recorded(
    bundle: Path, tmp_path: Path
) -> None:
    """The result of the run knows another file than the bundle has: an hour of measuring must not be lost."""
    run = make_run(tmp_path / "run", bundle, "x86-cpu")
    text, result = (run / "result.json").read_text(), load(run)
    other = result.artifacts[0].model_copy(update={"sha256": "0" * 64})
    (run / "result.json").write_text(result.model_copy(update={"artifacts": [other]}).dumps())
    out = tmp_path / "kept" / "kit.json"
    ran = tool("bench", run, *FAST, "--json", out)
    assert ran.code == 2 and "times of a file that is none of" in ran.text
    assert len(read_kit(out)["rows"]) == 1
    (run / "result.json").write_text(text)
    assert tool("record", out, "--run", run).code == 0
    assert "record_0001" in load(run).tables


@pytest.mark.ssh
def test_a_run_is_measured_on_a_board_and_recorded(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", bundle, "host")
    done = subprocess.run(
        [sys.executable, "-m", "edgedistill", "bench", str(run), *FAST, "--target", board.address],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "onnxruntime" in done.stderr and "copying" in done.stderr
    row = load(run).artifacts[0].latency[-1]
    assert row.n >= 64 and row.samples == "records/0001-" + row.samples[13:]
    assert (
        row.evidence == "measured_on_proxy"
        and "another machine than the host" in row.evidence_words
    )
    assert not [p for p in board.tmp.iterdir() if p.name.startswith("edgedistill-")]


@pytest.mark.ssh
def test_a_board_that_is_no_known_device_is_told_as_such(board: Board, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(small_model())
    found = bench(BenchRequest(path, board.address, threads="1", tier="quick"), silent())
    assert found.device == "unknown" and found.rows["float32"][0].evidence == "measured_on_proxy"
    with pytest.raises(UsageError, match="engines are compared on the board itself"):
        bench(BenchRequest(path, board.address, compare=path, provider="engine"), silent())
    with pytest.raises(UsageError, match="has no tensorrt"):
        bench(BenchRequest(path, board.address, device="jetson"), silent())


@pytest.mark.ssh
def test_on_a_jetson_engines_are_built_first_and_are_there_the_next_time(
    board: Board, tmp_path: Path
) -> None:
    """With stand-ins for the CUDA driver (C, compiled here) and TensorRT's Python module on the board."""
    fakes = Path(__file__).parent / "ontarget"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so", fakes / "fake_cuda.c"], check=True
    )
    write_program(
        board.bin / "python3",
        f"export PYTHONPATH={shlex.quote(str(fakes / 'stand_in'))} LD_LIBRARY_PATH={tmp_path}\n"
        f'exec {shlex.quote(sys.executable)} "$@"\n',
    )
    made = build(tmp_path)
    made.rewrite(lambda manifest: manifest.update(device="jetson-orin-nano-8gb"))
    request = BenchRequest(made.folder, f"{board.address}/~/kept", tier="quick")
    built: list[dict[str, int]] = []
    for _ in range(2):
        found = bench(request, silent())
        (row,) = found.rows["float16"]
        assert (found.device, row.provider) == ("jetson-orin-nano-8gb", "TensorRT engine")
        assert row.n >= 64 and "gives no board name" in row.evidence_words
        engines = (board.home / "kept/bundle").glob("*.engine")
        built.append({p.name: p.stat().st_mtime_ns for p in engines})
    assert built[0] == built[1] and len(built[0]) == 1


JETSON = """
import builtins, io, os, platform
facts = {"/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\\0",
         "/proc/meminfo": "MemTotal:        7789928 kB\\n"}
real, os.cpu_count = builtins.open, lambda: 6
platform.machine = lambda: "aarch64"
def opened(path, *a, **k):
    return io.BytesIO(facts[path].encode()) if path in facts else real(path, *a, **k)
builtins.open = opened
"""


@pytest.mark.ssh
@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("15W", "--provider engine, as the numbers are for NVIDIA Jetson Orin Nano 8 GB"),
        (
            "7W",
            "--provider engine: the board is .* in power mode '7W', and it fits not exactly one of",
        ),
        (None, "--provider engine: the board is .*, its power mode cannot be read"),
    ],
)
def test_a_jetson_is_known_by_its_power_mode_and_the_choice_of_engines_is_told(
    mode: str | None, words: str, board: Board, tmp_path: Path
) -> None:
    """Its device tree, memory and cores are stood in for; TensorRT is missing there, which ends the run."""
    code = shlex.quote(JETSON)
    write_program(
        board.bin / "python3",
        f'[ "$1" = -I ] && exec {shlex.quote(sys.executable)} -I -S -u -c {code}"$5"\n'
        f'exec {shlex.quote(sys.executable)} "$@"\n',
    )
    if mode is not None:
        write_program(
            board.bin / "nvpmodel", f'[ "$1" = -q ] && echo "NV Power Mode: {mode}"; echo 0\n'
        )
    path = tmp_path / "net.onnx"
    path.write_bytes(small_model())
    console = Console(file=io.StringIO(), width=1000)
    with pytest.raises(UsageError, match="has no tensorrt"):
        bench(BenchRequest(path, board.address, tier="quick"), Face(1, console))
    assert re.search(words, console.file.getvalue()), console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.ssh
def test_a_model_that_fails_on_the_board_is_told_beside_what_was_measured(
    board: Board, tmp_path: Path
) -> None:
    found = two_models(tmp_path / "two")
    done = subprocess.run(
        [sys.executable, "-m", "edgedistill", "bench", str(found), *FAST, "--target", board.address],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert done.returncode == 3 and "not measured: other, threads 1" in done.stderr, done.stderr
    assert "float32" in done.stdout


def test_a_model_that_cannot_run_here_is_said_and_the_others_are_measured(tmp_path: Path) -> None:
    both, out = two_models(tmp_path / "two"), tmp_path / "kit.json"
    ran = tool("bench", both, *FAST, "--json", out)
    assert ran.code == 3, ran.err
    assert "not measured: other" in ran.err + ran.out
    written = json.loads(out.read_text())
    assert [row["model"] for row in written["rows"]] == ["float32"]
    assert [one["model"] for one in written["failures"]] == ["other"]


def test_a_model_that_the_older_bundle_lacks_is_not_compared_with_another_one(
    bundle: Path, tmp_path: Path
) -> None:
    both = two_models(tmp_path / "two")
    tree = json.loads((both / "manifest.json").read_text())
    tree["models"][0]["name"], tree["chosen"] = "float16", "float16"
    (both / "manifest.json").write_text(json.dumps(tree))
    with pytest.raises(
        UsageError, match="has no model 'float32' to compare with; it has float16, other"
    ):
        bench(BenchRequest(bundle, compare=both, model="float32", tier="quick"), silent())
