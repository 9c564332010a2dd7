"""Everything that needs an accelerator, in one command and under nine minutes: tests, speed, the same weights, a study.

Runs the tests marked `gpu`; times plain, stored and live training steps (`step_cost`: ratios, images a second, share of
the card's peak, memory) and a generator of synthetic images; builds the built-in data set's arms once on the CPU of
that machine and twice on its GPU, CPU and GPU in turn, and compares seconds, validation accuracy and weights; then, in
the time that is left, runs the study of losses on the 60,000 training images of Fashion-MNIST (`--idx FOLDER` with its
four files; without it, on the built-in images). With `--out DIR` the study is kept there, and a later call with
`--parts study` goes on with it.
Prints a line for each part and writes all figures as JSON; a part that fails is an entry and not the end:

    python -m benchmarks.gpu --json gpu.json --idx fashion-mnist

`--anywhere` runs it where there is no GPU, to see that it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ontarget.machine import machine

from edgedistill.rundir import now_utc

ARMS = {"plain": "08-plain", "distilled": "09-distilled"}
STUDY: dict[str, Any] = {
    "device": "jetson",
    "student": {"model": "mobilenetv4_conv_small", "input_size": 64, "weights": "random"},
    "teacher": {"epochs": 3, "input_size": 64},
    "distill": {"epochs": 12, "batch_size": 256, "views": 4},
}
LITE0 = {"model": "tf_efficientnet_lite0"}
STUDY_ARMS: dict[str, Any] = {
    "plain": {"arm": "plain"},
    "plain_longer": {"arm": "plain", "distill": {"epochs": 16}},
    **{m: {"distill": {"method": m}} for m in ("kd", "align_uniform", "dist", "dkd")},
    "align_uniform_mocov2": {"distill": {"projector": "mocov2", "weight_schedule": "constant"}},
    "linear_probe": {"arm": "linear_probe", "student": LITE0},
    "finetune": {"arm": "finetune", "student": LITE0},
    "finetune+distill": {"student": {**LITE0, "weights": "pretrained"}},
}
PARTS = ("tests", "steps", "generator", "gpu_first", "cpu", "gpu_again", "compared", "study")
LIMIT_S = 500
"""All parts together."""


def tests(left_s: float) -> dict[str, Any]:
    """The tests marked `gpu`."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:xdist"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=left_s, check=False)
    return {"exit_code": done.returncode, "summary": done.stdout.strip().splitlines()[-1:]}


def arms(folder: Path, gpu: bool, left_s: float) -> dict[str, Any]:
    """Both arms on the built-in images: seconds, validation top-1 and the hash of the weights."""
    environment = dict(os.environ) | ({} if gpu else {"CUDA_VISIBLE_DEVICES": ""})
    command = [
        sys.executable, "-m", "edgedistill", "build", "--device", "jetson", "--quiet", "--until", "distilled",
        "--set", "distill.epochs=2", "--set", "teacher.adapt=probe", "--out", str(folder),
    ]  # fmt: skip
    start = time.monotonic()
    subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=left_s, check=True
    )
    found: dict[str, Any] = {"seconds": round(time.monotonic() - start, 1)}
    for arm, stage in ARMS.items():
        facts = json.loads((folder / "stages" / stage / "done.json").read_text("utf-8"))["facts"]
        found[arm] = {
            "training_seconds": round(facts["training_seconds"], 2),
            "steps": facts["steps"],
            "val_top1": facts["val_top1"],
            "weights_sha256": facts["weights_sha256"],
        }
    return found


def steps(folder: Path, cuda: bool, left_s: float) -> list[dict[str, Any]]:
    """Times of plain, stored and live steps."""
    out = folder / "steps.json"
    more = ["--batch", "512", "--precision", "bfloat16"] if cuda else ["--rounds", "3"]
    command = [sys.executable, "-m", "benchmarks.step_cost", "--json", str(out), *more]
    subprocess.run(command, capture_output=True, text=True, timeout=min(left_s, 150), check=False)
    found: list[dict[str, Any]] = json.loads(out.read_text("utf-8"))
    return found


def generator(folder: Path, cuda: bool, left_s: float) -> dict[str, Any]:
    """Images a second of a generator's training, and of the images that it makes; needs diffusers."""
    out = folder / "generator.json"
    more = ["--batch", "512", "--steps", "200", "--images", "4096"] if cuda else ["--steps", "10"]
    command = [sys.executable, "-m", "benchmarks.generator_speed", "--json", str(out), *more]
    subprocess.run(command, capture_output=True, text=True, timeout=min(left_s, 90), check=True)
    found: dict[str, Any] = json.loads(out.read_text("utf-8"))
    return found


def study(folder: Path, idx: Path | None, left_s: float) -> dict[str, Any]:
    """The study of losses; after each run it writes down what there is, so that the end of time costs one run."""
    recipe = STUDY | {"data": {"source": str(idx)}} if idx else STUDY
    folder.mkdir(parents=True, exist_ok=True)
    file, out = folder / "losses.json", folder / "study"
    file.write_text(
        json.dumps({"name": "losses", "seeds": 3, "recipe": recipe, "arms": STUDY_ARMS})
    )
    command = [sys.executable, "-m", "edgedistill", "study", str(file), "--out", str(out), "-q"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, text=True, timeout=left_s, check=True)
    found: dict[str, Any] = json.loads((out / "study.json").read_text("utf-8"))
    return found


def compared(first: dict[str, Any], again: dict[str, Any], cpu: dict[str, Any]) -> dict[str, Any]:
    """The GPU against itself and against the CPU beside it."""
    return {
        arm: {
            "same_weights_again": first[arm]["weights_sha256"] == again[arm]["weights_sha256"],
            "times_faster_than_cpu": round(
                cpu[arm]["training_seconds"] / again[arm]["training_seconds"], 2
            ),
            "val_top1": [first[arm]["val_top1"], again[arm]["val_top1"], cpu[arm]["val_top1"]],
        }
        for arm in ARMS
    }


def main() -> int:
    """Exit code 0 when every part ended well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--idx", type=Path, help="folder with the idx files of Fashion-MNIST")
    parser.add_argument("--out", type=Path, help="keep the study in this folder, and go on with it")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to run")
    parser.add_argument("--anywhere", action="store_true", help="run without a GPU too")
    args = parser.parse_args()
    import torch

    cuda = torch.cuda.is_available()
    if not (cuda or args.anywhere):
        parser.error("this machine has no GPU: run it where there is one, or with --anywhere")
    report: dict[str, Any] = {
        "when": now_utc(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "torch": torch.__version__,
        "machine": machine(),
    }
    end = time.monotonic() + LIMIT_S
    with tempfile.TemporaryDirectory(prefix="edgedistill-gpu-") as name:
        folder = Path(name)
        parts: dict[str, Callable[[], Any]] = {
            "tests": lambda: tests(end - time.monotonic()),
            "steps": lambda: steps(folder, cuda, end - time.monotonic()),
            "generator": lambda: generator(folder, cuda, end - time.monotonic()),
            "gpu_first": lambda: arms(folder / "first", True, end - time.monotonic()),
            "cpu": lambda: arms(folder / "cpu", False, end - time.monotonic()),
            "gpu_again": lambda: arms(folder / "again", True, end - time.monotonic()),
            "compared": lambda: compared(report["gpu_first"], report["gpu_again"], report["cpu"]),
            "study": lambda: study(args.out or folder, args.idx, end - time.monotonic()),
        }
        for part in args.parts:
            run = parts[part]
            try:
                report[part] = run()
            except subprocess.CalledProcessError as error:
                report[part] = {"error": str(error.stderr)[-1500:]}
            except (subprocess.TimeoutExpired, KeyError, OSError) as error:
                report[part] = {"error": f"{type(error).__name__}: {error}"}
            print(part, json.dumps(report[part]), flush=True)
    text = json.dumps(report, indent=1) + "\n"
    if args.json:
        args.json.write_text(text, "utf-8")
    good = report.get("tests", {"exit_code": 0}).get("exit_code") == 0
    return 0 if good and not any("error" in report[part] for part in args.parts) else 1


if __name__ == "__main__":
    raise SystemExit(main())
