"""Trains a class-conditional generator on a task's own training images, for domains that no hub model knows.

A small `UNet2DModel` learns to take noise out of images whose class it is told (DDPM, Ho et al. 2020: cosine noise
schedule and v-prediction, Salimans & Ho 2022; min-SNR weights, Hang et al. 2023); for a tenth of the images it is not
told the class, which is what guidance goes away from later. What ships is the average of the weights over the run.

Order, noise and times are functions of (seed, step), and the rest is in the checkpoint: killed and started again, it
ends with the same weights. Under `accelerate launch` each process takes its part of every batch.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from edgedistill import crew
from edgedistill.errors import StoppedError
from edgedistill.files import replace_folder
from edgedistill.nets import hold_memory, torch_bytes
from edgedistill.progress import Face
from edgedistill.rundir import Work
from edgedistill.synth.conditional import ClassConditionalPipeline

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
CHECKPOINT_STEPS = 200
LOOK_STEPS = 50
TIMES = 1000
WARMUP_STEPS = 200
SNR_GAMMA = 5.0
GENERATOR, CHECKPOINT = "generator", "generator.checkpoint"


@dataclass(frozen=True)
class Fitting:
    """How a generator is trained. The network sees `patch` x `patch` pixels as one place, and is that much cheaper.

    `widths` are channels from that side down, each half of the side before.
    """

    steps: int
    batch_size: int = 128
    lr: float = 1e-3
    widths: tuple[int, ...] = (32, 64, 96)
    layers: int = 1
    patch: int = 2
    ema: float = 0.999
    untold: float = 0.1
    flip: bool = True
    precision: str = "float32"
    seed: int = 0

    @property
    def multiple(self) -> int:
        """The side of an image is made a multiple of this, in pixels."""
        return int(self.patch * 2 ** (len(self.widths) - 1))


def padded_side(side: int, multiple: int) -> int:
    """The least side that holds an image and that the network can halve."""
    return math.ceil(side / multiple) * multiple


def network(side: int, channels: int, classes: int, fitting: Fitting) -> Any:
    """The U-Net: residual blocks at each side, attention at the smallest."""
    depth, places = len(fitting.widths), channels * fitting.patch**2
    return UNet2DModel(
        sample_size=padded_side(side, fitting.multiple) // fitting.patch,
        in_channels=places,
        out_channels=places,
        block_out_channels=fitting.widths,
        layers_per_block=fitting.layers,
        down_block_types=("DownBlock2D",) * depth,
        up_block_types=("UpBlock2D",) * depth,
        norm_num_groups=8,
        attention_head_dim=min(32, fitting.widths[-1]),
        num_class_embeds=classes + 1,
    )


def noise_schedule() -> Any:
    """The schedule that training and sampling share."""
    return DDPMScheduler(
        num_train_timesteps=TIMES, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"
    )


def sampler() -> Any:
    """A fast solver for the same schedule (DPM-Solver++ of second order, Lu et al. 2022)."""
    return DPMSolverMultistepScheduler.from_config(
        noise_schedule().config,
        algorithm_type="dpmsolver++",
        solver_order=2,
        timestep_spacing="trailing",
    )


class GeneratorTrainer:
    """Trains a generator to the end; `run` goes on from the checkpoint of a broken try.

    `pixels` (N, S, S, 3) and `labels` (N,) are the training images. Grey images give a network of one channel.
    """

    def __init__(
        self, pixels: Pixels, labels: Ints, classes: tuple[str, ...], fitting: Fitting
    ) -> None:
        self.device: torch.device = crew.accelerator().device
        if self.device.type == "cpu":
            hold_memory()
        self.fitting, self.classes, self.side = fitting, classes, int(pixels.shape[1])
        grey = bool((pixels[..., :1] == pixels).all())
        self.pixels = torch.from_numpy(np.ascontiguousarray(pixels[..., :1] if grey else pixels))
        self.labels = torch.from_numpy(labels)
        torch.manual_seed(fitting.seed)
        self.net = network(self.side, 1 if grey else 3, len(classes), fitting).to(self.device)
        self.ema = ModelEmaV3(self.net, decay=fitting.ema, use_warmup=True)
        self.wrapped: nn.Module = (
            crew.accelerator().prepare_model(self.net) if crew.size() > 1 else self.net
        )
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=fitting.lr, weight_decay=0.01, fused=True
        )
        self.alphas = noise_schedule().alphas_cumprod.to(self.device)
        self.step, self.curve = 0, list[float]()
        self.sum = torch.zeros((), device=self.device)

    def run(self, work: Work, face: Face) -> dict[str, Any]:
        """Train, and leave the folder `generator`; what it took. Raises `StoppedError` where the loss is not finite."""
        self._resume(work)
        with face.bar("generator: training", self.fitting.steps) as bar:
            bar(self.step)
            while self.step < self.fitting.steps:
                self._train_step()
                bar(1)
                if self.step % LOOK_STEPS == 0 or self.step == self.fitting.steps:
                    self._look(face)
                if self.step % CHECKPOINT_STEPS == 0:
                    self._save(work)
        if crew.leads():
            save_pipeline(
                self.ema.module, self.classes, self.side, self.fitting.patch, work.path(GENERATOR)
            )
        return {
            "steps": self.step,
            "passes": self.step * self.fitting.batch_size,
            "params": sum(p.numel() for p in self.net.parameters()),
            "loss": self.curve[-1],
            "curve": self.curve,
            "fitting": asdict(self.fitting),
        }

    def _train_step(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.fitting.lr * self._rate()
        clean, labels, noise, times = self._batch()
        alpha = self.alphas[times].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        half = self.fitting.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            predicted = self.wrapped(noisy, times, class_labels=labels).sample
        errors = (predicted.float() - target).square().mean((1, 2, 3))
        loss = (errors * min_snr(alpha.flatten())).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.ema.update(self.net, step=self.step)
        self.sum += loss.detach()

    def _rate(self) -> float:
        """A warm-up, then a cosine to a twentieth."""
        warm = min(1.0, (self.step + 1) / min(WARMUP_STEPS, self.fitting.steps))
        return warm * (0.525 + 0.475 * math.cos(math.pi * self.step / self.fitting.steps))

    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Clean images (B, C, P, P) in -1..1, labels, noise and times (B,) of this process' part of the step."""
        fitting, count = self.fitting, len(self.labels)
        numbers = np.arange(self.step * fitting.batch_size, (self.step + 1) * fitting.batch_size)
        rows = np.concatenate(
            [
                np.random.default_rng([fitting.seed, 1, int(epoch)]).permutation(count)[
                    numbers[numbers // count == epoch] % count
                ]
                for epoch in np.unique(numbers // count)
            ]
        )
        draw = torch.Generator().manual_seed(fitting.seed * 1_000_003 + self.step)
        shape = (len(rows), self.net.config.in_channels, *[self.net.config.sample_size] * 2)
        noise = torch.randn(shape, generator=draw)
        times = torch.randint(TIMES, (len(rows),), generator=draw)
        untold = torch.rand(len(rows), generator=draw) < fitting.untold
        mirrored = (torch.rand(len(rows), generator=draw) < 0.5) & fitting.flip
        clean = self._clean(torch.from_numpy(rows), mirrored)
        labels = torch.where(untold, len(self.classes), self.labels[rows])
        mine = slice(crew.rank(), None, crew.size())
        parts = [part[mine].to(self.device) for part in (clean, labels, noise, times)]
        return parts[0], parts[1], parts[2], parts[3]

    def _clean(self, rows: Tensor, mirrored: Tensor) -> Tensor:
        """Images (B, C, P, P) in -1..1, patches as channels."""
        x = self.pixels[rows].permute(0, 3, 1, 2).float() / 127.5 - 1
        x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(3), x)
        more = int(self.net.config.sample_size) * self.fitting.patch - self.side
        sides = (more // 2, more - more // 2)
        x = nn.functional.pad(x, (*sides, *sides), mode="replicate") if more else x
        return nn.functional.pixel_unshuffle(x, self.fitting.patch)

    def _look(self, face: Face) -> None:
        steps = (self.step - 1) % LOOK_STEPS + 1
        mean = float(np.mean(crew.gathered(float(self.sum) / steps)))
        self.sum.zero_()
        if not math.isfinite(mean):
            raise StoppedError(
                f"the generator's loss is not finite at step {self.step} of {self.fitting.steps}. Train it with a "
                f"lower rate (--lr {self.fitting.lr / 3:.1g})."
            )
        self.curve.append(mean)
        face.detail(f"generator: step {self.step:,} of {self.fitting.steps:,}, loss {mean:.4f}")

    def _save(self, work: Work) -> None:
        state = {
            "step": self.step,
            "curve": self.curve,
            "net": self.net.state_dict(),
            "ema": self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        work.write(CHECKPOINT, torch_bytes(state))

    def _resume(self, work: Work) -> None:
        if not crew.told(work.has(CHECKPOINT)):
            return
        state = torch.load(work.path(CHECKPOINT), map_location="cpu", weights_only=True)
        self.step, self.curve = state["step"], list(state["curve"])
        self.net.load_state_dict(state["net"])
        self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])


def min_snr(alpha: Tensor) -> Tensor:
    """Weights (B,) of the v-prediction's errors: min(SNR, gamma) / (SNR + 1) (Hang et al. 2023, for v)."""
    snr = alpha / (1 - alpha)
    return snr.clamp(max=SNR_GAMMA) / (snr + 1)


def save_pipeline(net: Any, classes: tuple[str, ...], side: int, patch: int, folder: Path) -> None:
    """Save a trained network as a folder that `from_pretrained` reads, whole or not at all."""
    crop = side if int(net.config.sample_size) * patch != side else None
    with (
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".generator.") as name,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        pipe = ClassConditionalPipeline(net, sampler(), list(classes), crop, patch)
        pipe.save_pretrained(Path(name) / GENERATOR)
        replace_folder(Path(name) / GENERATOR, folder)
