"""What the tests of teachers share: small networks in folders, small arrays, and a real, small training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import nn

from edgedistill.data.stage import Arrays
from edgedistill.metrics import top1
from edgedistill.nets import Look, forward, outputs, state_bytes
from edgedistill.progress import silent
from edgedistill.recipe import TeacherSection
from edgedistill.result import CurvePoint
from edgedistill.rundir import Done, Work
from edgedistill.teacher.probe import whole_images
from edgedistill.teacher.pupil import FineTuned
from edgedistill.teacher.stage import teach

CPU = torch.device("cpu")
NAMES = ("red", "green", "blue")


def head_of(model: nn.Module) -> Any:
    """A network's classifier."""
    net: Any = model
    return net.get_classifier()


def arrays(folder: Path, size: int = 40, n: int = 30) -> Arrays:
    """Images of one colour or another, noisy; one validation label is wrong, so that no probe gets it right."""
    rng = np.random.default_rng(0)
    labels = np.arange(n, dtype=np.int64) % 3
    canvas = rng.integers(0, 80, (n, size + 4, size + 4, 3), dtype=np.uint8)
    canvas[np.arange(n), :, :, labels] += 120
    val = canvas[:12, 2 : size + 2, 2 : size + 2].copy()
    val_labels = labels[:12].copy()
    val_labels[0] = (val_labels[0] + 1) % 3
    return Arrays(folder, canvas, val, val, val, val, labels, val_labels, val_labels)


def saved(
    folder: Path,
    name: str = "test_resnet",
    classes: int = 6,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    **args: Any,
) -> str:
    """A timm model in a folder of its own, with class names where they are given."""
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=classes, **args)
    config = {"label_names": list(labels)} if labels else None
    timm.models.save_for_hf(
        model, folder, model_config=config, model_args=args or None, safe_serialization=True
    )
    return f"local-dir:{folder}"


class Tuner:
    """Stands in for training: gives a network another bias and a score."""

    def __init__(self, score: float = 0.0) -> None:
        self.score, self.calls = score, 0

    def __call__(self, model: nn.Module, look: Look, keep: tuple[int, ...]) -> FineTuned:
        self.calls += 1
        with torch.no_grad():
            head_of(model).bias.add_(0.5)
        return FineTuned(self.score, [CurvePoint(epoch=1, loss=1.0)], 2.0, 30)


class Trainer:
    """A real training of every weight, by the contract: it leaves the weights of the epochs that it is told to keep."""

    def __init__(self, work: Work, data: Arrays, epochs: int, lr: float = 0.02) -> None:
        self.work, self.data, self.epochs, self.lr, self.calls = work, data, epochs, lr, 0

    def __call__(self, model: nn.Module, look: Look, keep: tuple[int, ...]) -> FineTuned:
        self.calls += 1
        optimizer = torch.optim.SGD(model.parameters(), self.lr)
        x = look.normalise(whole_images(self.data.train, look.size, CPU))
        y, curve = torch.from_numpy(self.data.train_labels), []
        for epoch in range(1, self.epochs + 1):
            model.eval()
            loss = F.cross_entropy(forward(model, x)[1], y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            curve.append(CurvePoint(epoch=epoch, loss=float(loss.detach())))
            if epoch in keep:
                self.work.write(f"teacher.epoch{epoch}.safetensors", state_bytes(model))
        logits = outputs(model, self.data.teacher_val, look, CPU)[1]
        images = self.epochs * len(self.data.train)
        return FineTuned(top1(logits, self.data.val_labels), curve, 1.0, images)


def taught(
    tmp_path: Path,
    section: TeacherSection,
    tuner: Any,
    size: int = 40,
    names: Sequence[str] = NAMES,
) -> tuple[dict[str, Any], Work]:
    """A whole teacher stage."""
    work = Work(tmp_path / "stage")
    work.folder.mkdir(exist_ok=True)
    data = arrays(tmp_path, size)
    facts = teach(work, section, data, names, size, 0, tuner, silent())
    return facts, work


def done_of(work: Work, facts: dict[str, Any]) -> Done:
    """The stage as a later one sees it."""
    return Done("04-teacher", work.folder, "0" * 64, facts, 1.0)
