"""Killed with `kill -9` and started again, a build ends with the weights of an unbroken one.

A short form of `benchmarks/kill_test.py`, which kills in every stage.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.kill_test import WEIGHTS, checkpointed, differences, kill_in_stage, writing
from tests.build_parts import SMALL, make_images, tool


@pytest.mark.slow
def test_killed_in_a_write_and_in_training_a_build_ends_with_the_same_weights(
    tmp_path: Path,
) -> None:
    import torch

    torch.set_num_threads(1)
    reference, run = tmp_path / "unbroken", tmp_path / "killed"
    arguments = [
        "build", *SMALL, "--data", str(make_images(tmp_path / "data")), "--until", "distilled",
        "--set", "distill.epochs=8", "--set", "distill.views=2", "--out",
    ]  # fmt: skip
    command = [sys.executable, "-m", "edgedistill", *arguments, str(run)]
    kill_in_stage(writing("04-teacher", "teacher.safetensors"), command, run)
    assert not (run / "stages" / "04-teacher").exists()
    kill_in_stage(replace(checkpointed("09-distilled", "distilled"), delay_s=0), command, run)
    kept = run / "stages" / "09-distilled.partial" / "distilled.checkpoint"
    saved = torch.load(kept, weights_only=True)
    assert 0 < saved["step"] < 8, "killed in the middle of training"

    for folder in (run, reference):
        ran = tool(*arguments, folder)
        assert ran.code == 0, ran.err
    assert differences(reference, run, WEIGHTS) == []
    litter = [path.name for path in run.rglob("*") if path.name.endswith((".tmp", ".partial"))]
    assert litter == []
