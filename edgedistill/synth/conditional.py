"""A class-conditional diffusion pipeline: a small `UNet2DModel` that knows each class by number, no text.

Saved as an ordinary diffusers folder (`model_index.json`, `unet/`, `scheduler/`), which `from_pretrained` reads. The
last embedding of the network stands for no class; classifier-free guidance (Ho & Salimans 2022) goes from it to the
class.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from torch.nn.functional import pixel_shuffle


class ClassConditionalPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Images of classes by number: `classes` are their names in order, `crop` is the side cut out of the middle.

    The network sees `patch` x `patch` pixels as one place.
    """

    model_cpu_offload_seq = "unet"

    def __init__(
        self,
        unet: Any,
        scheduler: Any,
        classes: list[str] | None = None,
        crop: int | None = None,
        patch: int = 1,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(classes=list(classes or ()), crop=crop, patch=patch)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: list[int],
        guidance_scale: float = 2.0,
        num_inference_steps: int = 10,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "np",
    ) -> ImagePipelineOutput:
        """Images (B, S, S, C) in 0..1 of the classes (B,); one generator for each image makes each its own.

        With a guidance of 1 the network runs once a step, else twice.
        """
        net, device = self.unet, self._execution_device
        labels = torch.tensor(class_labels, device=device)
        nothing = torch.full_like(labels, len(self.config.classes))
        side = int(net.config.sample_size)
        shape = (len(labels), int(net.config.in_channels), side, side)
        x = randn_tensor(shape, generator=generator, device=device, dtype=net.dtype)
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        x = x * self.scheduler.init_noise_sigma
        for step in self.progress_bar(self.scheduler.timesteps):
            seen = self.scheduler.scale_model_input(x, step)
            predicted = self._predict(seen, step, labels)
            if guidance_scale != 1.0:
                free = self._predict(seen, step, nothing)
                predicted = free + guidance_scale * (predicted - free)
            x = self.scheduler.step(predicted, step, x).prev_sample
        x = pixel_shuffle(x.float(), self.config.patch)
        images = self._cut(x.clamp(-1, 1) / 2 + 0.5).permute(0, 2, 3, 1).cpu().numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        return ImagePipelineOutput(images=images)

    def _predict(self, x: Tensor, step: Tensor, labels: Tensor) -> Tensor:
        predicted: Tensor = self.unet(x, step, class_labels=labels).sample
        return predicted

    def _cut(self, x: Tensor) -> Tensor:
        crop = self.config.crop
        if crop is None:
            return x
        start = (x.shape[-1] - crop) // 2
        return x[..., start : start + crop, start : start + crop]
