"""`edgedistill check` as a person and a job use it: exit codes, the files that it writes, a pull request for real."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_parts import bundle_of, classifier, scored_run, write
from ontarget.contract import load_bundle
from ontarget.facts import Model

from edgedistill import checking, cli
from edgedistill.checkresult import Check
from edgedistill.errors import StoppedError
from edgedistill.evidence.bench import FakeTarget

HOME = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
Ended = tuple[int, str, str]
Call = Callable[..., Ended]


@pytest.fixture
def check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Calls `edgedistill check` in this process, in an empty folder, outside of any job."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)

    def call(*args: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["edgedistill", "check", *map(str, args)])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return int(code or 0), out, err

    return call


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    """A model, and one with another layer."""
    return write(tmp_path / "old.onnx"), write(tmp_path / "new.onnx", classifier((8, 16, 16)))


def a_byte_more(path: Path) -> None:
    """A model that is one byte larger and otherwise the same."""
    import onnx

    model = onnx.load(str(path))
    model.doc_string = "x" * (len(model.doc_string) + 1)
    before = path.stat().st_size
    onnx.save(model, str(path))
    if not model.doc_string[1:]:  # the field itself takes two bytes
        a_byte_more(path)
        return
    assert path.stat().st_size == before + 1


# Exit codes


def test_one_byte_is_found_when_the_limit_says_so(check: Call, tmp_path: Path) -> None:
    old = write(tmp_path / "old.onnx")
    new = write(tmp_path / "new.onnx")
    a_byte_more(old)
    shutil.copy(old, new)
    assert check(new, "--baseline", old, "--max-size-growth", "0")[0] == 0
    a_byte_more(new)
    code, out, _ = check(new, "--baseline", old, "--max-size-growth", "0")
    assert code == 1 and "+1 B" in out and "REGRESS" in out and "the rest of the file" in out
    assert check(new, "--baseline", old, "--max-size-growth", "1B")[0] == 0


def test_weights_beside_the_file_count(check: Call, tmp_path: Path) -> None:
    old = write(tmp_path / "a" / "m.onnx", beside=True)
    new = write(tmp_path / "b" / "m.onnx", classifier((8, 17)), beside=True)
    graph = new.stat().st_size / old.stat().st_size
    assert graph < 1.01
    code, out, _ = check(new, "--baseline", old, "--max-size-growth", "1%")
    assert code == 1 and "m.onnx.data" in out
    assert check(new, "--max-size-mb", "0.005")[0] == 1  # the .onnx alone is below
    assert new.stat().st_size < 5000


def test_what_is_not_decided_passes_with_a_warning_and_fails_when_strict(
    check: Call, models: tuple[Path, Path]
) -> None:
    args = (models[0], "--baseline", models[1], "--max-drop", "0.5")
    code, out, _ = check(*args)
    assert code == 0 and out.startswith("INCONCLUSIVE ")
    assert check(*args, "--strict")[0] == 1


def test_an_unconfirmed_limit_passes_with_a_warning_and_fails_when_strict(
    check: Call, tmp_path: Path
) -> None:
    run = scored_run(tmp_path / "run")  # its latency on the device is predicted
    code, out, _ = check(run, "--max-latency-ms", "5")
    assert code == 0 and out.startswith("UNCONFIRMED ") and "predicted" in out
    assert check(run, "--max-latency-ms", "5", "--strict")[0] == 1
    assert check(run, "--max-latency-ms", "0.001")[0] == 1


def test_a_drop_beyond_chance_is_a_regression(check: Call, tmp_path: Path) -> None:
    old, new = (
        scored_run(tmp_path / "old"),
        scored_run(tmp_path / "new", lost=40, order=2, model=classifier((8, 15))),
    )
    code, out, _ = check(new, "--baseline", old, "--max-drop", "0.5")
    assert code == 1 and "a loss of 2.0 points" in out and "2000" in out
    assert check(old, "--baseline", new, "--max-drop", "0.5")[0] == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("old.onnx", "there is nothing to check against"),
        ("gone.onnx --max-size-mb 1", "gone.onnx does not exist"),
        ("old.onnx --baseline gone.json", "--baseline: gone.json does not exist"),
        ("old.onnx --max-size-growth 1%", "no older model for --max-size-growth to compare with"),
        ("old.onnx --baseline new.onnx --max-size-growth 5", "such as 5% or 10KB"),
        ("old.onnx --baseline new.onnx --update", "--update writes a .json file; got new.onnx"),
        ("old.onnx --update", "give --baseline FILE.json"),
        ("old.onnx --baseline own.json --update", "own.json is no baseline, and --update does not"),
        ("old.onnx --config none.toml", "none.toml cannot be read"),
        ("broken.onnx --baseline old.onnx", "broken.onnx is no ONNX model"),
        ("old.onnx --baseline broken.onnx", "broken.onnx is no ONNX model"),
    ],
)
def test_wrong_usage_or_input_is_one_paragraph_and_exit_code_2(
    args: str, words: str, check: Call, models: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.onnx").write_bytes(models[0].read_bytes()[:-9])
    (tmp_path / "own.json").write_text("{}")
    code, out, err = check(*args.split())
    assert (code, out) == (2, "")
    assert err.startswith("edgedistill: ") and words in err and err.count("\n\n") == 0
    assert (tmp_path / "own.json").read_text() == "{}"


# Baselines


def test_a_baseline_is_made_compared_with_and_made_anew(
    check: Call, models: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = models
    code, out, _ = check(old, "--baseline", "b.json", "--update")
    assert code == 0 and "b.json was written" in out
    first = (tmp_path / "b.json").read_text()
    assert check(old, "--baseline", "b.json")[0] == 0
    code, out, _ = check(new, "--baseline", "b.json")
    assert code == 1 and "blocks.2/conv" in out and "Conv 2 to 3" in out
    assert (tmp_path / "b.json").read_text() == first
    code, out, _ = check(new, "--baseline", "b.json", "--update", "--max-size-growth", "1%")
    assert code == 0 and "blocks.2/conv" in out
    assert check(new, "--baseline", "b.json")[0] == 0
    changed = set((tmp_path / "b.json").read_text().splitlines()) - set(first.splitlines())
    assert (
        len(changed) == 10
    )  # what a reviewer reads: layer, size twice, hash, name, file, operators, parameters, seal


def test_an_update_does_not_accept_a_limit_that_stands_by_itself(
    check: Call, models: tuple[Path, Path], tmp_path: Path
) -> None:
    code, out, _ = check(models[1], "--baseline", "b.json", "--update", "--max-size-mb", "0.001")
    assert code == 1 and "b.json was not written" in out and not (tmp_path / "b.json").exists()


def test_a_damaged_baseline_stops_a_check_and_an_update_takes_its_place(
    check: Call, models: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "b.json"
    assert check(models[0], "--baseline", path, "--update")[0] == 0
    whole = path.read_text()
    path.write_text(whole.replace('"opset": 17', '"opset": 18'))
    code, out, err = check(models[0], "--baseline", path)
    assert (code, out) == (2, "") and "its seal does not fit what it says" in err
    code, out, _ = check(models[0], "--baseline", path, "--update")
    assert code == 0 and "b.json is damaged" in out and path.read_text() == whole


def test_a_baseline_of_a_run_makes_a_paired_test_possible(check: Call, tmp_path: Path) -> None:
    assert check(scored_run(tmp_path / "old"), "--baseline", "b.json", "--update")[0] == 0
    assert (tmp_path / "b.json").stat().st_size < 10_000
    new = scored_run(tmp_path / "new", lost=40, order=1, model=classifier((8, 15)))
    code, out, _ = check(new, "--baseline", "b.json", "--max-drop", "0.5")
    assert code == 1 and "n = 2000" in out


def test_limits_and_baseline_of_a_file_make_the_whole_command(
    check: Call, models: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "edgedistill.toml").write_text(
        '[check]\nbaseline = "old.onnx"\nmax-size-growth = "1%"\n'
    )
    code, out, _ = check("new.onnx")
    assert code == 1 and "size growth by edgedistill.toml" in out
    code, out, _ = check("new.onnx", "--max-size-growth", "900%")
    assert code == 0 and "size growth by --max-size-growth" in out


def test_defaults_are_said(check: Call, models: tuple[Path, Path], tmp_path: Path) -> None:
    out = check(models[1], "--baseline", models[0])[1]
    assert "size growth by default" in out and "Accuracy is not compared" in out
    runs = scored_run(tmp_path / "a"), scored_run(tmp_path / "b", won=4)
    out = check(runs[1], "--baseline", runs[0])[1]
    assert "Limits: size growth, top-1 drop by default." in out


# What it writes


def test_every_document_is_written_and_says_the_same(
    check: Call, models: tuple[Path, Path], tmp_path: Path
) -> None:
    code, _, _ = check(
        models[1], "--baseline", models[0], "--json", "c.json", "--junit", "j.xml",
        "--benchmark-json", "b.json", "--summary", "s.md",
    )  # fmt: skip
    found = Check.model_validate_json((tmp_path / "c.json").read_text())
    assert found.exit_code == code == 1 and found.status == "fail"
    assert 'failures="1"' in (tmp_path / "j.xml").read_text()
    sizes = {e["name"]: e["value"] for e in json.loads((tmp_path / "b.json").read_text())}
    assert sizes["new.onnx: size"] == models[1].stat().st_size
    assert "## ❌ FAIL" in (tmp_path / "s.md").read_text("utf-8")


def test_in_a_job_of_github_the_summary_and_annotations_are_written(
    check: Call, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    hostile = write(
        tmp_path / "new.onnx", classifier((8, 99), names=["::error::a", "##[error]b\n::error::c"])
    )
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path.parent))
    code, out, _ = check("new.onnx", "--baseline", models[0])
    assert code == 1 and hostile.is_file()
    assert summary.read_text("utf-8").startswith("before\n## ❌ FAIL")
    fenced = re.search(
        r"^::stop-commands::(\w{32})\n(.*)\n::\1::\n(.*)\Z", out, re.DOTALL | re.MULTILINE
    )
    assert fenced is not None and "::error::a" in fenced[2]
    (command,) = fenced[3].splitlines()
    assert command.startswith(
        f"::error file={tmp_path.name}/new.onnx,title=edgedistill%3A Size growth::REGRESS: new.onnx: +"
    )


# Measuring


def compare_document(
    bundle: Path, arguments: Sequence[str], seconds: Callable[[Model], float], spread: float
) -> dict[str, Any]:
    """What the kit writes for `compare`: of the models that are asked for, the chosen ones where none is."""
    assert arguments[0] == "compare"
    asked = dict(itertools.pairwise(arguments))
    models = [
        load_bundle(bundle / "other").model(asked.get("--other-model")),
        load_bundle(bundle).model(asked.get("--model")),
    ]
    old, new = (
        {"name": m.name, "file": m.file, "sha256": m.sha256, "p50_s": seconds(m), "n": 100} for m in models
    )  # fmt: skip
    ratio = new["p50_s"] / old["p50_s"]
    return {
        "old": old, "new": new, "ratio": ratio, "low": ratio - spread, "high": ratio + spread,
        "confidence": 0.998, "ratios": [ratio] * 20, "runtime": "r", "provider": "CPUExecutionProvider",
        "threads": 1, "batch": 1, "warnings": ["noisy"],
    }  # fmt: skip


X86 = {"cpu": "a processor", "arch": "x86_64"}


def board(
    ratio: float, spreads: dict[str, float], machine: dict[str, Any] | None = None
) -> FakeTarget:
    """A machine that takes `ratio` times as long for the new model; the interval depends on the tier."""

    def answer(bundle: Path, arguments: Sequence[str]) -> dict[str, Any]:
        times = iter((0.01, 0.01 * ratio))
        spread = spreads["thorough" if "--thorough" in arguments else "default"]
        found = compare_document(bundle, arguments, lambda _: next(times), spread)
        return {"machine": machine or X86, "compare": {**found, "ratio": ratio}}

    return FakeTarget(answer)


def by_size(bundle: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """A machine whose models take as long as they are large."""
    found = compare_document(bundle, arguments, lambda m: m.size_bytes / 1e6, 0.01)
    return {"machine": X86, "compare": found}


def timing(seconds: dict[str, float], machine: dict[str, Any]) -> FakeTarget:
    """A machine that times the models of a bundle as the kit does: all of them, or the one that is asked for."""

    def answer(bundle: Path, arguments: Sequence[str]) -> dict[str, Any]:
        asked = dict(itertools.pairwise(arguments)).get("--model")
        names = [m.name for m in load_bundle(bundle).models if asked in (None, m.name)]
        rows = [
            {"model": n, "provider": "CPUExecutionProvider", "runtime": "r", "runtime_version": "1", "threads": 1,
             "batch": 1, "p50_s": seconds[n], "p90_s": seconds[n], "n": 9, "peak_rss_bytes": int(seconds[n] * 1e9)}
            for n in names
        ]  # fmt: skip
        return {"machine": machine, "rows": rows}

    return FakeTarget(answer)


GROWTH = ("--max-latency-growth", "5%")


@pytest.mark.parametrize(
    ("ratio", "thorough", "status", "codes"),
    [(1.1, 0.02, "REGRESS", (1, 1)), (1.0, 0.02, "PASS", (0, 0)), (1.04, 0.02, "INCONCLUSIVE", (0, 1))],
)  # fmt: skip
def test_a_ratio_that_does_not_decide_is_measured_once_more_with_more_pairs(
    ratio: float, thorough: float, status: str, codes: tuple[int, int], check: Call,
    models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    target = board(ratio, {"default": 0.2, "thorough": thorough})
    monkeypatch.setattr("edgedistill.benching.Here", lambda: target)
    code, out, err = check(models[1], "--baseline", models[0], *GROWTH, "--json", "c.json")
    assert code == codes[0] and status in out and "noisy" in out and "a processor" in out
    assert [("--thorough" in call[1]) for call in target.calls] == [False, True]
    assert "once more" in err
    found = Check.model_validate_json((tmp_path / "c.json").read_text())
    assert found.comparison is not None and found.comparison.ratio == ratio
    assert check(models[1], "--baseline", models[0], *GROWTH, "--strict")[0] == codes[1]


def test_a_ratio_that_decides_at_once_is_not_measured_again(
    check: Call, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = board(1.2, {"default": 0.1})
    monkeypatch.setattr("edgedistill.benching.Here", lambda: target)
    code, out, _ = check(models[1], "--baseline", models[0], *GROWTH)
    assert code == 1 and len(target.calls) == 1 and "+20.0 % (+10.0 to +30.0)" in out


def test_a_measurement_that_is_not_valid_is_exit_code_3(
    check: Call, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> dict[str, Any]:
        raise StoppedError("the provider fell back")

    monkeypatch.setattr("edgedistill.benching.Here", lambda: FakeTarget(refuse))
    code, out, err = check(models[1], "--baseline", models[0], *GROWTH)
    assert (code, out) == (3, "") and "the provider fell back" in err


def test_nothing_is_measured_without_the_runtime_the_file_or_the_wish(
    check: Call, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = board(1.0, {})
    monkeypatch.setattr("edgedistill.benching.Here", lambda: target)
    check(models[0], "--baseline", "b.json", "--update", *GROWTH)
    code, out, _ = check(models[1], "--baseline", "b.json", *GROWTH)
    assert code == 0 and "a baseline file holds no model" in out
    assert check(models[0], "--baseline", models[0], *GROWTH, "--strict")[0] == 0  # the same file
    code, out, _ = check(models[1], "--baseline", models[0], *GROWTH, "--no-measure")
    assert code == 0 and "--no-measure was given" in out
    monkeypatch.setattr(checking.importlib.util, "find_spec", lambda name: None)
    code, out, _ = check(models[1], "--baseline", models[0], *GROWTH)
    assert code == 0 and 'pip install "edgedistill[cpu]"' in out
    assert check(models[1], "--baseline", models[0], *GROWTH, "--strict")[0] == 1
    assert target.calls == []


def test_a_file_of_no_device_is_timed_here_and_one_of_a_board_is_not(
    check: Call, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """The real kit."""
    code, out, _ = check(models[0], "--max-latency-ms", "1000", "--max-memory-mb", "0.001")
    latency, memory = (
        next(ln for ln in out.splitlines() if ln.startswith(w)) for w in ("Lat", "Mem")
    )
    assert code == 1 and "PASS" in latency and "FAIL" in memory and "1 thread" in out
    run = scored_run(tmp_path / "run", latency=[])
    code, out, _ = check(run, "--max-latency-ms", "1000")
    assert code == 0 and "jetson-orin-nano-8gb is not here" in out


class Board(FakeTarget):
    """A board that is reached: what `SshTarget` is to a command."""

    facts: dict[str, Any]

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def machine(self) -> dict[str, Any]:
        """What the board says of itself."""
        return self.facts


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeTarget, dict[str, Any]], list[str]]:
    """Lets --target reach a machine of the test's; the list has the logins of all that were reached."""

    def put(target: FakeTarget, machine: dict[str, Any]) -> list[str]:
        reached: list[str] = []

        def connect(address: Any, face: object) -> Board:
            reached.append(address.login)
            found = Board(lambda bundle, arguments: target.run(bundle, arguments, Path(), None))  # type: ignore[arg-type]
            found.facts = machine
            return found

        monkeypatch.setattr("edgedistill.evidence.board.remote.SshTarget", connect)
        monkeypatch.setattr(
            checking.importlib.util, "find_spec", lambda name: None
        )  # not needed here
        return reached

    return put


AT = ("--target", "ssh://pi@board")
PI = {
    "board": "Raspberry Pi 5 Model B Rev 1.0", "cpu": "Cortex-A76", "arch": "aarch64", "cores": 4,
    "memory_bytes": 8_000_000_000,
}  # fmt: skip


def test_both_models_are_timed_on_the_board_that_is_named(
    check: Call, models: tuple[Path, Path], reach: Any
) -> None:
    reached = reach(board(1.2, {"default": 0.1}, PI), PI)
    code, out, _ = check(models[1], "--baseline", models[0], *GROWTH, *AT)
    assert code == 1 and reached == ["pi@board"] and "+20.0 %" in out
    code, _, err = check(models[1], "--baseline", models[0], *GROWTH, "--target", "http://board")
    assert code == 2 and "only boards over ssh" in err


def test_the_file_that_is_named_is_timed_and_not_what_its_bundle_ships(
    check: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By size: of each bundle the chosen file is small, and the other is six times as large."""
    both = {"int8": classifier((8, 8)), "float32": classifier((8, 48))}
    for name in ("new", "old"):
        bundle_of(tmp_path / name, both, "int8")  # type: ignore[arg-type]
    bundle_of(tmp_path / "other", both, "float32")  # type: ignore[arg-type]
    target = FakeTarget(by_size)
    monkeypatch.setattr("edgedistill.benching.Here", lambda: target)
    small, large = "old/model.int8.onnx", "new/model.float32.onnx"
    for new, old, slower in (
        (large, small, True), (large, "old", True), ("other", "old", True), ("other", small, True),
        (small, large, False), ("new", "other", False),
    ):  # fmt: skip
        code, out, _ = check(new, "--baseline", old, *GROWTH, "--json", "c.json")
        found = Check.model_validate_json((tmp_path / "c.json").read_text()).comparison
        assert found is not None and (found.ratio > 2) == slower and code == int(slower), (new, old)
        assert ("REGRESS" in out) == slower
    assert len(target.calls) == 6


def test_a_manifest_of_something_else_beside_a_file_is_none_of_its_business(
    check: Call, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web page", "icons": []}')
    target = board(1.0, {"default": 0.01})
    monkeypatch.setattr("edgedistill.benching.Here", lambda: target)
    code, out, err = check(models[1], "--baseline", models[0], *GROWTH)
    assert (code, len(target.calls)) == (0, 1) and "PASS" in out, err


def test_a_ratio_of_other_files_is_no_measurement(
    check: Call, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(bundle: Path, arguments: Sequence[str]) -> dict[str, Any]:
        found = by_size(bundle, arguments)
        found["compare"]["new"]["sha256"] = found["compare"]["old"]["sha256"]
        return found

    monkeypatch.setattr("edgedistill.benching.Here", lambda: FakeTarget(swapped))
    code, out, err = check(models[1], "--baseline", models[0], *GROWTH)
    assert (code, out) == (3, "") and "another file was timed than" in err and "new.onnx" in err


@pytest.mark.parametrize(
    ("device", "machine", "status", "words"),
    [
        ("jetson-orin-nano-8gb", {"arch": "aarch64"}, "UNCONFIRMED", "the processor, not of the GPU"),
        ("jetson-orin-nano-8gb", X86, "UNCONFIRMED", "the processor, not of the GPU"),
        ("raspberry-pi-5", X86, "UNCONFIRMED", "a processor of another kind (x86_64)"),
        ("raspberry-pi-5", {"arch": "aarch64"}, "REGRESS", "20 pairs"),
        ("raspberry-pi-5-hailo-8l", PI, "UNCONFIRMED", "not of the NPU"),
        ("our-own-board", X86, "UNCONFIRMED", "what our-own-board is is not known"),
        ("host", X86, "REGRESS", "20 pairs"), ("unknown", X86, "REGRESS", "20 pairs"),
    ],
)  # fmt: skip
def test_a_ratio_counts_for_a_device_of_the_kind_that_measured(
    device: str, machine: dict[str, Any], status: str, words: str, check: Call,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    old = bundle_of(tmp_path / "old", {"float32": classifier()}, "float32", device)
    new = bundle_of(tmp_path / "new", {"float32": classifier((8, 24))}, "float32", device)
    target = board(1.5, {"default": 0.01}, machine)
    monkeypatch.setattr("edgedistill.benching.Here", lambda: target)
    code, out, _ = check(new, "--baseline", old, *GROWTH)
    assert code == int(status == "REGRESS") and out.startswith(("FAIL", status)[code == 0])
    assert status in out and words in out
    assert check(new, "--baseline", old, *GROWTH, "--strict")[0] == 1


@pytest.mark.parametrize("slow", ["int8", "float32"])
def test_a_bundle_is_judged_by_the_model_that_ships_and_no_other(
    slow: str, check: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    both = {"int8": classifier((8, 8)), "float32": classifier((8, 48))}
    bundle = bundle_of(tmp_path / "b", both, "int8")  # type: ignore[arg-type]
    target = timing({name: 0.5 if name == slow else 0.001 for name in both}, X86)
    monkeypatch.setattr("edgedistill.benching.Here", lambda: target)
    code, out, _ = check(bundle, "--max-latency-ms", "100", "--max-memory-mb", "100")
    assert code == int(slow == "int8")
    assert out.count("FAIL") == (3 if slow == "int8" else 0) and "--model" in target.calls[0][1]


def test_on_a_board_a_file_of_nobody_counts_and_one_of_this_machine_does_not(
    check: Call, models: tuple[Path, Path], reach: Any, tmp_path: Path
) -> None:
    unknown = {"cpu": "Cortex-A99", "arch": "aarch64"}
    reach(timing({"float32": 0.001}, unknown), unknown)
    limit = ("--max-latency-ms", "100", "--max-memory-mb", "100", *AT)
    code, out, _ = check(models[0], *limit)
    assert code == 0 and out.startswith("PASS")
    bundle = bundle_of(tmp_path / "b", {"float32": classifier()}, "float32", "host")
    code, out, _ = check(bundle, *limit)
    assert code == 0 and out.startswith("UNCONFIRMED") and "PASS" not in out
    assert "what was measured does not count" in out


def test_on_a_board_that_is_named_a_run_is_measured_whatever_its_result_says(
    check: Call, reach: Any, tmp_path: Path
) -> None:
    row = {
        "device": "raspberry-pi-5", "machine": "m", "runtime": "r", "provider": "CPUExecutionProvider",
        "threads": 4, "batch": 1, "evidence": "measured_on_target", "p50_s": 0.001, "p90_s": 0.001, "n": 99,
    }  # fmt: skip
    run = scored_run(tmp_path / "run", latency=[row])
    limit = ("--max-latency-ms", "100", "--device", "raspberry-pi-5")
    assert check(run, *limit)[0] == 0
    target = timing({"float16": 0.5, "float32": 0.5}, PI)
    reach(target, PI)
    code, out, _ = check(run, *limit, *AT)
    assert code == 1 and len(target.calls) == 1 and "500 ms" in out
    code, out, _ = check(run, "--max-latency-ms", "100", *AT)  # for a Jetson, which that is not
    assert code == 0 and out.startswith("UNCONFIRMED") and "does not count" in out
    code, out, err = check(run, "--no-measure", *limit, *AT)
    assert (code, out) == (2, "") and "--no-measure times nothing" in err
    shutil.rmtree(run / "bundle")
    code, out, err = check(run, *limit, *AT)
    assert (code, out) == (2, "") and "is not here" in err


# A pull request for real


def script() -> str:
    """The script of docs/ci.md."""
    page = (HOME / "docs/ci.md").read_text("utf-8")
    (found,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    return str(found)


class Repository:
    """A throw-away git repository whose `main` has a model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.summary = folder.parent / "summary.md"
        self.env = {
            **os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder.parent),
            "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
            "GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(self.summary), "BASE": "main",
            "GITHUB_WORKSPACE": str(folder),
        }  # fmt: skip
        self.git("init", "--quiet", "--initial-branch", "main")
        self.git("config", "user.name", "A")
        self.git("config", "user.email", "a@example.org")

    def git(self, *args: str) -> None:
        subprocess.run(
            ["git", *args], cwd=self.folder, env=self.env, check=True, capture_output=True
        )

    def commit(self, words: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", words)

    def run(self, code: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", code], cwd=self.folder, env={**self.env, **env}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    found = Repository(tmp_path / "repository")
    write(found.folder / "model.onnx", beside=True)
    done = found.run("edgedistill check model.onnx --baseline model.baseline.json --update")
    assert done.returncode == 0, done.stderr
    found.commit("A model and its baseline")
    found.git("checkout", "--quiet", "-b", "bigger")
    found.summary.unlink()
    return found


def test_the_script_stops_a_pull_request_that_makes_the_model_bigger(
    repository: Repository,
) -> None:
    code = script().replace(" --max-latency-growth 5%", "")
    assert code != script()
    (repository.folder / "notes.md").write_text("no change of the model")
    repository.commit("Notes")
    done = repository.run(code)
    assert done.returncode == 0, done.stdout + done.stderr
    write(repository.folder / "model.onnx", classifier((8, 24)), beside=True)
    repository.commit("A wider layer")
    done = repository.run(code)
    assert done.returncode == 1, done.stdout + done.stderr
    told = repository.summary.read_text("utf-8")
    assert "❌ FAIL: model.onnx misses its one limit: size growth" in told
    assert "`blocks.1/conv` | 4,608 | 6,912 | +2,304 B (+50.0 %)" in told
    assert "::error file=model.onnx," in done.stdout
    trees = subprocess.run(
        ["git", "worktree", "list"],
        cwd=repository.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(trees.stdout.splitlines()) == 1


def test_the_whole_script_says_that_an_unchanged_model_is_no_slower(repository: Repository) -> None:
    done = repository.run(script())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Latency growth" in done.stdout and "the same file" in done.stdout


def action_steps() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((HOME / "action.yml").read_text("utf-8"))["runs"][
        "steps"
    ]
    return found


def run_action(
    repository: Repository, tools: Path, **inputs: str
) -> subprocess.CompletedProcess[str]:
    """The action's last step, with inputs put where the runner would put them."""
    step = action_steps()[-1]
    known = yaml.safe_load((HOME / "action.yml").read_text("utf-8"))["inputs"]
    values = {name: inputs.get(name, about.get("default", "")) for name, about in known.items()}
    env = {
        name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda m: values[m[1]], text)
        for name, text in step["env"].items()
    }
    return repository.run(step["run"], RUNNER_TEMP=str(tools), **env)


def test_the_action_stops_it_too_and_an_input_is_never_a_command(
    repository: Repository, tmp_path: Path
) -> None:
    tools = tmp_path / "tools"
    (tools / "edgedistill/bin").mkdir(parents=True)
    (tools / "edgedistill/bin/edgedistill").symlink_to(BIN / "edgedistill")
    same = run_action(repository, tools, model="model.onnx", baseline="model.baseline.json")
    assert same.returncode == 0, same.stdout + same.stderr
    odd = "a $(touch gone) `touch gone`;.onnx"
    write(repository.folder / odd, classifier((8, 24)))
    done = run_action(
        repository, tools, model=odd, baseline="model.baseline.json",
        options="--max-size-growth=1%\n\n--junit=out file.xml\n",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert (repository.folder / "out file.xml").is_file()
    assert not (repository.folder / "gone").exists()
    dashed = run_action(repository, tools, model="--version", baseline="model.baseline.json")
    assert dashed.returncode == 2 and "--version does not exist" in dashed.stderr


def test_the_action_puts_no_input_into_a_script() -> None:
    assert all("${{" not in step["run"] for step in action_steps())
    assert all(step["run"].startswith("set -euo pipefail\n") for step in action_steps())


def test_the_action_runs_in_the_bash_of_macos() -> None:
    """There, in bash 3.2, an array without any element is unset, and `set -u` stops at it."""
    for step in action_steps():
        bare = re.sub(r'\$\{(\w+)\[@\]\+"\$\{\1\[@\]\}"\}', "", step["run"])
        assert "[@]" not in bare
    last = action_steps()[-1]["run"]
    assert 'check ${options[@]+"${options[@]}"} --' in last


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs the program shellcheck")
def test_the_scripts_have_no_fault_that_shellcheck_knows(tmp_path: Path) -> None:
    codes = [script(), *("#!/usr/bin/env bash\n" + step["run"] for step in action_steps())]
    for i, code in enumerate(codes):
        path = tmp_path / f"{i}.sh"
        path.write_text(code)
        done = subprocess.run(
            ["shellcheck", str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


# What is imported


BLOCKED = """
import sys
NEVER = ("torch", "torchvision", "timm", "onnxruntime", "onnxslim", "diffusers", "transformers", "scipy")
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in NEVER:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Wall())
sys.argv = ["edgedistill", "check", *sys.argv[1:]]
from edgedistill.cli import main
main()
"""


def test_the_base_install_is_enough(tmp_path: Path) -> None:
    old, new = (
        scored_run(tmp_path / "old"),
        scored_run(tmp_path / "new", lost=1, model=classifier((8, 15))),
    )
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(new), "--baseline", str(old), "--json", str(tmp_path / "c.json")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = Check.model_validate_json((tmp_path / "c.json").read_text())
    assert found.gain is not None and found.gain.value == -1 / 2000 and found.new.operators
