"""A whole build by two processes: the leader writes, both train, and a broken try goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.build_parts import SMALL, make_images

HOME = Path(__file__).parent.parent


def launch(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`edgedistill build` under `accelerate launch`, on the CPU."""
    paths = os.pathsep.join([str(HOME), str(HOME / "export")])
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_machines", "1",
        "--num_processes", str(processes), "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", "0", "-m", "edgedistill", "build", *map(str, arguments),
    ]  # fmt: skip
    env = {
        **os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": paths,
    }  # fmt: skip
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
def test_two_processes_build_to_a_verdict_and_find_everything_done_again(tmp_path: Path) -> None:
    data, run = make_images(tmp_path / "data"), tmp_path / "run"
    arguments = (*SMALL, "--data", data, "--out", run, "--set", "teacher.adapt=finetune")
    first = launch(2, *arguments)
    assert first.returncode == 0, first.stderr[-3000:]
    assert first.stderr.count("distilled ") == 1, "one process speaks"
    result = json.loads((run / "result.json").read_text("utf-8"))
    arms = {arm["name"]: arm for arm in result["arms"]}
    assert arms["plain"]["steps"] == arms["distilled"]["steps"] > 0
    facts = json.loads((run / "stages" / "09-distilled" / "done.json").read_text("utf-8"))["facts"]
    assert facts["passes"] % 2 == 0 and facts["passes"] > 0
    assert not list((run / "stages").glob("*.partial"))
    again = launch(2, *arguments)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "stages were done before" in again.stderr
