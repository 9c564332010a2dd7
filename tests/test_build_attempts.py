"""A build whose file misses a limit after all goes on to the next candidate, and the report tells the story."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from build_parts import SMALL, make_images, tool, worked
from target_parts import make_measured

from edgedistill.result import load
from edgedistill.target.measured import keep, user_place


@pytest.fixture
def _optimistic_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement of this machine that promises what no machine keeps."""
    monkeypatch.setenv("EDGEDISTILL_HOME", str(tmp_path / "home"))
    keep(make_measured("host", 1e-9, ("float32", "int8")), user_place())
    monkeypatch.setattr("edgedistill.packing.time_files", lambda *_: {})


@pytest.mark.usefixtures("_optimistic_host")
def test_a_file_that_is_too_slow_here_gives_way_to_the_next_candidate(tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", per_class=12)
    options = ["host" if word == "x86-cpu" else word for word in SMALL]
    command = (
        "build", *options, "--data", data, "--out", tmp_path / "run", "--latency-ms", "0.01",
        "--set", "plan.max_attempts=2",
    )  # fmt: skip
    ended = tool(*command)
    assert ended.code == 1, ended.err
    assert "mobilenetv3_small_050 at 64 px in int8 misses a limit" in ended.text
    assert "0.01 ms allowed; the next candidate is built" in ended.text
    assert "mobilenetv3_small_050 at 64 px in float32 misses a limit" in ended.text
    assert "no attempt is left" in ended.text

    result = load(tmp_path / "run")
    assert [a.candidate.precision for a in result.plan.attempts] == ["float32"], "INT8 does not pay"
    assert result.chosen == "int8" and result.verdict.status == "fail"
    assert "missed a limit" in result.artifact("float32").reason
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "given up because a limit was missed" in page
    assert "Built before and given up" in (tmp_path / "run" / "report.md").read_text("utf-8")

    again = tool(*command)
    assert again.code == 1 and worked(tmp_path / "run") == []
    assert load(tmp_path / "run") == result


def test_a_choice_by_time_that_is_made_again_changes_the_bundle_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = make_images(tmp_path / "data", per_class=12), tmp_path / "run"
    options = ["host" if word == "x86-cpu" else word for word in SMALL]
    for fast, slow in (("int8", "float32"), ("float32", "int8")):
        times = {fast: 0.001, slow: 0.002}
        monkeypatch.setattr("edgedistill.packing.time_files", lambda *_, t=times: t)
        tool("build", *options, "--data", data, "--out", run, "--set", "quantize.max_drop=1")
        manifest = json.loads((run / "bundle" / "manifest.json").read_text("utf-8"))
        assert load(run).chosen == manifest["chosen"] == fast
        assert "ms measured here" in load(run).artifact("int8").reason
        (run / "stages" / "11-quantize" / "model.int8.onnx").unlink()
