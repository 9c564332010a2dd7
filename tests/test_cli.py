"""The command line: help, exit codes, one paragraph for each fault, and no heavy import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from edgedistill import __version__, cli
from edgedistill.errors import StoppedError

sys.path.insert(0, str(Path(__file__).parent / "evidence"))
from evidence_samples import make_result

HEAVY = ("torch", "torchvision", "timm", "diffusers", "transformers", "accelerate", "onnx",
         "onnxruntime", "huggingface_hub")  # fmt: skip
HOME = Path(__file__).parent.parent


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


ALL = dict(_commands(typer.main.get_command(cli.app)))
ENDS = {path: command for path, command in ALL.items() if not hasattr(command, "commands")}


class Ended:
    """How a call of `main` in this process ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


class Call:
    """Calls `edgedistill` in this process, in an empty folder."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.patch, self.capture = patch, capture

    def __call__(self, *args: str | Path) -> Ended:
        self.patch.setattr(sys, "argv", ["edgedistill", *map(str, args)])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        out, err = self.capture.readouterr()
        return Ended(int(code or 0), out, err)

    def fault(self, *args: str | Path, code: int = 2) -> str:
        """The one paragraph of a fault of the user."""
        ended = self(*args)
        assert ended.code == code, ended.out + ended.err
        assert ended.out == ""
        told = ended.err.partition("edgedistill: ")
        assert told[1]
        assert all(line.startswith("[ ") for line in told[0].splitlines())
        assert "Traceback" not in ended.err
        assert ended.err.count("\n\n") == 0
        return ended.err


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("GOMP_SPINCOUNT", "20000")
    monkeypatch.setattr("edgedistill.athand.hub_answers", lambda: False)
    return Call(monkeypatch, capsys)


def _run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgedistill", *args],
        capture_output=True, text=True, check=False, timeout=120, cwd=HOME,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **env},
    )  # fmt: skip


# -- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", list(ALL), ids=" ".join)
def test_every_command_has_a_sentence_of_help(path: tuple[str, ...], call: Call) -> None:
    ended = call(*path, "--help")
    assert ended.code == 0
    assert ended.err == ""
    assert f"Usage: edgedistill {' '.join(path)}".strip() in ended.out
    assert (ALL[path].help or "").rstrip().endswith(".")


@pytest.mark.parametrize("path", list(ENDS), ids=" ".join)
def test_every_command_ends_its_help_with_an_example_of_itself(
    path: tuple[str, ...], call: Call
) -> None:
    assert (ENDS[path].epilog or "").startswith(f"Example:  edgedistill {' '.join(path)}")
    assert "Example:" in call(*path, "--help").out


@pytest.mark.parametrize("path", list(ENDS), ids=" ".join)
def test_every_option_of_a_command_is_explained(path: tuple[str, ...]) -> None:
    for param in ENDS[path].params:
        assert getattr(param, "help", None), f"{' '.join(path)}: {param.name}"


@pytest.mark.parametrize(
    "path", [path for path, command in ENDS.items() if command.epilog], ids=" ".join
)
def test_the_example_of_a_command_uses_options_that_exist(path: tuple[str, ...]) -> None:
    words = ENDS[path].epilog.removeprefix("Example:").split()[1 + len(path) :]
    known = {option for param in ENDS[path].params for option in param.opts}
    assert {word for word in words if word.startswith("-")} <= known


def test_the_issue_s_options_of_build_are_all_there() -> None:
    wanted = "data teacher device latency-ms size-mb memory-mb min-top1 max-drop student provider " \
        "out set fresh until dry-run quick seed strict verbose quiet"  # fmt: skip
    options = {option for param in ENDS[("build",)].params for option in param.opts}
    assert {f"--{name}" for name in wanted.split()} <= options


def test_the_version_is_said(call: Call) -> None:
    assert call("--version").out == f"edgedistill {__version__}\n"


# -- what is imported ----------------------------------------------------------------------------

ASK = """
import sys
sys.argv = ["edgedistill", *sys.argv[1:]]
from edgedistill.cli import main
try:
    main()
except SystemExit as end:
    print("\\ncode", end.code or 0)
print("modules", *sorted(sys.modules))
"""
LIGHT = ["--help", "plan --help", "build --help", "report --help", "doctor --help",
         "teacher verify --help", "export --help", "check --help", "bundle verify --help",
         "devices list", "devices show jetson"]  # fmt: skip


@pytest.mark.parametrize("words", LIGHT)
def test_what_only_tells_something_imports_nothing_heavy(words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK, *words.split()], capture_output=True, text=True, check=True
    )
    text, _, modules = done.stdout.rpartition("\nmodules ")
    assert "code 0" in text or "device" in text
    assert not set(HEAVY) & set(modules.split())


def test_planning_imports_neither_torch_nor_an_onnx_runtime() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK, "plan", "--device", "jetson"],
        capture_output=True, text=True, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    text, _, modules = done.stdout.rpartition("\nmodules ")
    assert "candidates were weighed" in text
    assert "mobilenet" in text
    assert not (set(HEAVY) - {"huggingface_hub", "onnx"}) & set(modules.split())


def _cpu_s(*command: str) -> float:
    """Seconds of the processor that a command takes: other processes on the machine do not count."""
    before = os.times()
    subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True, cwd=HOME)
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


@pytest.mark.parametrize("words", LIGHT)
def test_what_only_tells_something_starts_at_once(words: str) -> None:
    """Beside the bare import of what a command line needs, in turn, so that a slow machine is slow in both."""
    most = 4 if words.endswith("--help") else 8
    ratios = []
    for _ in range(5):
        bare = _cpu_s("-c", "import typer, pydantic, yaml")
        ratios.append(_cpu_s("-m", "edgedistill", *words.split()) / bare)
        if min(ratios) < most:
            return
    raise AssertionError(ratios)


# -- faults of the user --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("plan --device jetsn", 'unknown device "jetsn"; did you mean "jetson"?'),
        ("devices show jetsn", 'unknown device "jetsn"; did you mean "jetson"?'),
        ("plan --student mobilenetv2_10", 'unknown student "mobilenetv2_10"; did you mean "mobi'),
        ("build --student mobilenetv2_10", 'unknown student "mobilenetv2_10"; did you mean "mo'),
        ("build --device jetsn", 'unknown device "jetsn"; did you mean "jetson"?'),
        ("build --set distill.epoch=3", 'distill.epoch  unknown key; did you mean "distill.epochs'),
        ("build --until exprt", 'unknown stage "exprt"; did you mean "export"?'),
        ("build --latency-ms 0", "--latency-ms must be a number above 0; got 0"),
        ("build --latency-ms -5", "--latency-ms must be a number above 0; got -5"),
        ("plan --size-mb -1", "--size-mb must be a number above 0; got -1"),
        ("plan --size-mb nan", "--size-mb must be a number above 0; got nan"),
        ("plan --size-mb 1e305", "--size-mb must be at most 1e+09"),
        ("build --max-drop -1", "--max-drop must be a number of 0 or more; got -1"),
        ("build --min-top1 0.9", "for 90 % give --min-top1 90"),
        ("build --seed -1", "seed  input should be greater than or equal to 0; got -1"),
        ("build -v -q --dry-run", "--verbose and --quiet exclude each other"),
        ("build nowhere.yaml", "recipe nowhere.yaml does not exist"),
        ("plan nowhere.yaml", "recipe nowhere.yaml does not exist"),
        ("plan --device nowhere.yaml", "profile nowhere.yaml does not exist"),
        ("plan --data nowhere", "nowhere"),
        ("build --data nowhere", "nowhere"),
        ("report nowhere", "result nowhere does not exist"),
        ("build --set seed", "--set takes key=value"),
    ],
)
def test_a_fault_is_one_paragraph_with_exit_code_2_and_writes_nothing(
    call: Call, tmp_path: Path, args: str, words: str
) -> None:
    assert words in call.fault(*args.split())
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_teacher_is_named_with_the_nearest(call: Call) -> None:
    args = "--until", "plan", "--out", "r", "--teacher"
    text = call.fault("build", *args, "bundled:efficientnet_lite3")
    assert "efficientnet_lite2" in text
    assert 'did you mean "mobilenetv2_1' in call.fault("build", *args, "mobilenetv2_10")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("plan --device jetson --latency-ms 0.0001", "Allow --latency-ms"),
        ("plan --device jetson --size-mb 0.01", "Allow --size-mb"),
        ("plan --device pi5 --size-mb 0.000000001", "Allow --size-mb"),
        ("build --dry-run --device jetson --size-mb 0.01", "Allow --size-mb"),
        ("build --device jetson --latency-ms 0.0001 --out r", "Allow --latency-ms"),
    ],
)
def test_a_budget_that_nothing_fits_is_exit_code_1_with_the_closest(
    call: Call, args: str, words: str
) -> None:
    text = call.fault(*args.split(), code=1)
    assert "the closest is " in text
    assert words in text


@pytest.mark.parametrize(
    "args",
    ["--nosuch", "nosuch", "build --nosuch", "plan --latency-ms fast", "build --provider tpu",
     "report", "devices list extra", "build a.yaml b.yaml"],
)  # fmt: skip
def test_a_wrong_command_or_option_is_exit_code_2(call: Call, args: str) -> None:
    ended = call(*args.split())
    assert ended.code == 2
    assert ended.out == ""
    assert "Error: " in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("args", ["", "devices"])
def test_no_command_shows_the_help(call: Call, args: str) -> None:
    ended = call(*args.split())
    assert ended.code == 2
    assert "Usage: edgedistill" in ended.out + ended.err


def test_the_exit_codes_reach_the_shell() -> None:
    wrong = _run("plan", "--device", "jetsn")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith('edgedistill: unknown device "jetsn"')
    assert "Traceback" not in wrong.stderr
    none = _run("plan", "--device", "jetson", "--size-mb", "0.01")
    assert none.returncode == 1
    assert none.stderr.count("\n") == 1


# -- stops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 3, "interrupted"),
        (MemoryError(), 3, "out of memory"),
        (OSError(28, "No space left on device", "/x/y"), 3, "the disk is full (/x/y)"),
        (PermissionError(13, "Permission denied", "/x/y"), 2, "/x/y: Permission denied"),
        (StoppedError("the disk of r is full"), 3, "the disk of r is full"),
    ],
    ids=["Ctrl-C", "memory", "disk", "permission", "stopped"],
)
def test_a_stop_has_the_exit_code_of_the_house(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr("edgedistill.pipeline.preview_plan", stop)
    assert words in call.fault("plan", code=code)


def test_a_bug_is_not_hidden(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise AssertionError("a bug of ours")

    monkeypatch.setattr("edgedistill.pipeline.preview_plan", bug)
    with pytest.raises(AssertionError, match="a bug of ours"):
        call("plan")


# -- plan, devices, build --until ----------------------------------------------------------------


def test_plan_names_the_chosen_those_behind_and_the_rejected(call: Call, tmp_path: Path) -> None:
    ended = call("plan", "--device", "jetson", "--latency-ms", "5", "--size-mb", "4")
    assert ended.code == 0
    titles = ["chosen", "behind it", "rejected, nearest first"]
    assert [line for line in ended.out.splitlines() if line in titles] == titles
    assert "what latency buys" in ended.out and "| 5 ms allowed" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_the_devices_are_listed_with_their_aliases(call: Call) -> None:
    out = call("devices", "list").out
    for name in ("jetson-orin-nano-8gb", "jetson", "raspberry-pi-5", "host"):
        assert name in out


def test_build_until_the_data_says_how_to_go_on_and_a_second_call_finds_it_done(
    call: Call, tmp_path: Path
) -> None:
    args = ["build", "--device", "jetson", "--until", "data", "--out", "r"]
    first = call(*args)
    assert first.code == 0, first.err
    assert first.out == ""
    assert "6,000 train" in first.err
    assert "without --until" in first.err
    assert (tmp_path / "r/stages/01-data/done.json").is_file()
    second = call(*args)
    assert "6,000 train" not in second.err
    assert "done before" in call(*args, "-v").err
    assert call(*args, "-q").err == ""
    fresh = call(*args, "--fresh")
    assert "6,000 train" in fresh.err


def test_a_folder_of_ones_own_is_never_built_into(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    text = call.fault("build", "--out", "mine", "--fresh", "--until", "data")
    assert "not those of a run" in text
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


# -- report --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good() -> str:
    return make_result().dumps()


def test_report_writes_the_three_views_anew_and_prints_the_verdict(
    call: Call, tmp_path: Path, good: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "result.json").write_text(good)
    (run / "report.html").write_text("old")
    ended = call("report", run)
    assert ended.code == 0, ended.err
    views = ["model_card.md", "report.html", "report.md", "result.json"]
    assert sorted(p.name for p in run.iterdir()) == views
    assert "mobilenetv4_conv_small" in (run / "report.html").read_text()
    assert "jetson-orin-nano-8gb" in ended.out
    assert (run / "result.json").read_text() == good


def test_report_writes_what_other_programs_read(call: Call, tmp_path: Path, good: str) -> None:
    (tmp_path / "result.json").write_text(good)
    files = ("--junit", "r.xml", "--benchmark-json", "b.json")
    assert call("report", "result.json", *files).code == 0
    limits = [row.limit for row in make_result().verdict.rows]
    assert (tmp_path / "r.xml").read_text().count("<testcase ") == len(limits)
    assert {"name", "unit", "value"} <= set(json.loads((tmp_path / "b.json").read_text())[0])
    ended = call("report", "result.json", "result.json", *files)
    assert ended.code == 2 and "are of one run" in ended.err


def test_report_takes_the_file_and_another_folder_which_it_makes(
    call: Call, tmp_path: Path, good: str
) -> None:
    (tmp_path / "result.json").write_text(good)
    assert call("report", "result.json", "--out", "a/b").code == 0
    assert (tmp_path / "a/b/report.md").is_file()
    assert not (tmp_path / "report.md").exists()


def _other_schema(text: str) -> str:
    return text.replace("edgedistill.result/1", "edgedistill.result/9")


def _unknown_key(text: str) -> str:
    return json.dumps({**json.loads(text), "extra": 1})


def _infinite(text: str) -> str:
    return text.replace('"bundle_bytes": 27512044', '"bundle_bytes": Infinity')


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "null",
        lambda text: "{}",
        lambda text: "[" * 200_000,
        lambda text: '{"schema": "someone.else/3"}',
        lambda text: text.encode("utf-16").decode("latin-1"),
        _other_schema,
        _unknown_key,
        _infinite,
    ],
    ids=["cut", "empty", "list", "null", "no keys", "deep", "foreign", "utf-16", "schema", "key",
         "inf"],
)  # fmt: skip
def test_report_on_a_damaged_result_is_one_paragraph(
    call: Call, tmp_path: Path, good: str, damage: Any
) -> None:
    (tmp_path / "result.json").write_text(damage(good))
    text = call.fault("report", tmp_path)
    assert "result.json" in text
    assert len(text) < 4000
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_report_on_binary_rubbish_is_one_paragraph(call: Call, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(bytes(range(256)) * 10)
    assert "cannot be read" in call.fault("report", tmp_path)


def test_doctor_ends_with_1_only_when_something_is_wrong(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgedistill.doctor import Check

    def found(status: Any) -> Sequence[Check]:
        return [Check("onnxruntime", status, "x", "do this")]

    for status, code in (("ok", 0), ("missing", 0), ("wrong", 1)):
        monkeypatch.setattr("edgedistill.doctor.checks", lambda s=status: found(s))
        ended = call("doctor")
        assert (ended.code, ended.err) == (code, "")
        assert "onnxruntime" in ended.out
