"""A generator trained by two processes under `accelerate launch` follows one process with the same batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers")

from safetensors.numpy import load_file

from tests.build_parts import make_images

HOME = Path(__file__).parent.parent.parent


def train(data: Path, out: Path, processes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `edgedistill synth train` says of itself, and the weights that it leaves."""
    paths = os.pathsep.join([str(HOME), str(HOME / "export")])
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_machines", "1",
        "--num_processes", str(processes), "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", "0", "-m", "edgedistill", "synth", "train", "--data", str(data),
        "--out", str(out), "--side", "12", "--steps", "8", "--batch", "8", "-q",
    ]  # fmt: skip
    env = {
        **os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": paths,
    }  # fmt: skip
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("image passes") == 1, "one process speaks"
    facts = json.loads((out / "training.json").read_text("utf-8"))
    return facts, load_file(out / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.mark.slow
def test_two_processes_train_the_generator_of_one(tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", per_class=12)
    (one, weights), (two, others) = (train(data, tmp_path / f"out{n}", n) for n in (1, 2))
    assert one["passes"] == two["passes"] == 64
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        assert np.abs(value - others[name]).max() < 1e-3, name
