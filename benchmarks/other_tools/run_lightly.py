"""LightlyTrain at the same work, as far as it goes: distillation of features, then its own supervised fine-tuning.

Run in an environment with lightly-train and timm:
python -m benchmarks.other_tools.run_lightly --work DIR --scratch DIR

Its distillation (`method="distillation"`, version 3) takes any network as teacher, so ours too, live: the student
learns the teacher's pooled and local features of mixed-up images, by similarities to a queue, without labels or logits.
There is no classifier after it. That comes from `train_image_classification`, which knows labels and no teacher. So the
epochs are divided: the first half distils, the rest fine-tunes from the exported weights; each image is seen as often
as by the other tools. With `--whole` both parts have all epochs, so that each image is seen as often under the teacher
and as often under labels as by the other tools, which do both at once. What it cannot be made to do: CE, KL and A/U
together; the student's own head (its classifier is one linear layer on the pooled last map, without the convolution in
front of the head); stored targets.

Optimisers, rates, gradient clipping and mixup are its own defaults. The crops, the mirror, the normalisation, the size
and the batch are those of the work; its colour jitter, blur and greying are off, as with the others. Usage statistics
are off.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.other_tools.common import Outcome, Work, described, marks, runner


class Clock:
    """The time of optimiser steps: from the end of the first step to that of the last one, scaled to all of them."""

    def __init__(self) -> None:
        self.times: list[float] = []
        register_optimizer_step_post_hook(lambda *_: self.times.append(time.perf_counter()))

    def seconds(self) -> float:
        """Seconds of the steps since the last call."""
        times, self.times = self.times, []
        return (times[-1] - times[0]) * len(times) / (len(times) - 1)


class Logits(nn.Module):
    """The class scores of its fine-tuned model, (B, C)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        """Scores of normalised images (B, 3, S, S)."""
        return self.model.forward_backend(x)


class Teaching(nn.Module):
    """A timm teacher as its documentation wants a custom network: a map and a pooled vector of `num_features` channels.

    Its own wrapper takes the map in front of an EfficientNet's last convolution and expects the channels behind it.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def feature_dim(self) -> int:
        """Channels D."""
        return int(self.model.num_features)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """The last map (B, D, H, W)."""
        return {"features": self.model.forward_features(x)}

    def forward_pool(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Its mean over places (B, D, 1, 1)."""
        return {"pooled_features": x["features"].mean((2, 3), keepdim=True)}

    def get_model(self) -> Any:
        """The timm network."""
        return self.model


def views(work: Work, crop: str) -> dict[str, Any]:
    """Its image transforms, set to those of the work; `crop` is its word for the random crop."""
    chosen = work.settings
    return {
        "image_size": (chosen.size, chosen.size),
        crop: {"min_scale": chosen.min_crop, "max_scale": 1.0},
        "random_flip": {"horizontal_prob": 0.5, "vertical_prob": 0.0},
        "color_jitter": None,
        "normalize": {"mean": chosen.mean, "std": chosen.std},
    }


def main() -> None:
    """Distil, fine-tune, test, and tell."""
    os.environ["LIGHTLY_TRAIN_EVENTS_DISABLED"] = "1"
    parser = runner(__doc__ or "")
    parser.add_argument("--whole", action="store_true", help="all epochs for each part")
    given = parser.parse_args()
    scratch = given.scratch.resolve()
    os.environ["LIGHTLY_TRAIN_CACHE_DIR"] = str(scratch / "cache")
    for name in ("distilled", "tuned", "cache"):
        shutil.rmtree(scratch / name, ignore_errors=True)
    lightly: Any = importlib.import_module("lightly_train")
    work = Work.open(given.work)
    epochs = given.epochs or work.settings.epochs
    first = epochs if given.whole else max(1, epochs // 2)
    clock = Clock()
    began = time.perf_counter()
    distil(lightly, work, given, first, scratch / "distilled")
    training = clock.seconds()
    rest = epochs if given.whole else epochs - first
    weights = scratch / "distilled" / "exported_models" / "exported_last.pt"
    tune(lightly, work, given, rest, weights, scratch / "tuned")
    training += clock.seconds()
    seconds = time.perf_counter() - began
    tuned = lightly.load_model(scratch / "tuned" / "exported_models" / "exported_last.pt")
    test = work.tested()
    Outcome(
        "lightly-train", version("lightly-train"), given.seed, epochs,
        (first + rest) * work.settings.train, training, seconds, marks(Logits(tuned), test), None,
        described(given, f"features for {first} epochs, then CE for {rest}"),
    ).tell()  # fmt: skip


def distil(lightly: Any, work: Work, given: argparse.Namespace, epochs: int, out: Path) -> None:
    """Its distillation of features, with the work's teacher and the student's start weights."""
    last = given.channels_last
    teacher, student = (
        work.teacher(channels_last=last),
        work.student(given.seed, channels_last=last),
    )
    lightly.pretrain(
        out=out, data=work.folder / "images" / "train", model=student,
        method="distillation", method_args={"teacher": Teaching(teacher)},
        epochs=epochs, batch_size=work.settings.batch, num_workers=given.workers, seed=given.seed,
        accelerator="cpu", devices=1, precision="32-true", loggers={"tensorboard": None},
        transform_args={
            **views(work, "random_resize"), "random_gray_scale": None, "gaussian_blur": None,
        },
    )  # fmt: skip


def tune(
    lightly: Any, work: Work, given: argparse.Namespace, epochs: int, weights: Path, out: Path
) -> None:
    """Its supervised fine-tuning of the distilled student; it validates at the end only."""
    chosen = work.settings
    steps = max(2, epochs * (chosen.train // chosen.batch))
    lightly.train_image_classification(
        out=out, model=f"timm/{chosen.student}",
        data={
            "train": work.folder / "images" / "train",
            "val": work.folder / "images" / "val",
            "classes": dict(enumerate(chosen.classes)),
        },
        steps=steps, batch_size=chosen.batch, num_workers=given.workers, seed=given.seed,
        accelerator="cpu", devices=1, precision="32-true", gradient_accumulation_steps=1,
        model_args={
            "backbone_weights": str(weights), "backbone_args": {"num_classes": len(chosen.classes)},
        },
        transform_args=views(work, "random_crop"),
        logger_args={"tensorboard": None, "val_every_num_steps": steps},
    )  # fmt: skip


if __name__ == "__main__":
    main()
