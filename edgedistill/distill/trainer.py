"""The training engine: one loop for teachers and students, resumable to the bit.

Order, views and learning rate are pure functions of (seed, epoch, step); what is not (weights, optimiser, random
states) is in the checkpoint. Killed anywhere and started again, it ends with the same weights on the same machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from edgedistill.data.views import Views
from edgedistill.distill.depthwise import speed_up
from edgedistill.distill.schedules import cosine
from edgedistill.errors import StoppedError
from edgedistill.metrics import top1
from edgedistill.nets import Ints, Look, Pixels, bn_layers, forward, outputs, torch_bytes
from edgedistill.progress import Face
from edgedistill.result import CurvePoint
from edgedistill.rundir import Work

CHECKPOINT_STEPS = 50
BN_MOMENTUM = 0.1
"""TensorFlow-ported nets carry 0.01, with which running statistics do not arrive within a few hundred steps."""


@dataclass(frozen=True)
class Images:
    """Training canvases (N, K, K, 3) with labels (N,), and validation pixels (M, S, S, 3) with labels (M,)."""

    canvas: Pixels
    labels: Ints
    val_pixels: Pixels
    val_labels: Ints


@dataclass(frozen=True)
class Schedule:
    """Epochs, images a step, peak learning rate, decay, share of warm-up, and the seed of order and dropout.

    `frozen_norm`: BatchNorm layers keep their pretrained statistics (their weights still learn). `frozen_share` of
    the layers, from the input on, keep everything.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup: float
    seed: int
    frozen_norm: bool = False
    frozen_share: float = 0.0

    def steps_per_epoch(self, images: int) -> int:
        """Whole batches in an epoch; a set smaller than a batch is one step."""
        return max(1, images // self.batch_size)


class Objective(Protocol):
    """What is minimised: a scalar in nats and its named parts, from features, logits and labels of one batch."""

    modules: Sequence[nn.Module]

    def __call__(
        self, features: Tensor, logits: Tensor, labels: Tensor, view: int, index: Ints
    ) -> tuple[Tensor, dict[str, Tensor]]: ...


@dataclass(frozen=True)
class Fitted:
    """A finished training: its curve, steps, seconds, and last validation accuracy. The model holds the weights."""

    curve: tuple[CurvePoint, ...]
    steps: int
    seconds: float
    val_top1: float


def param_groups(
    model: nn.Module, extra: Sequence[nn.Module], lr: float, decay: float, body_ratio: float
) -> list[dict[str, Any]]:
    """AdamW groups: matrices decay, vectors do not; the body of a pretrained net may learn at a lower rate."""
    net: Any = model
    head = {id(p) for p in net.get_classifier().parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in (model, *extra):
        for p in module.parameters():
            if not p.requires_grad:
                continue
            rate = lr * body_ratio if module is model and id(p) not in head else lr
            groups.setdefault((rate, decay if p.ndim > 1 else 0.0), []).append(p)
    return [
        {"params": params, "lr": rate, "peak": rate, "weight_decay": wd}
        for (rate, wd), params in groups.items()
    ]


def freeze(model: nn.Module, share: float) -> int:
    """Stop the first `share` of timm's layer groups from learning; returns how many parameters that is."""
    matcher: Any = getattr(model, "group_matcher", None)
    if share <= 0 or matcher is None:
        return 0
    groups: dict[int, list[str]] = group_parameters(model, matcher(coarse=False))
    first = sorted(groups)[: int(share * len(groups))]
    named = dict(model.named_parameters())
    count = 0
    for name in (n for group in first for n in groups[group]):
        named[name].requires_grad_(False)
        count += named[name].numel()
    return count


class Trainer:
    """Trains one network to the end of a schedule; `run` resumes from the checkpoint of a broken try."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        objective: Objective,
        images: Images,
        look: Look,
        views: Views,
        schedule: Schedule,
        device: torch.device,
        body_ratio: float = 1.0,
    ) -> None:
        self.name, self.objective, self.images = name, objective, images
        self.look, self.views, self.schedule, self.device = look, views, schedule, device
        self.model: nn.Module = model.to(device).to(memory_format=torch.channels_last)
        for module in objective.modules:
            module.to(device)
        freeze(model, schedule.frozen_share)
        self.frozen = [
            layer
            for layer in bn_layers(model)
            if schedule.frozen_norm or not any(p.requires_grad for p in layer.parameters())
        ]
        for layer in bn_layers(model):
            layer.momentum = BN_MOMENTUM
        self.optimizer = torch.optim.AdamW(
            param_groups(model, objective.modules, schedule.lr, schedule.weight_decay, body_ratio),
            fused=True,
        )
        self.per_epoch = schedule.steps_per_epoch(len(images.labels))
        self.total = schedule.epochs * self.per_epoch
        self.step = 0
        self.seconds = 0.0
        self.curve: list[CurvePoint] = []
        self.sums: dict[str, float] = {}

    def run(self, work: Work, face: Face) -> Fitted:
        """Train to the end, with a checkpoint as it goes. Raises `StoppedError` on a loss that is not finite."""
        torch.manual_seed(self.schedule.seed)
        self._resume(work)
        undo = speed_up(self.model)
        try:
            self._loop(work, face)
        finally:
            undo()
        last = self.curve[-1].val_top1
        assert last is not None
        return Fitted(tuple(self.curve), self.total, self.seconds, last)

    def _loop(self, work: Work, face: Face) -> None:
        with face.bar(f"{self.name}: training", self.total) as advance:
            advance(self.step)
            while self.step < self.total:
                start = time.monotonic()
                epoch = self.step // self.per_epoch
                self._train_step(epoch)
                advance(1)
                if self.step % self.per_epoch == 0:
                    self._end_epoch(epoch, face)
                self.seconds += time.monotonic() - start
                if self.step % CHECKPOINT_STEPS == 0 or self.step % self.per_epoch == 0:
                    self._save(work)

    def batch(self, epoch: int, step: int) -> Ints:
        """Indices of one step: a permutation that depends on (seed, epoch) alone."""
        rng = np.random.default_rng([self.schedule.seed, epoch])
        order = rng.permutation(len(self.images.labels))
        at = step % self.per_epoch
        return order[at * self.schedule.batch_size : (at + 1) * self.schedule.batch_size]

    def _train_step(self, epoch: int) -> None:
        index = self.batch(epoch, self.step)
        view = epoch % self.views.count
        factor = cosine(self.step, self.total, self.schedule.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.model.train()
        for layer in self.frozen:
            layer.eval()
        x = cut(self.images.canvas, index, view, self.views, self.look, self.device)
        labels = torch.from_numpy(self.images.labels[index]).to(self.device)
        features, logits = forward(self.model, x)
        loss, parts = self.objective(features, logits, labels, view, index)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        value = float(loss.detach())
        if not np.isfinite(value):
            raise StoppedError(
                f"{self.name}: the loss became {value} at step {self.step + 1} of {self.total}. "
                "Give a lower rate (--set distill.lr=0.0003, or teacher.lr for the teacher) and "
                "the same command again; what was finished before is kept."
            )
        self._add({"loss": value, **{k: float(v.detach()) for k, v in parts.items()}})
        self.step += 1

    def _add(self, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value

    def _end_epoch(self, epoch: int, face: Face) -> None:
        images = self.images
        fast = self.step < self.total  # the last figure decides, so it is exact
        logits = outputs(self.model, images.val_pixels, self.look, self.device, fast=fast)[1]
        accuracy = top1(logits, images.val_labels)
        means = {key: value / self.per_epoch for key, value in self.sums.items()}
        self.sums = {}
        loss = means.pop("loss")
        self.curve.append(CurvePoint(epoch=epoch + 1, loss=loss, val_top1=accuracy, parts=means))
        face.detail(
            f"{self.name}: epoch {epoch + 1} of {self.schedule.epochs}, loss {loss:.3f}, "
            f"validation top-1 {accuracy:.3f}"
        )

    def _save(self, work: Work) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "sums": self.sums,
            "curve": [point.model_dump() for point in self.curve],
            "model": self.model.state_dict(),
            "extra": [m.state_dict() for m in self.objective.modules],
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        work.write(f"{self.name}.checkpoint", torch_bytes(state))

    def _resume(self, work: Work) -> None:
        if not work.has(f"{self.name}.checkpoint"):
            return
        path = work.path(f"{self.name}.checkpoint")
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.sums = dict(state["sums"])
        self.curve = [CurvePoint.model_validate(point) for point in state["curve"]]
        self.model.load_state_dict(state["model"])
        for module, saved in zip(self.objective.modules, state["extra"], strict=True):
            module.load_state_dict(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])


def cut(
    canvas: Pixels, index: Ints, view: int, views: Views, look: Look, device: torch.device
) -> Tensor:
    """The view `view` of images `index` as network input (B, 3, S, S): a pure function of its arguments."""
    return look.normalise(views.pixels(canvas, index, view, look.size, device))


ViewOutputs = Callable[[int, Ints], tuple[Tensor, Tensor]]
"""Stored teacher features (B, D) and logits (B, C) of (view, image indices)."""
