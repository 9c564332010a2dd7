"""A study on a Ray cluster of this machine: the same runs, none lost and none twice, though a worker is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgedistill.studyfile import load_study
from edgedistill.studyray import do_one
from edgedistill.studyresult import load
from edgedistill.studyrun import Unit
from tests.build_parts import events, make_images, tool
from tests.test_study import study_file

ARMS = {"plain": {"arm": "plain"}, "kd": {"distill": {"method": "kd"}}}


def children(of: int) -> list[int]:
    """Every process below another one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = path.parent.name, path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(rest[1]) == of:
            found += [int(pid), *children(int(pid))]
    return found


def busy(of: int) -> list[int]:
    """Ray's workers that are at a run."""
    found = []
    for pid in children(of):
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::do_one"):
            found.append(pid)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this machine has no /proc")
def test_a_cluster_of_two_workers_does_the_same_runs_though_one_is_killed(tmp_path: Path) -> None:
    file = study_file(tmp_path, make_images(tmp_path / "data"), arms=ARMS)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert tool("study", file, "--out", whole).code == 0
    command = [sys.executable, "-m", "edgedistill", "study", str(file), "--out", str(out)]
    command += ["--engine", "ray", "--workers", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env
    ) as process:
        end, killed = time.monotonic() + 200, False
        while process.poll() is None and not killed:
            assert time.monotonic() < end, "no worker was at work"
            time.sleep(0.01)
            begun = list((out / "shared").glob("0[89]-*.partial"))
            if begun and (workers := busy(process.pid)):
                os.kill(workers[0], signal.SIGKILL)
                killed = True
        said = process.communicate(timeout=250)[0].decode()
    assert killed and process.returncode == 0, said
    assert "4 runs on a Ray cluster of 2 CPUs" in said and "[4/4]" in said
    mine, theirs = load(out), load(whole)
    for arm, other in zip(mine.arms, theirs.arms, strict=True):
        assert [run.weights_sha256 for run in arm.runs] == [r.weights_sha256 for r in other.runs]
        assert [run.seed for run in arm.runs] == [0, 1]
    names = [str(e["stage"]) for e in events(out) if e["event"] == "stage_done"]
    assert len(names) == len(set(names)), "no stage was done twice"


def test_a_fault_of_a_run_comes_back_from_a_worker_as_its_paragraph(tmp_path: Path) -> None:
    (tmp_path / "nan.safetensors").write_bytes(b"no weights")
    torn = {"torn": {"teacher": {"weights": str(tmp_path / "nan.safetensors")}}}
    study = load_study(study_file(tmp_path, make_images(tmp_path / "data"), arms=torn))
    fault = do_one(study, str(tmp_path / "out"), "edgedistill study", Unit("torn", "distilled", 0))
    assert fault is not None and fault[1] == 2
    assert fault[0].startswith("arm torn, seed 0: ") and "nan.safetensors" in fault[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--workers", 2), "--workers and --address are of --engine ray"),
        (("--engine", "ray", "--workers", 2, "--address", "auto"), "give no --workers"),
        (("--engine", "dask"), "Invalid value for '--engine'"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_made(
    tmp_path: Path, options: tuple[object, ...], words: str
) -> None:
    file = study_file(tmp_path, make_images(tmp_path / "data"), arms=ARMS)
    ran = tool("study", file, "--out", tmp_path / "out", *options)
    assert ran.code == 2 and words in ran.text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "ray://:1", "127.0.0.1:x"])
def test_a_cluster_that_is_not_there_is_one_paragraph_at_once(tmp_path: Path, address: str) -> None:
    pytest.importorskip("ray", reason="this machine has no ray")
    file = study_file(tmp_path, make_images(tmp_path / "data"), arms=ARMS)
    out = tmp_path / "out"
    ran = tool("study", file, "--out", out, "--engine", "ray", "--address", address)
    assert ran.code == 2, ran.err
    assert f"the Ray cluster {address} cannot be used" in ran.text
