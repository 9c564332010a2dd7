"""The training engine: one loop for teachers and students, for one process or many, resumable to the bit.

Order, views and rates are pure functions of (seed, epoch, step); what is not (weights, optimiser, averages, random
states) is in the checkpoint. Killed anywhere and started again, it ends with the same weights on the same machine.
Under `accelerate launch` each process takes its part of every batch; `batch_size` is that of all together.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgedistill import crew
from edgedistill.data.views import Views
from edgedistill.distill.depthwise import speed_up
from edgedistill.distill.facts import Fitted, Images, Schedule, kept
from edgedistill.distill.hard import HardStage
from edgedistill.distill.network import Network
from edgedistill.distill.objectives import Batch, Objective
from edgedistill.distill.optim import freeze, optimizer, param_groups
from edgedistill.distill.order import order_of
from edgedistill.distill.pruning import Pruner
from edgedistill.distill.schedules import rate, side
from edgedistill.distill.truth import class_shares, labelled_share
from edgedistill.errors import StoppedError
from edgedistill.nets import Ints, Look, is_out_of_memory, state_bytes, torch_bytes
from edgedistill.progress import Face
from edgedistill.result import CurvePoint
from edgedistill.rundir import Work
from edgedistill.teacher.course import Course

CHECKPOINT_STEPS, EPOCH_STEPS = 200, 100
"""A checkpoint is written after so many steps, and at the end of an epoch when the last one is so many steps old."""
STATE = ("step", "passes", "seconds", "micro", "lowered", "restarts", "best", "best_epoch")
LOOK_STEPS = 20
"""A loss that is not finite is noticed after this many steps at most; a look at every one would hold up a GPU."""
MOST_RESTARTS = 3
LOWER = 0.5


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
        course: Course,
        schedule: Schedule,
        hard: HardStage | None = None,
        pruner: Pruner | None = None,
    ) -> None:
        self.name, self.objective, self.images = name, objective, images
        self.look, self.views, self.course, self.schedule = look, views, course, schedule
        self.hard, self.pruner = hard, pruner
        freeze(model, schedule.frozen_share)
        extras = [*objective.modules, *([pruner] if pruner is not None else [])]
        self.net = Network(model, extras, schedule.frozen_norm, schedule.ema, schedule.compile)
        self.model = model
        self.device = self.net.device
        self.optimizer = optimizer(
            schedule.optimizer,
            param_groups(
                model, objective.modules, schedule.lr, schedule.weight_decay,
                schedule.body_lr_ratio, schedule.layer_decay,
            ),
        )  # fmt: skip
        self.canvas = self.net.place(images.canvas)
        self.label_weights = images.label_weights
        learned_from = images.labels >= 0 if objective.labels_only else np.ones_like(images.labels)
        self.rows: Ints = np.flatnonzero(learned_from)
        self.per_epoch = schedule.steps_per_epoch(images.own)
        self.total = schedule.epochs * self.per_epoch
        self.step, self.passes, self.seconds = 0, 0, 0.0
        self.saved: int | None = None
        self.micro, self.lowered, self.restarts = schedule.batch_size, 1.0, 0
        self.best, self.best_epoch = -1.0, 0
        self.curve: list[CurvePoint] = []
        self.notes: list[str] = []
        self.sums: dict[str, Tensor] = {}
        self.shuffled: tuple[int, bool, Ints] | None = None

    def run(self, work: Work, face: Face) -> Fitted:
        """Train to the end, with checkpoints. Raises `StoppedError` when the loss runs away again and again."""
        torch.manual_seed(self.schedule.seed + crew.rank())
        if not self._resume(work, "checkpoint"):
            self._save(work, "begin")
        undo = speed_up(self.model) if self.schedule.precision == "float32" else lambda: None
        try:
            self._loop(work, face)
        finally:
            undo()
        crew.told("trained")  # what the leader wrote is there
        if self.schedule.patience is not None:
            self.net.load(work.path(f"{self.name}.best").read_bytes())
        self.net.finish()
        early = self.schedule.patience is not None and self.best_epoch > 0
        last = self.curve[self.best_epoch - 1 if early else -1]
        assert last.val_top1 is not None
        return Fitted(
            tuple(self.curve), self.step, self.seconds, last.val_top1, last.val_loss, self.passes,
            tuple(self.notes),
        )  # fmt: skip

    def _loop(self, work: Work, face: Face) -> None:
        with face.bar(f"{self.name}: training", self.total) as bar:
            bar(self.step)
            while self.step < self.total and not self._given_up():
                start, before = time.monotonic(), self.step
                epoch = self.step // self.per_epoch
                self._enter(epoch, work, face)
                self._train_step(epoch, face)
                if self.step == before:  # it did not fit in memory
                    continue
                ends = self.step % self.per_epoch == 0
                if (ends or self.step % LOOK_STEPS == 0) and not self._finite():
                    self._go_back(work, face)
                elif ends:
                    self._end_epoch(epoch, work, face)
                self.seconds += time.monotonic() - start
                bar(self.step - before)
                if self.step % CHECKPOINT_STEPS == 0 or (ends and self._due()):
                    self._save(work, "checkpoint")

    def _due(self) -> bool:
        """Whether the end of an epoch is worth a checkpoint: the first and the last, and some steps after another; with
        early stop every one, beside the weights that may ship.
        """
        old = self.saved is None or self.step - self.saved >= EPOCH_STEPS
        return old or self.step == self.total or self.schedule.patience is not None

    def _given_up(self) -> bool:
        """Whether validation has not risen for as many epochs as the recipe has patience for."""
        patience = self.schedule.patience
        return patience is not None and len(self.curve) - self.best_epoch >= patience > 0

    def _enter(self, epoch: int, work: Work, face: Face) -> None:
        """At the first step of the last stage: which rows are hard, and how the student answers now."""
        if self.hard is not None and epoch >= self.hard.first_epoch and not self.hard.begun:
            note = self.hard.begin(work, self.name, self.net, self.images, self.look, epoch)
            self.notes += [note] if note not in self.notes else []
            face.detail(f"{self.name}: {note}")

    def batch(self, epoch: int, step: int) -> Ints:
        """Rows of one step over all processes: shuffled by (seed, epoch) alone; a short set comes round again."""
        hard = self.hard if self.hard is not None and self.hard.acts(epoch) else None
        size = min(self.schedule.batch_size, self.images.own)
        size -= size % crew.size()
        if self.shuffled is None or self.shuffled[:2] != (epoch, hard is not None):
            rng = np.random.default_rng([self.schedule.seed, epoch])
            extra = self.images.synthetic
            among = 0 if extra is None else extra.count(epoch, self.schedule.epochs, size)
            order = order_of(rng, self.rows, self.images.own, size, self.per_epoch, among)
            order = order if hard is None else hard.among(rng, order, size)
            self.shuffled = (epoch, hard is not None, order)
        at = step % self.per_epoch
        return self.shuffled[2][at * size : (at + 1) * size]

    def _train_step(self, epoch: int, face: Face) -> None:
        whole = self.batch(epoch, self.step)
        index = whole[crew.rank() :: crew.size()]
        factor = rate(self.step, self.total, self.schedule.warmup, self.schedule.lr_schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor * self.lowered
        try:
            values = self._learn(index, epoch)
        except RuntimeError as error:
            if not is_out_of_memory(error) or crew.size() > 1 or self.micro < 2:
                raise
            self._smaller(len(index), face)
            return
        for key, value in values.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value
        self.step += 1
        self.passes += len(whole)

    def _learn(self, index: Ints, epoch: int) -> dict[str, Tensor]:
        """One step of the optimiser over micro-batches; the loss and its parts, weighted by their images."""
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        values: dict[str, Tensor] = {}
        for start in range(0, len(index), self.micro):
            part = index[start : start + self.micro]
            share = len(part) / len(index)
            last = start + self.micro >= len(index)
            with self.net.accumulating(last):
                loss, parts = self._loss(part, epoch)
                (loss * share).backward()  # type: ignore[no-untyped-call]
            for key, value in {"loss": loss, **parts}.items():
                values[key] = values.get(key, 0) + value.detach() * share
        if self.schedule.clip is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.schedule.clip)
        if self.pruner is not None:
            self.pruner.observe(self.model)
        self.optimizer.step()
        if self.pruner is not None:
            self.pruner.prune(self.model, (self.step + 1) / self.total)
        self.net.average(self.step)
        return values

    def _loss(self, index: Ints, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        lesson = self.course.lesson(epoch)
        size = side(epoch, self.schedule.epochs, self.look.size, self.schedule.first_size)
        pixels = self.views.pixels(self.canvas, index, lesson.view, size, self.device)
        x = self.look.normalise(pixels).to(self.net.dtype)
        labels = torch.from_numpy(self.images.labels[index]).to(self.device)
        anchor = None
        if self.hard is not None and self.hard.acts(epoch):
            anchor = self.hard.answers(x)
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.schedule.precision == "bfloat16"
        ):
            features, logits = self.net(x)
        count, known, soft, labelled = len(self.images.labels), self.images.labels, None, None
        mixture, weights = self.views.mixture(index, lesson.view, count), self.label_weights
        if mixture is not None or weights is not None:
            shares = class_shares(known, index, mixture, logits.shape[1], weights)
            soft = torch.from_numpy(shares).to(logits.device)
        if weights is not None or (known < 0).any():
            whole = self.batch(epoch, self.step)
            mixed = self.views.mixture(whole, lesson.view, count)
            labelled = labelled_share(known, whole, mixed, weights)
        batch = Batch(
            index, labels, lesson, self.step, self.step / self.total, soft, anchor, labelled
        )
        loss, parts = self.objective(features, logits, batch)
        return loss, parts

    def _smaller(self, images: int, face: Face) -> None:
        """Halve what is computed at once; gradients of the parts add up to the same step."""
        self.optimizer.zero_grad(set_to_none=True)
        self.net.free()
        self.micro = max(1, min(self.micro, images) // 2)
        note = (
            f"a step did not fit in memory: {self.micro} images at once from step {self.step + 1} on, "
            "gradients accumulated (contrast and BatchNorm see the smaller part)"
        )
        self.notes.append(note)
        face.say(f"{self.name}: {note}")

    def _finite(self) -> bool:
        mine = bool(torch.isfinite(self.sums["loss"]))
        return all(crew.gathered(mine))

    def _go_back(self, work: Work, face: Face) -> None:
        """After a loss that is not finite: the last checkpoint again with half the rate, then from the beginning."""
        at, lowered, notes = self.step, self.lowered * LOWER, self.notes
        self.restarts += 1
        restarts = self.restarts
        if restarts > MOST_RESTARTS:
            raise StoppedError(
                f"{self.name}: the loss is not finite at step {at} of {self.total}, also with a rate "
                f"{1 / self.lowered:.0f} times lower. Give a lower one (--set distill.lr=0.0001, or "
                "teacher.lr for the teacher) and the same command again; what was finished is kept."
            )
        if restarts > 1 or not self._resume(work, "checkpoint"):
            self._resume(work, "begin")
        self.lowered, self.restarts = lowered, restarts
        self.optimizer.zero_grad(set_to_none=True)
        note = (
            f"the loss was not finite at step {at}: back to step {self.step}, "
            f"with {100 * lowered:.3g} % of the rate"
        )
        self.notes = [*notes, note]
        face.say(f"{self.name}: {note}")
        self._save(work, "checkpoint")

    def _end_epoch(self, epoch: int, work: Work, face: Face) -> None:
        accuracy, val_loss = self.net.validate(
            self.images.val_pixels, self.images.val_labels, self.look, exact=self.step == self.total
        )
        values = {key: float(value) / self.per_epoch for key, value in self.sums.items()}
        everyone = crew.gathered(values)
        means = {key: sum(v[key] for v in everyone) / len(everyone) for key in values}
        self.sums = {}
        loss = means.pop("loss")
        self.curve.append(
            CurvePoint(
                epoch=epoch + 1, loss=loss, val_top1=accuracy, parts=means,
                val_loss=val_loss if math.isfinite(val_loss) else None,
                seconds=round(self.seconds, 3), lr=max(g["lr"] for g in self.optimizer.param_groups),
            )
        )  # fmt: skip
        if self.pruner is not None and not self.pruner.ended:
            self.best_epoch = (
                epoch + 1
            )  # what is too wide yet cannot ship, and patience has not begun
        elif accuracy > self.best:
            self.best, self.best_epoch = accuracy, epoch + 1
            if self.schedule.patience is not None:
                work.write(f"{self.name}.best", state_bytes(self.net.learned))
        if epoch + 1 in self.schedule.keep:
            work.write(kept(self.name, epoch + 1), state_bytes(self.net.learned))
        face.curve(self.name, self.curve, self.schedule.epochs)

    def _save(self, work: Work, kind: str) -> None:
        randomness = crew.gathered(self.net.randomness())
        self.saved = self.step if kind == "checkpoint" else None
        if not crew.leads():
            return
        state: dict[str, Any] = {
            **{name: getattr(self, name) for name in STATE},
            "notes": self.notes,
            "sums": self.sums,
            "curve": [point.model_dump() for point in self.curve],
            "net": self.net.state(),
            "optimizer": self.optimizer.state_dict(),
            "randomness": randomness,
        }
        work.write(f"{self.name}.{kind}", torch_bytes(state))

    def _resume(self, work: Work, kind: str) -> bool:
        """Whether there was such a checkpoint; everything is as it says then."""
        if not crew.told(work.has(f"{self.name}.{kind}")):
            return False
        path = work.path(f"{self.name}.{kind}")
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name in STATE:
            setattr(self, name, state[name])
        self.notes, self.shuffled = list(state["notes"]), None
        self.saved = self.step if kind == "checkpoint" else None
        self.sums = {key: value.to(self.device) for key, value in state["sums"].items()}
        self.curve = [CurvePoint.model_validate(point) for point in state["curve"]]
        self.net.restore(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.net.set_randomness(state["randomness"][crew.rank() % len(state["randomness"])])
        if self.hard is not None:
            begun = self.step > self.hard.first_epoch * self.per_epoch
            self.hard.again(work, self.name, self.model, begun)
        return True
