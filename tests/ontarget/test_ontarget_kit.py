"""The kit as it ships: a zipapp run by a bare Python on a real bundle; its syntax and imports."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipapp
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ontarget import bench, cli, document, saying, views
from ontarget.bench import bench_bundle, run_worker, worker_command
from ontarget.contract import ContractError, load_bundle
from ontarget.measure import Timing
from PIL import Image

PACKAGE = Path(cli.__file__).resolve().parent
SHORT = ["--min-seconds", "0", "--min-runs", "70", "--threads", "1"]
Kit = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit packed as it ships: the package and a main that calls `run`."""
    root = tmp_path_factory.mktemp("pyz")
    shutil.copytree(PACKAGE, root / "src/ontarget", ignore=shutil.ignore_patterns("__pycache__"))
    zipapp.create_archive(root / "src", root / "ontarget.pyz", main="ontarget.__main__:run")
    shutil.rmtree(root / "src")
    return root / "ontarget.pyz"


@pytest.fixture
def kit(pyz: Path, tmp_path: Path) -> Kit:
    """Runs the zipapp with no path to the sources, from an empty folder."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    (tmp_path / "elsewhere").mkdir()

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(pyz), *map(str, arguments)]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=env,
            cwd=tmp_path / "elsewhere",
            timeout=120,
        )

    return run


def test_info_tells_what_is_inside_and_strips_what_a_terminal_would_obey(
    kit: Kit, made: Any
) -> None:
    made.rewrite(lambda d: d["classes"].__setitem__(0, "\x1b[31mred\u202e"))
    done = kit("info", made.folder)
    assert done.returncode == 0, done.stderr
    assert "tiny for host" in done.stdout
    assert "bytes *" in done.stdout
    assert "?[31mred?" in done.stdout
    assert "\x1b" not in done.stdout and "\u202e" not in done.stdout
    assert "licence of the teacher: Apache-2.0" in done.stdout


def test_check_passes_a_sound_bundle(kit: Kit, shared: Any, tmp_path: Path) -> None:
    done = kit("check", shared.folder, "--json", tmp_path / "check.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ok ") == 4
    written = json.loads((tmp_path / "check.json").read_text())
    assert written["check"]["ok"] is True
    assert [row["model"] for row in written["check"]["golden"]] == ["bytes", "floats", "float16"]


def test_check_fails_a_changed_file_with_exit_code_1(kit: Kit, made: Any) -> None:
    with (made.folder / "model.bytes.onnx").open("ab") as file:
        file.write(b"\x00")
    done = kit("check", made.folder)
    assert done.returncode == 1
    assert "FAIL  model.bytes.onnx is not the file that was packed" in done.stdout


def test_check_fails_wrong_outputs_with_exit_code_1(kit: Kit, made: Any) -> None:
    path = made.folder / "golden.npz"
    arrays = dict(np.load(path))
    arrays["logits_floats"] = arrays["logits_floats"] + np.float32(0.1)
    np.savez(path, **arrays)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    made.rewrite(lambda d: d["golden"].update(sha256=digest))
    done = kit("check", made.folder)
    assert done.returncode == 1
    assert "FAIL  floats on CPUExecutionProvider" in done.stdout
    assert "ok    bytes on CPUExecutionProvider" in done.stdout


def test_bench_measures_each_model_in_a_fresh_process(
    kit: Kit, shared: Any, tmp_path: Path
) -> None:
    done = kit("bench", shared.folder, *SHORT, "--json", tmp_path / "bench.json")
    assert done.returncode == 0, done.stderr
    assert "p99 needs 662 runs, has 70" in done.stdout
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["schema"] == "edgedistill.kit/1"
    manifest = (shared.folder / "manifest.json").read_bytes()
    assert written["bundle"]["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    rows = written["rows"]
    assert [row["model"] for row in rows] == ["bytes", "floats", "float16"]
    for row in rows:
        assert (row["provider"], row["threads"], row["batch"]) == ("CPUExecutionProvider", 1, 1)
        assert (row["runtime"], row["inputs"]) == ("onnxruntime", "golden images")
        assert row["n"] == len(row["samples_s"]) == 70
        assert 0 < row["p50_s"] <= row["p90_s"] <= max(row["samples_s"]) + 1e-9
        assert row["p99_s"] is None
        assert row["load_s"] > 0 and row["first_run_s"] > 0
        assert 0 < row["peak_rss_bytes"] < row["empty_rss_bytes"]
    assert written["eval"] == [] and written["failures"] == []
    assert written["machine"]["python"] == sys.version.split()[0]


def test_bench_of_one_model_takes_given_images_and_a_batch(
    kit: Kit, shared: Any, tmp_path: Path
) -> None:
    arguments = ["--model", "floats", "--images", shared.evalset / "pixels.npy", "--batch", "4"]
    done = kit("bench", shared.folder, *SHORT, *arguments, "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert (row["model"], row["batch"], row["inputs"]) == ("floats", 4, "given images")


def test_bench_goes_on_after_a_model_that_cannot_run_and_ends_with_its_code(
    kit: Kit, made: Any, tmp_path: Path
) -> None:
    path = made.folder / "model.bytes.onnx"
    path.write_bytes(b"nonsense")
    digest = hashlib.sha256(b"nonsense").hexdigest()
    made.rewrite(lambda d: d["models"][0].update(sha256=digest, size_bytes=8))
    done = kit("bench", made.folder, *SHORT, "--json", tmp_path / "b.json")
    assert done.returncode == 2
    assert "bytes, threads 1: model.bytes.onnx cannot be opened" in done.stderr
    assert "Traceback" not in done.stderr
    written = json.loads((tmp_path / "b.json").read_text())
    assert [row["model"] for row in written["rows"]] == ["floats", "float16"]
    assert written["failures"][0]["model"] == "bytes"


def test_bench_refuses_a_provider_that_is_not_there(kit: Kit, shared: Any) -> None:
    done = kit("bench", shared.folder, "--provider", "tensorrt", "--model", "bytes", *SHORT)
    assert done.returncode == 2
    assert "the provider tensorrt is not in this onnxruntime" in done.stderr


def test_a_graph_of_one_batch_size_is_measured_with_it_or_refused(kit: Kit, made: Any) -> None:
    made.rewrite(lambda d: d["models"][0]["input"].update(shape=[2, 8, 8, 3]))
    done = kit("bench", made.folder, "--model", "bytes", *SHORT)
    assert done.returncode == 2
    assert "use --batch 2" in done.stderr
    assert kit("bench", made.folder, "--model", "bytes", "--batch", "2", *SHORT).returncode == 0


def test_eval_gives_the_top1_of_every_model_and_its_logits(
    kit: Kit, shared: Any, tmp_path: Path
) -> None:
    files = ["--json", tmp_path / "e.json", "--logits", tmp_path / "logits.npz"]
    done = kit("eval", shared.folder, "--threads", "1", *files)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "e.json").read_text())["eval"]
    assert rows[0] == {"model": "bytes", "n": 40, "correct": 36, "top1": 0.9}
    assert [row["model"] for row in rows] == ["bytes", "floats", "float16"]
    logits = np.load(tmp_path / "logits.npz")
    assert sorted(logits.files) == ["logits_bytes", "logits_float16", "logits_floats"]
    assert (logits["logits_floats"].argmax(axis=1) == shared.labels).sum() == 36
    assert "90.00" in done.stdout


def test_eval_of_images_without_labels_gives_logits_and_no_accuracy(
    kit: Kit, shared: Any, tmp_path: Path
) -> None:
    files = ["--images", shared.evalset / "pixels.npy", "--logits", tmp_path / "l.npz"]
    done = kit("eval", shared.folder, "--model", "bytes", *files, "--json", tmp_path / "e.json")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "l.npz")["logits_bytes"].shape == (40, 4)
    (row,) = json.loads((tmp_path / "e.json").read_text())["eval"]
    assert row == {"model": "bytes", "n": 40, "correct": None, "top1": None}


def test_predict_names_the_class_of_a_picture(kit: Kit, shared: Any, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (0, 0, 255)).save(tmp_path / "sky.png")
    done = kit("predict", tmp_path / "sky.png", shared.folder, "--json", tmp_path / "p.json")
    assert done.returncode == 0, done.stderr
    assert "blue?sky" in done.stdout.splitlines()[0]
    top = json.loads((tmp_path / "p.json").read_text())["predictions"]["top"]
    assert top[0]["class"] == "blue\nsky"
    assert sum(row["probability"] for row in top) == pytest.approx(1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "{tmp}/none.jpg", "{bundle}"],
        ["predict", "{bundle}/manifest.json", "{bundle}"],
        ["info", "{tmp}"],
        ["bench", "{bundle}", "--model", "nothing"],
        ["bench", "{bundle}", "--threads", "x"],
        ["bench", "{bundle}", "--min-seconds", "nan"],
        ["eval", "{bundle}", "--evalset", "{tmp}"],
        ["eval", "{bundle}", "--images", "{bundle}/manifest.json"],
        ["info", "{bundle}", "--json", "{tmp}/no/such/folder/x.json"],
        ["fly"],
        [],
    ],
    ids=str,
)
def test_a_fault_of_the_user_is_a_paragraph_and_exit_code_2(
    kit: Kit, shared: Any, tmp_path: Path, arguments: list[str]
) -> None:
    done = kit(*[a.format(tmp=tmp_path, bundle=shared.folder) for a in arguments])
    assert done.returncode == 2
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_help_has_examples_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("info", "check", "bench", "eval", "predict"):
        with pytest.raises(SystemExit) as ended:
            cli.main([command, "--help"])
        assert ended.value.code == 0
        assert f"python3 ontarget.pyz {command} " in capsys.readouterr().out


def test_the_version_is_printed(kit: Kit) -> None:
    assert kit("--version").stdout == "ontarget 0.1.0\n"


def test_an_interrupted_bench_ends_with_3_and_leaves_no_file(
    pyz: Path, shared: Any, tmp_path: Path
) -> None:
    command = [sys.executable, str(pyz), "bench", str(shared.folder), "--min-seconds", "60"]
    running = subprocess.Popen(
        [*command, "--json", str(tmp_path / "b.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    until = time.monotonic() + 20
    while time.monotonic() < until and not (children.exists() and children.read_text().strip()):
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 3
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_the_bundle_is_measured_from_the_package_too(shared: Any) -> None:
    told: list[str] = []
    rows, failures = bench_bundle(
        load_bundle(shared.folder),
        ["bytes"],
        threads=(1, 1),
        timing=Timing(0.0, 11, 0.0),
        progress=told.append,
    )
    assert failures == []
    assert [(row["n"], row["threads"]) for row in rows] == [(11, 1)]
    assert told == ["bench 1 of 1: bytes, cpu, threads 1"]
    with pytest.raises(ContractError, match="no model"):
        bench_bundle(load_bundle(shared.folder), ["nothing"])


def test_a_process_that_dies_is_a_failure_with_its_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(bench, "worker_command", lambda: ([sys.executable, "-c", script], "."))
    reply = run_worker({}, 1, 30)
    assert (reply["ok"], reply["exit_code"]) == (False, 3)
    assert "SIGKILL (out of memory?)" in reply["text"]
    quick = [sys.executable, "-c", "print('no reply')"]
    monkeypatch.setattr(bench, "worker_command", lambda: (quick, "."))
    assert "exit code 0" in run_worker({}, 1, 30)["text"]
    slow = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(bench, "worker_command", lambda: (slow, "."))
    assert "did not end within 0.5 s" in run_worker({}, 1, 0.5)["text"]


def test_a_worker_waits_without_spinning_and_takes_nothing_from_the_working_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "relative")
    env = bench.worker_environment(3)
    assert (env["OMP_WAIT_POLICY"], env["GOMP_SPINCOUNT"], env["OMP_NUM_THREADS"]) == (
        "PASSIVE",
        "0",
        "3",
    )
    assert env["PYTHONPATH"] == str(Path("relative").absolute())
    command, folder = worker_command()
    assert command == [sys.executable, "-m", "ontarget", "_worker"]
    assert folder == str(PACKAGE.parent)


def test_documents_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    document.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        document.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}

    def broken(file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        document._atomically(path, broken)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_ends_with_3_and_a_sentence(
    shared: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, value: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(saying, "write_json", full)
    assert cli.main(["info", str(shared.folder), "--json", "x.json"]) == 3
    assert "x.json: No space left on device." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0000123, "0.012"),
        (0.00123456, "1.23"),
        (0.0123456, "12.3"),
        (1.23456, "1235"),
    ],
)
def test_milliseconds_have_three_digits(seconds: float | None, text: str) -> None:
    assert views.milliseconds(seconds) == text


def test_progress_is_for_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saying.progress("hidden")
    assert capsys.readouterr().err == ""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    saying.progress("seen")
    assert terminal.getvalue().endswith("seen")


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_every_file_is_python_3_8_and_imports_only_what_a_board_has(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    body = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    future = {
        a.name
        for n in body
        if isinstance(n, ast.ImportFrom) and n.module == "__future__"
        for a in n.names
    }
    assert "annotations" in future or path.name == "__init__.py"
    runtime = {"PIL", "onnxruntime"}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in {"removeprefix", "removesuffix"}
            assert not any(keyword.arg == "strict" for keyword in node.keywords)
        for name in names:
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names | {"numpy", "ontarget"} | runtime
            assert not (top in runtime and node in tree.body)


def test_importing_the_kit_loads_neither_runtime_nor_pillow() -> None:
    script = (
        "import sys, ontarget.cli, ontarget.worker\n"
        "bad = {'torch', 'edgedistill', 'onnxruntime', 'PIL'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(bad)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_numpy_is_one_sentence_with_the_command(pyz: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(pyz), "info"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr == "ontarget needs numpy, which is not installed: run  pip install numpy\n"
