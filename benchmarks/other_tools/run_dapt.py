"""The paper's own code (sfarhat/dapt) at the same work: its `distill.py`, run unchanged.

Run in an environment with torch, torchvision, timm, pandas and tqdm:
python -m benchmarks.other_tools.run_dapt --work DIR --scratch DIR --source DIR

`--source` is a checkout of the repository. `distill.py` is executed as a program, as its scripts do it, with its
parser, its loop and its losses: CE + KL (T = 4) + Alignment/Uniformity (weights 1, 1, 1; its projectors; AdamW with
defaults), a live teacher, validation and a checkpoint after each epoch. What it gets from outside is replaced:

- `utils.datasets.get_dataset` knows six data sets by name: it gives our images, with loaders of the given workers.
- `utils.utils.load_model` knows four networks: it gives the timm student and teacher inside `Wrapped`, which has what
  the loop asks of its own classes in `models/`.
- `wandb` is a stand-in that takes log lines and drops them.

Its own default is a constant rate; `--scheduler cosine`, which it has too, is better in a short training and is taken
(by epochs, without warm-up). What it calls the test set is our validation set, since it looks there for the best epoch;
the test is ours, on the weights of the last epoch.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import time
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.other_tools.common import Outcome, Timed, Work, described, loader, marks, runner

OPTIONS = (
    "--dataset=cifar10", "--teacher_model=resnet50", "--student_model=mobilenetv2",
    "--distill=align_uniform", "--optimizer=adamw", "--scheduler=cosine",
)  # fmt: skip
"""The names of data set and networks only name folders here; its parser wants ones that it knows."""


class Wrapped(nn.Module):
    """A timm classifier as the loop wants it: `forward(x, is_feat)`, `feat_dim`, a projector, `model`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        self.feat_dim: int = self.get_classifier().in_features
        self.projector: nn.Module | None = None

    def get_projector(self) -> nn.Module | None:
        """The projector that the loss trains."""
        return self.projector

    def get_classifier(self) -> Any:
        """The last layer."""
        return self.model.get_classifier()

    def forward(self, x: Tensor, is_feat: bool = False) -> Any:
        """Logits (B, C); with `is_feat` a list of pooled penultimate features (B, D) before them."""
        maps = self.model.forward_features(x)
        features = self.model.forward_head(maps, pre_logits=True)
        logits = self.get_classifier()(features)
        return ([maps, features], logits) if is_feat else logits


class Indexed(torch.utils.data.Dataset[Any]):
    """Images, labels and indices, as the loop unpacks them."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        image, label = self.data[index]
        return image, label, index


def silent_wandb() -> types.ModuleType:
    """A module that takes the calls that the code makes to Weights & Biases."""
    module: Any = types.ModuleType("wandb")
    module.config = types.SimpleNamespace(_items={})
    module.init = lambda *args, **kwargs: None
    module.log = lambda *args, **kwargs: None
    return module  # type: ignore[no-any-return]


def main() -> None:
    """Train by `distill.py`, test, and tell."""
    parser = runner(__doc__ or "")
    parser.add_argument("--source", type=Path, required=True, help="a checkout of sfarhat/dapt")
    given = parser.parse_args()
    work = Work.open(given.work)
    epochs = given.epochs or work.settings.epochs
    source, scratch = given.source.resolve(), given.scratch.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    paths = {"data_path": str(work.folder), "cpt_path": str(scratch), "syn_data_path": ""}
    (scratch / "paths.json").write_text(json.dumps(paths), "utf-8")
    os.chdir(scratch)
    sys.path.insert(0, str(source))
    sys.modules["wandb"] = silent_wandb()
    theirs: Any = importlib.import_module("utils.utils")
    their_data: Any = importlib.import_module("utils.datasets")
    embed: Any = importlib.import_module("models.projector").Embed
    importlib.import_module("kd_losses.crd")
    made: dict[str, Any] = {}

    def get_dataset(args: Any) -> tuple[Any, ...]:
        train, val = Indexed(work.images("train", train=True)), work.images("val")
        made["timed"] = Timed(loader(train, args.train_bs, given.workers, shuffle=True))
        testing = loader(val, args.test_bs, 0, shuffle=False)
        size = (work.settings.size,) * 2
        return train, made["timed"], None, None, val, testing, 3, len(work.settings.classes), size

    def load_model(args: Any, name: str, classes: int, init: Any = None, optim: Any = None) -> Any:
        teaches, last = init is not None, given.channels_last
        model = Wrapped(
            work.teacher(channels_last=last)
            if teaches
            else work.student(given.seed, channels_last=last)
        )
        model.projector = embed(model.feat_dim, model.feat_dim, 128, args.projector)
        made["teacher" if teaches else "student"] = model
        return model

    their_data.get_dataset, theirs.load_model = get_dataset, load_model
    sys.argv = [
        "distill.py", *OPTIONS, f"--epochs={epochs}", f"--seed={given.seed}",
        f"--train_bs={work.settings.batch}", "--test_bs=250", f"--kd_T={work.settings.temperature:g}",
    ]  # fmt: skip
    began = time.perf_counter()
    runpy.run_path(str(source / "distill.py"), run_name="__main__")
    seconds = time.perf_counter() - began
    test, timed = work.tested(), made["timed"]
    Outcome(
        "dapt", "ccdbeb1", given.seed, epochs, timed.images, timed.seconds, seconds,
        marks(made["student"], test), None,
        described(given, "CE + KL + A/U"),
    ).tell()  # fmt: skip


if __name__ == "__main__":
    main()
