"""What every runner shares: the settings, the networks with their common weights, the images, the clock, the test.

It runs inside the virtual environment of each tool, so it imports torch, torchvision, timm and safetensors, and nothing
of edgedistill.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

WARMUP = 0.15
"""Share of the steps that warm up, where a tool can be told so; edgedistill's default."""

Colour = tuple[float, float, float]
Look = tuple[Colour, Colour]


@dataclass(frozen=True)
class Settings:
    """`work.json`: the same work for every tool. Sizes in pixels; `mean` and `std` are those of the teacher."""

    size: int
    batch: int
    epochs: int
    lr: float
    weight_decay: float
    temperature: float
    min_crop: float
    student: str
    teacher: str
    classes: tuple[str, ...]
    mean: Colour
    std: Colour
    train: int
    val: int
    test: int
    seeds: tuple[int, ...]
    source: str
    teacher_hits: int


@dataclass(frozen=True)
class Outcome:
    """What one run of one tool says. Seconds are wall time.

    `training_s` is the time spent in the loops over training images (loading, teacher, student, update), `seconds`
    that from opening the images to the last weights, validation after each epoch included; imports and the test
    are in neither. `storing_s` is the part of `seconds` in which a teacher's outputs were stored, `None` without it.
    """

    tool: str
    version: str
    seed: int
    epochs: int
    images: int
    training_s: float
    seconds: float
    right: str
    storing_s: float | None
    settings: Mapping[str, Any]

    def tell(self) -> None:
        """Print it as one line of JSON, the last one of a runner; `images_per_s` counts storing."""
        more = {
            "images_per_s": self.images / (self.training_s + (self.storing_s or 0.0)),
            "hits": self.right.count("1"),
            "n": len(self.right),
        }
        print(json.dumps({**asdict(self), **more}), flush=True)


@dataclass(frozen=True)
class Work:
    """The folder that `work.py` made, with its settings."""

    folder: Path
    settings: Settings

    @classmethod
    def open(cls, folder: Path) -> Work:
        """Read `work.json`."""
        values = json.loads((folder / "work.json").read_text("utf-8"))
        lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(folder.resolve(), Settings(**{**values, **lists}))

    def start(self, seed: int) -> Path:
        """The student's start weights of a seed."""
        return self.folder / f"start-{seed}.safetensors"

    def student(self, seed: int, *, channels_last: bool = False) -> nn.Module:
        """The student with its start weights."""
        path = self.start(seed)
        return network(self.settings.student, len(self.settings.classes), path, channels_last)

    def teacher(self, *, channels_last: bool = False) -> nn.Module:
        """The adapted teacher."""
        path = self.folder / "teacher.safetensors"
        return network(
            self.settings.teacher, len(self.settings.classes), path, channels_last
        ).eval()

    def tested(self, look: Look | None = None) -> Any:
        """The test images, whole."""
        return self._folder(self.folder / "tested", train=False, look=look)

    def images(self, split: str, *, train: bool = False) -> Any:
        """The image folder of a split: random crops and mirrors with `train`, whole images without."""
        return self._folder(self.folder / "images" / split, train=train, look=None)

    def _folder(self, folder: Path, *, train: bool, look: Look | None) -> Any:
        """`look` is the mean and the deviation to normalise with, the teacher's when `None`."""
        chosen = self.settings
        size = chosen.size
        view = (
            [
                transforms.RandomResizedCrop(size, scale=(chosen.min_crop, 1.0)),
                transforms.RandomHorizontalFlip(),
            ]
            if train
            else [transforms.Resize((size, size))]
        )
        normalise = transforms.Normalize(*(look or (chosen.mean, chosen.std)))
        whole = [*view, transforms.ToTensor(), normalise]
        return datasets.ImageFolder(str(folder), transforms.Compose(whole))


def network(name: str, classes: int, weights: Path, channels_last: bool = False) -> nn.Module:
    """A timm classifier with the weights of a safetensors file, in torch's default memory format or channels last."""
    model: Any = timm.create_model(name, pretrained=False, num_classes=classes)
    model.load_state_dict(load_file(weights))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return model.to(memory_format=layout)  # type: ignore[no-any-return]


class Timed:
    """A loader that adds up the time of each pass over it, from its start to its end: the body of the loop included."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader, self.seconds, self.images = loader, 0.0, 0

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        start = time.perf_counter()
        for batch in self.loader:
            self.images += len(batch[0])
            yield batch
        self.seconds += time.perf_counter() - start


def loader(data: Any, batch: int, workers: int, *, shuffle: bool) -> DataLoader[Any]:
    """A loader whose workers stay between epochs."""
    return DataLoader(
        data, batch_size=batch, shuffle=shuffle, num_workers=workers, persistent_workers=workers > 0
    )


def marks(model: nn.Module, images: Any) -> str:
    """Whether a classifier is right on each image of a folder, whole and unmirrored: 1 or 0, in order."""
    model.eval()
    found = []
    with torch.inference_mode():
        for x, labels in DataLoader(images, batch_size=250):
            found += (model(x).argmax(1) == labels).tolist()
    return "".join("1" if right else "0" for right in found)


def runner(text: str) -> argparse.ArgumentParser:
    """The command line that every runner has; `text` is its docstring."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder that work.py made")
    parser.add_argument(
        "--scratch", type=Path, required=True, help="folder for what the tool writes"
    )
    parser.add_argument("--seed", type=int, default=0, help="one of the seeds of the work")
    parser.add_argument("--epochs", type=int, help="epochs [those of the work]")
    parser.add_argument("--workers", type=int, default=0, help="worker processes that load images")
    parser.add_argument(
        "--channels-last", action="store_true", help="networks in that memory format"
    )
    return parser


def described(given: argparse.Namespace, loss: str) -> dict[str, Any]:
    """The settings of a tool with a live teacher."""
    return {
        "loss": loss,
        "teacher": "live",
        "workers": given.workers,
        "channels_last": given.channels_last,
        "threads": torch.get_num_threads(),
    }
