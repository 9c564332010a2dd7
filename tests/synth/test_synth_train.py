"""A generator trained on a task's own images: it learns, it goes on where it was, and its folder is an ordinary one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers")

import torch

from edgedistill.errors import StoppedError
from edgedistill.progress import silent
from edgedistill.rundir import Work
from edgedistill.synth import train as training
from edgedistill.synth.generators import Wish, open_source
from edgedistill.synth.pipelines import Making, folder_hash
from edgedistill.synth.train import Fitting, GeneratorTrainer, min_snr, padded_side

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of diffusers' schedulers
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
CLASSES = ("dark", "light")
TINY = Fitting(steps=12, batch_size=8, widths=(8, 16), layers=1)


def _images(n: int = 40, side: int = 10, grey: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Dark and light squares with some noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(n, dtype=np.int64) % 2
    pixels = rng.normal(np.where(labels == 0, 40, 215)[:, None, None, None], 10, (n, side, side, 3))
    if grey:
        pixels[..., 1:] = pixels[..., :1]
    return np.clip(pixels, 0, 255).astype(np.uint8), labels


def _trainer(fitting: Fitting = TINY, **images: Any) -> GeneratorTrainer:
    return GeneratorTrainer(*_images(**images), CLASSES, fitting)


def _work(path: Path) -> Work:
    path.mkdir()
    return Work(path)


def test_a_generator_learns_its_classes(tmp_path: Path) -> None:
    fitting = Fitting(steps=150, batch_size=16, widths=(16, 16), layers=1, lr=5e-3, ema=0.9)
    work = _work(tmp_path / "w")
    facts = _trainer(fitting).run(work, silent())
    assert facts["curve"][-1] < 0.6 * facts["curve"][0]
    assert facts["passes"] == 2400
    making = Making("class_conditional", str(work.path("generator")), steps=8, guidance=1.0)
    source = open_source(making, CLASSES)
    images = source.make([Wish(n, n % 2, "", n) for n in range(8)])
    assert images[0].shape == (10, 10, 3)
    dark, light = (np.mean([image.mean() for image in images[k::2]]) for k in (0, 1))
    assert dark + 60 < light


@pytest.mark.parametrize("kills", [(1,), (5,), (3, 9)])
def test_a_broken_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: tuple[int, ...]
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_STEPS", 2)
    monkeypatch.setattr(training, "LOOK_STEPS", 3)
    whole = _work(tmp_path / "whole")
    facts = _trainer().run(whole, silent())
    broken = _work(tmp_path / "broken")
    for at in kills:
        trainer = _trainer()
        plain = trainer._train_step

        def step(trainer: GeneratorTrainer = trainer, at: int = at, plain: Any = plain) -> None:
            if trainer.step == at:
                raise KeyboardInterrupt
            plain()

        trainer._train_step = step  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            trainer.run(broken, silent())
    again = _trainer().run(broken, silent())
    assert folder_hash(whole.path("generator")) == folder_hash(broken.path("generator"))
    assert again["loss"] == pytest.approx(facts["loss"])


def test_colour_and_sides_that_cannot_be_halved(tmp_path: Path) -> None:
    fitting = Fitting(steps=2, batch_size=4, widths=(8, 8, 16), layers=1)
    work = _work(tmp_path / "w")
    _trainer(fitting, side=13, grey=False).run(work, silent())
    making = Making("class_conditional", str(work.path("generator")), steps=2, guidance=3.0)
    image = open_source(making, CLASSES).make([Wish(0, 1, "", 0)])[0]
    assert image.shape == (13, 13, 3)
    assert (image[..., 0] != image[..., 1]).any()
    assert [padded_side(side, 4) for side in (1, 12, 13, 28)] == [4, 12, 16, 28]


def test_another_seed_is_another_generator(tmp_path: Path) -> None:
    hashes = set()
    for seed in (0, 0, 1):
        work = _work(tmp_path / f"{seed}-{len(list(tmp_path.iterdir()))}")
        _trainer(Fitting(steps=3, batch_size=4, widths=(8, 8), seed=seed)).run(work, silent())
        hashes.add(folder_hash(work.path("generator")))
    assert len(hashes) == 2


def test_every_image_is_seen_once_an_epoch() -> None:
    trainer = _trainer(Fitting(steps=10, batch_size=8, widths=(8, 8), flip=False))
    seen = []
    for trainer.step in range(5):
        clean, _, _, _ = trainer._batch()
        seen += [tuple(row.flatten()[:20].tolist()) for row in clean]
    assert len(set(seen)) == 40


def test_a_tenth_of_the_images_is_not_told_its_class() -> None:
    trainer = _trainer(Fitting(steps=200, batch_size=40, widths=(8, 8)))
    labels = []
    for trainer.step in range(50):
        labels += trainer._batch()[1].tolist()
    assert 0.07 < labels.count(len(CLASSES)) / len(labels) < 0.13


def test_a_loss_that_is_not_finite_stops_with_a_way_out(tmp_path: Path) -> None:
    trainer = _trainer()
    with torch.no_grad():
        trainer.net.conv_out.bias.fill_(float("nan"))
    with pytest.raises(StoppedError, match=r"not finite at step 12 of 12.*--lr 0.0003"):
        trainer.run(_work(tmp_path / "w"), silent())


def test_weights_are_those_of_min_snr() -> None:
    """min(SNR, 5) / (SNR + 1): 1 - alpha for pure images' end of the schedule is near 0, and 5/6 at SNR 5."""
    snr = torch.tensor([0.01, 1.0, 5.0, 1000.0])
    assert torch.allclose(
        min_snr(snr / (snr + 1)), torch.tensor([0.00990, 0.5, 0.83333, 0.004995]), atol=1e-4
    )
