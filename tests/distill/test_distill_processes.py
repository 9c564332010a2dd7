"""Several processes under `accelerate launch` follow one process with the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HOME = Path(__file__).parent.parent.parent

SCRIPT = """
import json, sys
import torch
sys.path[:0] = {paths}
torch.set_num_threads(1)
from engine_parts import Knowing, make, taught, network, work, images
from edgedistill import crew
from edgedistill.distill import trainer as engine
from edgedistill.progress import silent
from pathlib import Path

torch.set_default_dtype(torch.float64)
folder, options = work(Path({folder!r})), {options!r}
distill, unlabelled = options.pop("distill"), options.pop("unlabelled", 0)
widths = (12, 7) if options.get("teachers") else (12,)
trainer = make(
    taught(Knowing(widths), **distill), images(24, unlabelled), frozen_norm=True, batch_size=8, epochs=17,
    optimizer="sgd", lr=0.0002, **options,
)
for module in trainer.model.modules():
    if "drop_rate" in vars(module):
        module.drop_rate = 0.0
    if type(module).__name__ in ("Dropout", "DropPath"):
        module.p = module.drop_prob = 0.0
trainer.model.train()
pixels = torch.from_numpy(trainer.images.canvas[:, :32, :32]).permute(0, 3, 1, 2)
with torch.no_grad():
    for _ in range(30):  # statistics that fit the images, then frozen
        trainer.model(trainer.look.normalise(pixels.double()))
losses, real = [], trainer._learn
def learn(index, epoch):
    values = real(index, epoch)
    losses.append(sum(crew.gathered(float(values["loss"]))) / crew.size())
    return values
trainer._learn = learn
fitted = trainer.run(folder, silent())
if crew.leads():
    Path({out!r}).write_text(json.dumps({{
        "losses": losses, "val": fitted.val_top1, "passes": fitted.passes,
        "norm": float(sum(p.double().norm() for p in trainer.model.parameters())),
    }}))
"""


def train(tmp_path: Path, processes: int, **options: Any) -> dict[str, Any]:
    """Train the small student in float64 under `accelerate launch`; losses are means over the global batch."""
    out = tmp_path / f"out-{processes}.json"
    script = tmp_path / f"train-{processes}.py"
    paths = [str(HOME), str(HOME / "export"), str(Path(__file__).parent)]
    folder = str(tmp_path / f"stage-{processes}")
    script.write_text(
        SCRIPT.format(paths=paths, folder=folder, options={"distill": {}, **options}, out=str(out))
    )
    command = [sys.executable, str(script)]
    if processes > 1:
        launch = [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--cpu",
            "--num_machines",
            "1",
        ]
        more = [
            "--num_processes",
            str(processes),
            "--mixed_precision",
            "no",
            "--dynamo_backend",
            "no",
        ]
        command = [*launch, *more, "--main_process_port", "0", str(script)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(out.read_text())
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"distill": {"method": "info_nce", "influence": True}, "teachers": 2},
        {
            "distill": {
                "method": "kd",
                "weights": {"dist": 0.01},
                "influence": True,
                "warmup_align": True,
            },
            "unlabelled": 13,
        },
    ],
    ids=[
        "alignment and uniformity",
        "contrast, influence and two teachers",
        "correlations, what is misread, influence and images without labels",
    ],
)
def test_two_processes_follow_one_with_the_same_global_batch(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """51 steps of SGD in float64, BatchNorm frozen, the embedding loss over the negatives of both processes."""
    one, two = train(tmp_path, 1, **options), train(tmp_path, 2, **options)
    assert len(one["losses"]) == len(two["losses"]) == 51
    worst = max(abs(a - b) / abs(a) for a, b in zip(one["losses"], two["losses"], strict=True))
    assert worst < 1e-4
    assert two["norm"] == pytest.approx(one["norm"], rel=1e-6)
    assert one["passes"] == two["passes"] == 51 * 8
    assert one["losses"][-1] < one["losses"][0]
    assert one["val"] == two["val"]
