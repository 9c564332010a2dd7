"""torchdistill at the same work: its `DistillationBox` with its `KDLoss` (CE + KL at T, weights 1 and 1).

Run in an environment with torchdistill and timm:
python -m benchmarks.other_tools.run_torchdistill --work DIR --scratch DIR

The box, its losses, hooks, optimiser and schedule are torchdistill's own, built from a configuration as its YAML files
give it. The loop around it is the user's part there; this one makes the calls of its image classification example,
without its log lines. AdamW, one-cycle schedule by steps (linear warm-up, cosine), a live teacher on the batch that the
student sees. It has no Alignment/Uniformity loss and no stored targets, so it does less work a step than the others.
"""

from __future__ import annotations

import importlib
import time
from importlib.metadata import version
from typing import Any

import torch
from torch.utils.data import RandomSampler

from benchmarks.other_tools.common import WARMUP, Outcome, Timed, Work, described, marks, runner


def configuration(work: Work, epochs: int, steps: int, workers: int) -> dict[str, Any]:
    """The training configuration, as torchdistill's YAML files have it."""
    chosen = work.settings
    kd = {
        "student_module_path": ".", "student_module_io": "output",
        "teacher_module_path": ".", "teacher_module_io": "output",
        "temperature": chosen.temperature, "alpha": 1.0, "beta": 1.0, "reduction": "batchmean",
    }  # fmt: skip
    loading = {"num_workers": workers, "persistent_workers": workers > 0}
    one_cycle = {
        "max_lr": chosen.lr, "total_steps": epochs * steps, "pct_start": WARMUP,
        "anneal_strategy": "cos", "cycle_momentum": False,
    }  # fmt: skip
    return {
        "num_epochs": epochs,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler},
            "kwargs": {"batch_size": chosen.batch, **loading},
        },
        "teacher": {"forward_proc": "forward_batch_only", "sequential": [], "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "sequential": [], "requires_grad": True},
        "optimizer": {
            "key": "AdamW",
            "kwargs": {"lr": chosen.lr, "weight_decay": chosen.weight_decay},
        },
        "scheduler": {"key": "OneCycleLR", "kwargs": one_cycle, "scheduling_step": 1},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {
                "sub_terms": {"kd": {"criterion": {"key": "KDLoss", "kwargs": kd}, "weight": 1.0}}
            },
        },
    }


def main() -> None:
    """Train, test, and tell."""
    given = runner(__doc__ or "").parse_args()
    distillation = importlib.import_module("torchdistill.core.distillation")
    work = Work.open(given.work)
    epochs = given.epochs or work.settings.epochs
    torch.manual_seed(given.seed)
    began = time.perf_counter()
    data = {"train": work.images("train", train=True), "val": work.images("val")}
    steps = -(-len(data["train"]) // work.settings.batch)
    last = given.channels_last
    box = distillation.get_distillation_box(
        work.teacher(channels_last=last), work.student(given.seed, channels_last=last), data,
        configuration(work, epochs, steps, given.workers), torch.device("cpu"), None, False, 1,
    )  # fmt: skip
    box.train_data_loader = timed = Timed(box.train_data_loader)
    for epoch in range(epochs):
        box.pre_epoch_process(epoch=epoch)
        for batch, targets, supplement in timed:
            box.post_forward_process(box.forward_process(batch, targets, supplement))
        marks(box.student_model, data["val"])
        box.post_epoch_process()
    seconds = time.perf_counter() - began
    test = work.tested()
    Outcome(
        "torchdistill", version("torchdistill"), given.seed, epochs, timed.images, timed.seconds,
        seconds, marks(box.student_model, test), None,
        described(given, "CE + KL"),
    ).tell()  # fmt: skip


if __name__ == "__main__":
    main()
