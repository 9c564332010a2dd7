"""The last stage of PROD (Lin et al. 2023, arXiv 2209.13335) for images: what the teacher knows and the student not.

Half of each batch are such images, the other half any, and the student is held by what it answered before (KL
divergence to its own snapshot). The paper trains on such pairs alone; with images, of which a few hundred are hard and
all contradict the student, that makes it forget the rest (docs/results.md).
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from edgedistill import crew
from edgedistill.data.views import Views
from edgedistill.distill.facts import Images
from edgedistill.distill.network import Network
from edgedistill.distill.objectives import Targets
from edgedistill.distill.order import in_turns
from edgedistill.nets import Ints, Look, forward, load_state, state_bytes
from edgedistill.rundir import Work
from edgedistill.teacher.course import Course

SHARE = 0.2
"""The last share of the epochs."""
DEEPEST = 15
"""An image whose class the student ranks below this is not hard but hopeless, or mislabelled."""
BATCH = 128


class HardStage:
    """Which rows are hard, and the student as it was before; both are files, so that a resumed run agrees."""

    def __init__(self, targets: Targets, views: Views, course: Course, least: int) -> None:
        self.targets, self.views, self.course, self.least = targets, views, course, least
        self.first_epoch = max(1, course.epochs - max(1, round(SHARE * course.epochs)))
        self.rows: Ints = np.empty(0, np.int64)
        self.snapshot: nn.Module | None = None

    @property
    def begun(self) -> bool:
        """Whether the rows were looked for."""
        return self.snapshot is not None

    def acts(self, epoch: int) -> bool:
        """Whether an epoch has hard images among the others."""
        return epoch >= self.first_epoch and len(self.rows) > 0

    def among(self, rng: np.random.Generator, order: Ints, size: int) -> Ints:
        """An epoch's order (N,) with hard images in half of the places of each batch of `size`, anywhere in it."""
        mixed = order.copy()
        mixed[::2] = in_turns(rng, self.rows, len(mixed[::2]))
        return np.asarray(rng.permuted(mixed.reshape(-1, size), axis=1).ravel(), dtype=np.int64)

    def begin(
        self, work: Work, name: str, net: Network, images: Images, look: Look, epoch: int
    ) -> str:
        """Look for the hard rows, keep the student as it is, and say how many there are."""
        lesson = self.course.lesson(epoch)
        net.model.eval()
        found = []
        for start in range(0, images.own, BATCH):
            index = np.arange(start, min(start + BATCH, images.own), dtype=np.int64)
            pixels = self.views.pixels(images.canvas, index, lesson.view, look.size, net.device)
            with torch.inference_mode():
                logits = forward(net.model, look.normalise(pixels).to(net.dtype))[1].cpu()
            labels = torch.from_numpy(images.labels[index])
            found.append(_hard(logits, self.targets(lesson, index)[1].cpu(), labels).numpy())
        rows = np.flatnonzero(np.concatenate(found)).astype(np.int64)
        rows = crew.told(rows)
        self.rows = rows if len(rows) >= self.least else rows[:0]
        self.snapshot = copy.deepcopy(net.model).eval().requires_grad_(False)
        if crew.leads():
            work.write(f"{name}.hard", self.rows.tobytes())
            work.write(f"{name}.snapshot", state_bytes(net.model))
        if not len(self.rows):
            return f"no stage of hard images: {len(rows)} are fewer than {self.least}"
        return f"{len(rows):,} hard images of {images.own:,} from epoch {epoch + 1} on"

    def again(self, work: Work, name: str, model: nn.Module, begun: bool) -> None:
        """After a checkpoint: as `begin` left it, or as if it had not begun."""
        self.rows, self.snapshot = np.empty(0, np.int64), None
        if not begun:
            return
        self.rows = np.frombuffer(work.path(f"{name}.hard").read_bytes(), np.int64)
        self.snapshot = copy.deepcopy(model)
        load_state(self.snapshot, work.path(f"{name}.snapshot"), "the student's snapshot")
        self.snapshot.eval().requires_grad_(False)

    def answers(self, x: Tensor) -> Tensor | None:
        """Logits (B, C) of the snapshot; `None` where there is no such stage."""
        if self.snapshot is None or not len(self.rows):
            return None
        with torch.no_grad():
            return forward(self.snapshot, x)[1]


def _hard(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Which rows (B,) the teacher has right while the student ranks their class second to fifteenth."""
    known = labels >= 0
    own = student.gather(1, labels.clamp_min(0)[:, None])
    rank = (student > own).sum(1)
    return known & (teacher.argmax(1) == labels) & (rank >= 1) & (rank < DEEPEST)
